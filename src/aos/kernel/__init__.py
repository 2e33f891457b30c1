"""The agent kernel: agents as supervised processes. Pure: it reaches the world through effects alone."""
