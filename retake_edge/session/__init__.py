"""One video read once, and any number of questions about it."""
