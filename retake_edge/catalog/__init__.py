"""Models that suit this machine, and the one that answers where none is named."""
