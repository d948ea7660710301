"""A model's files, and how it wants its video and prompt."""
