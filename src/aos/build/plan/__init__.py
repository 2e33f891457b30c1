"""The plan: a definition and the digests of its inputs become a graph of vertices with cache keys. Pure."""
