"""`Agentfile.lock`: what names were found to mean, and holding builds to it."""
