"""The build context: its files, what is hidden of them, what steps take of them, what is known of their content."""
