"""Benchmarks: speed and memory beside peers, in the same run, on the same root file system. Run by `make bench`."""
