"""What a build says while it works, and how a terminal, a log and a program are told."""
