"""Ask questions about a long video on your own machine, with a compressed KV cache."""

__version__ = "0.1.0"
