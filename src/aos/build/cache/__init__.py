"""What builds keep to be quicker the next time: here, in shared caches, and giving some of it back."""
