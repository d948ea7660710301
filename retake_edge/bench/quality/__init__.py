"""The quality benchmark: videos, variants, figures."""
