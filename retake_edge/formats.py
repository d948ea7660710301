"""Times as people write and read them."""

from __future__ import annotations

import re

from retake_edge.errors import ConfigError


def clock(seconds: float) -> str:
    """Return a time as m:ss, or h:mm:ss from an hour on, rounded down."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def told_apart(*times_s: float) -> tuple[str, ...]:
    """Return times as `clock` does, or with hundredths of a second where some would look alike."""
    found = tuple(clock(time_s) for time_s in times_s)
    if len(set(found)) == len(found):
        return found
    return tuple(f"{clock(time_s)}.{int(100 * (time_s % 1)):02d}" for time_s in times_s)


def parse_time(text: str, name: str = "The time") -> float:
    """Return the seconds of a time written as 90, 90.5, 1:30 or 1:02:00.

    Raises:
        ConfigError: it is none; the sentence begins with `name`.
    """
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)", text.strip(), re.ASCII)
    if match is None:
        raise ConfigError(
            f"{name} is {text!r}, but it must be seconds, M:SS or H:MM:SS, such as 90, 1:30 or "
            "1:02:00."
        )
    hours, minutes, seconds = match[1], match[2], float(match[3])
    if (minutes and seconds >= 60) or (hours and int(minutes) >= 60):
        raise ConfigError(f"{name} is {text!r}, but minutes and seconds go up to 59.")
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + seconds


def seconds_of(name: str, value: float | str | None) -> float | None:
    """Return the seconds of a time given as a number or as text; None stays None.

    Raises:
        ConfigError: it is no time; the sentence begins with `name`.
    """
    return parse_time(value, name) if isinstance(value, str) else value


def duration(seconds: float) -> str:
    """Return a duration as a person says it: 8 s, 40 s, 9 min, 2 h 10 min."""
    if seconds < 90:
        return f"{seconds if seconds < 10 else 5 * round(seconds / 5):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(5 * round(minutes / 5), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def spoken_seconds(value: float) -> str:
    """Return seconds as people say them: 0.5 s, 2 s, 1 min 30 s."""
    if value < 9.95:
        return f"{value:.1f}".removesuffix(".0") + " s" if value >= 0.095 else f"{value:.2g} s"
    minutes, rest = divmod(round(value), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


_BINARY_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(text: str) -> int:
    """Return a number of bytes written like 1000, 20G, 1.5GB or 500MiB.

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if match is None or (match[3] and not match[2]):
        raise ConfigError(f"{text!r} is no number of bytes; write it like 1000, 20G or 500MiB.")
    units = _BINARY_UNITS if match[3] else _UNITS
    return int(float(match[1]) * units[match[2].upper()])


def shown_bytes(n_bytes: int) -> str:
    """Return bytes as people read them: 340 kB, 1.2 GB."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
