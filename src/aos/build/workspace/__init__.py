"""Where a running build works, and the removal of what killed ones left."""
