"""One module or package for each backend; nothing is imported here, so that each costs only its users."""
