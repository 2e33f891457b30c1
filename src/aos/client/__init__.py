"""The way to a kernel: over its local socket, with nothing but builtins and C modules, for the sake of a quick start."""
