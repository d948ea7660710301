"""Times as people read them."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Return a time as m:ss, or h:mm:ss from an hour on, rounded down."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
