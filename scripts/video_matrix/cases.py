"""All files of the matrix."""

from __future__ import annotations

from video_matrix import (
    cases_clocks,
    cases_codecs,
    cases_devices,
    cases_pictures,
    cases_streams,
)
from video_matrix.case import Case


def all_cases() -> list[Case]:
    """Return every file of the matrix, in the order of the table.

    Raises:
        ValueError: two files have one name.
    """
    cases = [
        *cases_codecs.cases(),
        *cases_clocks.cases(),
        *cases_pictures.cases(),
        *cases_streams.cases(),
        *cases_devices.cases(),
    ]
    names = [one.name for one in cases]
    if len(set(names)) < len(names):
        raise ValueError(f"names given twice: {sorted({n for n in names if names.count(n) > 1})}")
    return cases
