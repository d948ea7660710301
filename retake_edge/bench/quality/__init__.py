"""Which policy keeps the answers: videos, variants, figures."""
