"""A contact sheet: the keyframes of a video in one picture, each with its time."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from retake_edge.errors import ConfigError
from retake_edge.report.pictures import Thumbnail
from retake_edge.session.evidence import Span

Image = npt.NDArray[np.uint8]

_COLUMNS, _GAP, _MARGIN, _TITLE, _LABEL = 8, 12, 24, 44, 22
_PAGE, _INK, _SOFT, _MARK = (22, 17, 14), (240, 235, 232), (179, 162, 152), (76, 138, 255)  # BGR
_FONT = cv2.FONT_HERSHEY_DUPLEX


def contact_sheet(title: str, thumbnails: Sequence[Thumbnail], spans: Sequence[Span] = ()) -> bytes:
    """Return a PNG of thumbnails in rows of eight; those within a span are framed.

    OpenCV's font has ASCII alone: other letters of `title` show as '?'.

    Raises:
        ConfigError: there is nothing to show.
    """
    if not thumbnails:
        raise ConfigError("There are no pictures for a contact sheet; index the video again.")
    pictures = [_decoded(thumbnail) for thumbnail in thumbnails]
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    n_columns = min(_COLUMNS, len(pictures))
    n_rows = -(-len(pictures) // n_columns)
    step_x, step_y = width + _GAP, height + _LABEL + _GAP
    size = (
        2 * _MARGIN + _TITLE + n_rows * step_y - _GAP,
        2 * _MARGIN + n_columns * step_x - _GAP,
    )
    sheet = np.full((*size, 3), _PAGE, np.uint8)
    _write(sheet, title, _MARGIN, _MARGIN + 18, 0.75, _INK, size[1] - 2 * _MARGIN)
    for i, (thumbnail, picture) in enumerate(zip(thumbnails, pictures, strict=True)):
        x = _MARGIN + i % n_columns * step_x
        y = _MARGIN + _TITLE + i // n_columns * step_y
        marked = any(span.start_s <= thumbnail.time_s < span.end_s for span in spans)
        _place(sheet, picture, x, y, (width, height), marked)
        colour = _MARK if marked else _SOFT
        _write(sheet, thumbnail.time, x, y + height + 17, 0.5, colour, width)
    ok, data = cv2.imencode(".png", sheet)
    assert ok
    return bytes(data)


def _decoded(thumbnail: Thumbnail) -> Image:
    picture = cv2.imdecode(np.frombuffer(thumbnail.jpeg, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(picture, np.uint8)


def _place(
    sheet: Image, picture: Image, x: int, y: int, cell: tuple[int, int], marked: bool
) -> None:
    """Put a picture into the middle of its cell, with a frame if it is marked."""
    height, width = picture.shape[:2]
    left, top = x + (cell[0] - width) // 2, y + (cell[1] - height) // 2
    sheet[top : top + height, left : left + width] = picture
    if marked:
        corner = (left + width + 2, top + height + 2)
        cv2.rectangle(sheet, (left - 3, top - 3), corner, _MARK, 3)


def _write(
    sheet: Image, text: str, x: int, y: int, scale: float, colour: Sequence[int], width: int
) -> None:
    """Write one line, cut to `width` pixels."""
    shown = "".join(letter if " " <= letter <= "~" else "?" for letter in text)

    def length(line: str) -> int:
        return int(cv2.getTextSize(line, _FONT, scale, 1)[0][0])

    while shown and length(shown) > width:
        shown = shown[:-4] + "..." if len(shown) > 4 else ""
    cv2.putText(sheet, shown, (x, y), _FONT, scale, tuple(colour), 1, cv2.LINE_AA)
