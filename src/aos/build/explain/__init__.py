"""What builds did, and why each vertex of the next one is a hit or a miss."""
