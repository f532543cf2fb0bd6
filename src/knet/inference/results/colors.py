"""The colours of classes and of their objects. Colours are RGB, 0 to 255."""

import colorsys
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from knet.structures import Category, Segment

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]

GOLDEN = 0.618033988749895  # steps of this share of a circle never come near an earlier one
KINDS = 8  # colours that the objects of a class take in turn
_VISIBLE = (0.5, 0.82)  # lightness of objects: neither lost in the night nor in the snow
_NEAR = 0.01  # share of the image's extent: objects closer than this are neighbours

# OKLab, a space in which equal distances look equally different: linear RGB to cone responses, and those to lightness
# and two axes of colour.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_AXES = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_FROM_CONES, _FROM_AXES = np.linalg.inv(_CONES), np.linalg.inv(_AXES)


def oklab(colors: np.ndarray) -> np.ndarray:
    """RGB (...,3), 0 to 255 -> OKLab (...,3): lightness 0 to 1 and two axes of colour, of some 0.3 each way."""
    share = np.asarray(colors) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _CONES.T) @ _AXES.T


def _rgb(lab: np.ndarray) -> np.ndarray:
    """OKLab -> RGB, 0 to 1 if the colour can be shown."""
    linear = (lab @ _FROM_AXES.T) ** 3 @ _FROM_CONES.T
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


def _around(lab: np.ndarray) -> np.ndarray:
    """Colours that a screen can show and that still look like a given one: lighter, darker, paler, of a hue nearby."""
    chroma, hue = float(np.hypot(lab[1], lab[2])), math.atan2(lab[2], lab[1])
    turns = np.linspace(-0.5, 0.5, 9) if chroma > 0.03 else np.linspace(0, 2 * math.pi, 9)[:-1]  # greys have no hue
    lightness = np.linspace(*_VISIBLE, 9)
    chromas = min(max(chroma, 0.07), 0.2) * np.array([1, 0.75])
    light, strong, turn = (axis.ravel() for axis in np.meshgrid(lightness, chromas, hue + turns, indexing="ij"))
    labs = np.stack([light, strong * np.cos(turn), strong * np.sin(turn)], axis=1)
    rgb = _rgb(labs)
    return np.rint(rgb[(rgb.min(1) >= 0) & (rgb.max(1) <= 1)] * 255)


def class_color(category: int, categories: Sequence[Category]) -> Color:
    """The RGB colour of a category id: the table's, or a fixed one of its own if the table lacks the id."""
    for row in categories:
        if row.id == category:
            return row.color
    red, green, blue = colorsys.hls_to_rgb((category * GOLDEN) % 1.0, 0.5, 0.65)
    return round(red * 255), round(green * 255), round(blue * 255)


@lru_cache(maxsize=512)
def _object_colors(base: Color) -> tuple[Color, ...]:
    """`KINDS` colours around that of a class, each as far as possible from those before it."""
    lab = oklab(np.array(base))
    around = _around(lab)
    labs = oklab(around)
    first = base
    if not _VISIBLE[0] <= lab[0] <= _VISIBLE[1]:
        first = _color(around[np.linalg.norm(labs - lab, axis=1).argmin()])
    found, nearest = [first], np.full(len(labs), np.inf)
    while len(found) < KINDS:
        nearest = np.minimum(nearest, np.linalg.norm(labs - oklab(np.array(found[-1])), axis=1))
        found.append(_color(around[nearest.argmax()]))
    return tuple(found)


def _color(rgb: np.ndarray) -> Color:
    red, green, blue = rgb.astype(int).tolist()
    return red, green, blue


def instance_color(base: Color, n: int) -> Color:
    """The colour of the n-th object of a class: around the class colour, in hue and lightness, and far from its others.

    Object 0 has the class colour itself, unless that is so dark or so light that it would be lost in a photo. After
    `KINDS` objects the colours begin anew.
    """
    return _object_colors(base)[n % KINDS]


def segment_colors(segments: Sequence[Segment], categories: Sequence[Category]) -> dict[int, Color]:
    """Segment id -> RGB colour: for stuff that of its class, for each thing a variation of it.

    A track determines the variation, so an object keeps its colour in all frames of a video. Without tracks the objects
    of a class take them in turn from left to right, and none that a neighbour has.
    """
    colors: dict[int, Color] = {}
    counted, taken = Counter[int](), dict[int, list[tuple[Box, int]]]()
    margin = _NEAR * max((max(segment.box[2:]) for segment in segments), default=0)
    for segment in sorted(segments, key=lambda s: (s.box[0] + s.box[2], s.box[1], s.id)):
        base = class_color(segment.category, categories)
        if not segment.thing:
            colors[segment.id] = base
        elif segment.track is not None:
            colors[segment.id] = instance_color(base, segment.track)
        else:
            others = taken.setdefault(segment.category, [])
            near = {n for box, n in others if _apart(box, segment.box) <= margin}
            start = counted[segment.category]
            n = next((n % KINDS for n in range(start, start + KINDS) if n % KINDS not in near), start % KINDS)
            colors[segment.id] = instance_color(base, n)
            others.append((segment.box, n))
            counted[segment.category] = n + 1
    return colors


def _apart(a: Box, b: Box) -> int:
    """The larger of the gaps between two boxes, across and down; 0 or less where they touch."""
    return max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])


def listed_colors(
    segments: Sequence[Segment], categories: Sequence[Category]
) -> Iterator[tuple[int, str, list[Color]]]:
    """Category id, name and all colours in the picture of each class that occurs, by area: what a legend shows."""
    colors = segment_colors(segments, categories)
    areas = Counter[tuple[int, str]]()
    used: dict[tuple[int, str], dict[Color, None]] = {}
    for segment in segments:
        areas[segment.category, segment.name] += segment.area
        used.setdefault((segment.category, segment.name), {})[colors[segment.id]] = None
    for (category, name), _ in areas.most_common():
        yield category, name, list(used[category, name])
