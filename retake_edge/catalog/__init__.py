"""Which models suit this machine, and which one answers where none is named."""
