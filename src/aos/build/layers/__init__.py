"""From an upper directory to a layer."""
