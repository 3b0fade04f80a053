"""Units named by the place where they fire."""
