"""aosd, the node: kernel, runtime and content of one host, behind a socket."""
