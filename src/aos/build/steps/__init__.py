"""One file per kind of step: each fills an upper directory on top of what lies below."""
