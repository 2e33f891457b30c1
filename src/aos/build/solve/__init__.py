"""Executing a plan: every vertex once, independent ones at the same time, ending in order."""
