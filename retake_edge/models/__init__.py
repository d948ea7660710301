"""Which files make a model, and how that model wants its video and prompt."""
