"""Which policy keeps the answers: videos, contenders, figures, plots."""
