"""The panel below a picture that says which class has which colours. It never hides a pixel of the picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from knet.inference.results.colors import Color, class_color, listed_colors
from knet.inference.results.fonts import font_for, line_height
from knet.structures import Category, Segment

GROUND: Color = (16, 18, 24)
_MOST_ROWS = 3  # in videos, where the panel has room for the classes that are still to come
_STRIPES = 6  # colours of one class's objects that are shown


@dataclass(frozen=True, slots=True)
class Room:
    """A place that stays the same in all frames of a video: rows of classes, and the least width in pixels."""

    rows: int
    width: int


def room_for(shape: tuple[int, int], categories: Sequence[Category]) -> Room:
    """The place for the classes of a table below pictures of the given height and width, or for the largest of them."""
    entries = [(category.name, [class_color(category.id, categories)]) for category in categories]
    font, line = font_for(*shape), line_height(*shape)
    width = max([shape[1], *(_width(name, colors, font, line) for name, colors in entries)])
    return Room(min(len(_rows(entries, width, font, line)), _MOST_ROWS), width)


def with_legend(
    picture: np.ndarray, segments: Sequence[Segment], categories: Sequence[Category], room: Room | None = None
) -> np.ndarray:
    """The picture with its classes below, largest first, each with the colours that its objects have.

    It becomes higher, and where a name would not fit, also wider. `room` fixes how much; what is beyond is left out.
    """
    height, width = picture.shape[:2]
    entries = [(name, colors) for _, name, colors in listed_colors(segments, categories)]
    if not entries and room is None:
        return picture
    font, line = font_for(height, width), line_height(height, width)
    wide = max([width, *(_width(name, colors, font, line) for name, colors in entries)]) if room is None else room.width
    rows = _rows(entries, wide, font, line)[: None if room is None else room.rows]
    count = len(rows) if room is None else room.rows
    canvas = Image.new("RGB", (wide, height + line * count + line // 2), GROUND)
    canvas.paste(Image.fromarray(picture), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        x, y = line // 2, height + line // 4 + line * number
        for name, colors in row:
            for color in colors[:_STRIPES]:
                pen.rectangle((x, y + line // 5, x + _stripe(colors, line) - 1, y + line - line // 5), fill=color)
                x += _stripe(colors, line)
            pen.text((x + line // 3, y + line / 2), name, font=font, fill=(255, 255, 255), anchor="lm")
            x += line // 3 + round(font.getlength(name)) + line
    return np.array(canvas)


def _stripe(colors: Sequence[Color], line: int) -> int:
    """The width of each of the colours of a class."""
    return line if len(colors) == 1 else max(line // 2, 3)


def _width(name: str, colors: Sequence[Color], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, line: int) -> int:
    stripes = min(len(colors), _STRIPES) * _stripe(colors, line)
    return line // 2 + stripes + line // 3 + round(font.getlength(name)) + line


def _rows(
    entries: Sequence[tuple[str, list[Color]]],
    width: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    line: int,
) -> list[list[tuple[str, list[Color]]]]:
    """The entries in rows that are no wider than the given number of pixels, where an entry is not wider itself."""
    rows: list[list[tuple[str, list[Color]]]] = []
    left = 0
    for entry in entries:
        needed = _width(*entry, font, line) - line // 2
        if not rows or needed > left:
            rows.append([])
            left = width - line // 2
        rows[-1].append(entry)
        left -= needed
    return rows
