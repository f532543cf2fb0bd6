"""Pictures of results: class colours over the image, borders of things, class names, a legend.

All images are (H,W,3) uint8 RGB; id maps are (H,W) integers of the same size, 0 = void.
"""

import colorsys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from numbers import Real

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from knet.errors import DataError, shown
from knet.inference.results.pixels import tint
from knet.structures import Category, Segment

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]

GOLDEN = 0.618033988749895  # steps of this share of a circle never come near an earlier one
LARGEST_TABLE = 1 << 20  # ids above this are looked up by sorting instead of in a table
BORDER: Color = (255, 255, 255)


def map_ids(id_map: np.ndarray, ids: Sequence[int], values: np.ndarray, default: int) -> np.ndarray:
    """Replaces every id by its value. (H,W) integer ids, (N,) values -> (H,W) of the values' dtype

    `values[n]` belongs to `ids[n]`; all other ids, void among them, get `default`.
    """
    if not len(ids):
        return np.full(id_map.shape, default, values.dtype)
    if min(ids) < 0 or max(ids) > LARGEST_TABLE:
        present, inverse = np.unique(id_map, return_inverse=True)
        known = dict(zip(ids, values, strict=True))
        table = np.array([known.get(int(i), default) for i in present], values.dtype)
        return table[inverse].reshape(id_map.shape)
    last = max(ids) + 1
    table = np.full(last + 1, default, values.dtype)
    table[np.asarray(ids)] = values
    if id_map.size and (id_map.min() < 0 or id_map.max() > last):
        id_map = np.where((id_map < 0) | (id_map > last), last, id_map)
    return table[id_map]


def class_color(category: int, categories: Sequence[Category]) -> Color:
    """The RGB colour of a category id: the table's, or a fixed one of its own if the table lacks the id."""
    for row in categories:
        if row.id == category:
            return row.color
    red, green, blue = colorsys.hls_to_rgb((category * GOLDEN) % 1.0, 0.5, 0.65)
    return round(red * 255), round(green * 255), round(blue * 255)


def instance_color(base: Color, n: int) -> Color:
    """The colour of the n-th object of a class: near the class colour, far from those of objects n - 1 and n + 1.

    Object 0 has the class colour itself, unless that is nearly black or nearly white.
    """
    hue, light, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in base))
    around, away = (n * GOLDEN + 0.5) % 1.0 - 0.5, (n * 0.7548776662) % 1.0
    light = min(max(light, 0.36), 0.66)
    light += 0.28 * away if light < 0.5 else -0.28 * away  # dark colours become lighter, light ones darker
    red, green, blue = colorsys.hls_to_rgb((hue + 0.16 * around) % 1.0, light, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def segment_colors(segments: Sequence[Segment], categories: Sequence[Category]) -> dict[int, Color]:
    """Segment id -> RGB colour: for stuff that of its class, for each thing a variation of it.

    A track determines the variation, so an object keeps its colour in all frames of a video. Without tracks the objects
    of a class are numbered from left to right, so that neighbours differ most.
    """
    colors: dict[int, Color] = {}
    counted = Counter[int]()
    for segment in sorted(segments, key=lambda s: (s.box[0] + s.box[2], s.box[1], s.id)):
        base = class_color(segment.category, categories)
        if not segment.thing:
            colors[segment.id] = base
        elif segment.track is not None:
            colors[segment.id] = instance_color(base, segment.track)
        else:
            colors[segment.id] = instance_color(base, counted[segment.category])
            counted[segment.category] += 1
    return colors


def paint(
    image: np.ndarray,
    id_map: np.ndarray,
    segments: Sequence[Segment],
    categories: Sequence[Category],
    alpha: float,
    border: int,
) -> np.ndarray:
    """A new image with every segment tinted, and borders (1 or 2 pixels) around things; void stays. -> (H,W,3) uint8"""
    colors = segment_colors(segments, categories)
    ids = list(colors)
    if ids and (id_map.dtype != np.int32 or min(ids) < 0 or max(ids) > LARGEST_TABLE):
        id_map = map_ids(id_map, ids, np.arange(1, len(ids) + 1, dtype=np.int32), 0)
        ids = list(range(1, len(ids) + 1))
    share, last = round(alpha * 256), max(ids, default=0) + 1
    table = np.full((last + 2, 4), (128, 128, 128, 256), np.uint16)
    objects = np.zeros(last + 1, np.int32)
    table[-1] = (*(256 * channel for channel in BORDER), 0)
    things = {segment.id for segment in segments if segment.thing}
    for place, (segment_id, color) in zip(ids, colors.items(), strict=True):
        table[place] = (*(share * channel + 128 for channel in color), 256 - share)
        objects[place] = place if segment_id in things else 0
    picture = np.array(image, order="C")
    tint(picture, id_map, table, objects, border)
    return picture


def inner_depth(grid: np.ndarray) -> np.ndarray:
    """How many steps each cell lies inside its segment (1 = at its edge, 0 = void). (h,w) ids -> (h,w) int32"""
    padded = np.pad(grid, 1, constant_values=0)
    inside = padded > 0
    same = inside.copy()
    same[1:-1, 1:-1] &= (grid == padded[:-2, 1:-1]) & (grid == padded[2:, 1:-1])
    same[1:-1, 1:-1] &= (grid == padded[1:-1, :-2]) & (grid == padded[1:-1, 2:])
    # Without their edges no two segments touch any more, so what is left need not be told apart by id.
    depth = inside + ndimage.distance_transform_cdt(same, metric="taxicab")
    return depth[1:-1, 1:-1].astype(np.int32)


def place_labels(id_map: np.ndarray, sizes: Mapping[int, tuple[int, int]], taken: Sequence[Box] = ()) -> dict[int, Box]:
    """Chooses where the name of each segment goes: centred deep inside the segment, and apart from other names.

    `sizes` are segment ids with (width, height) of their names in pixels; earlier ids choose first. Names that have no
    place in the image, or none outside the boxes that are `taken`, are left out.
    """
    height, width = id_map.shape
    step = max(1, round(height / 144))
    step_x = 2 * step  # text is wide: a place counts as deep if it is twice as wide as high
    grid = id_map[step // 2 :: step, step_x // 2 :: step_x]
    depth = inner_depth(grid)
    placed: dict[int, Box] = {}
    boxes = list(taken)
    for segment_id, (wide, high) in sizes.items():
        if wide > width or high > height:
            continue
        inside = np.where(grid == segment_id, depth, 0)
        deepest = int(inside.max(initial=0))
        if 2 * step * deepest < 0.7 * high:  # it would hide what it names
            continue
        rows, columns = np.nonzero(2 * inside >= deepest)
        depths = inside[rows, columns]
        centre_y, centre_x = np.median(rows[depths == deepest]), np.median(columns[depths == deepest])
        off_centre = np.abs(rows - centre_y) + np.abs(columns - centre_x)
        order = np.lexsort((off_centre, -depths))
        for k in order[:: max(1, len(order) // 64)]:
            left = int(np.clip(columns[k] * step_x + step_x // 2 - wide // 2, 0, width - wide))
            top = int(np.clip(rows[k] * step + step // 2 - high // 2, 0, height - high))
            box = (left, top, left + wide, top + high)
            if not any(
                box[0] < b[2] + 2 and b[0] < box[2] + 2 and box[1] < b[3] + 2 and b[1] < box[3] + 2 for b in boxes
            ):
                placed[segment_id] = box
                boxes.append(box)
                break
    return placed


@lru_cache(maxsize=8)
def font_for(height: int, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, in a size that suits an image of height x width pixels."""
    return ImageFont.load_default(size=min(max(11, round(min(height, width) / 42)), 72))


@lru_cache(maxsize=512)  # the frames of a video have the same names
def name_size(text: str, image: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a name's plate in an image of the given height and width."""
    font = font_for(*image)
    ascent = font.getbbox("Ag")
    return round(font.getlength(text)) + 8, round(ascent[3] - ascent[1]) + 6


@lru_cache(maxsize=128)
def name_plate(text: str, image: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A name on a dark plate, for an image of the given height and width -> light and share, (h,w,3) uint8 each

    A pixel under the plate becomes light + pixel x share / 255.
    """
    wide, high = name_size(text, image)
    drawn = []
    for ground in (0, 255):
        canvas = Image.new("RGB", (wide, high), (ground, ground, ground))
        draw = ImageDraw.Draw(canvas, "RGBA")
        draw.rounded_rectangle((0, 0, wide - 1, high - 1), radius=3, fill=(16, 18, 24, 170))
        draw.text((wide / 2, high / 2), text, font=font_for(*image), fill=(255, 255, 255, 255), anchor="mm")
        drawn.append(np.array(canvas))
    return drawn[0], drawn[1] - drawn[0]


def write_names(
    picture: np.ndarray, id_map: np.ndarray, segments: Sequence[Segment], taken: Sequence[Box] = ()
) -> None:
    """Writes names and tracks on segments of a picture, (H,W,3) uint8, where there is room beside `taken` boxes."""
    image = (id_map.shape[0], id_map.shape[1])
    texts: dict[int, str] = {}
    sizes: dict[int, tuple[int, int]] = {}
    # Things first: their labels have few places to go; stuff finds another.
    for segment in sorted(segments, key=lambda s: (not s.thing, -s.area)):
        text = segment.name if segment.track is None else f"{segment.name} {segment.track}"
        wide, high = name_size(text, image)
        left, top, right, bottom = segment.box
        roomy = right - left >= 0.8 * wide and bottom - top >= 1.2 * high
        if roomy and segment.area >= 1.5 * wide * high:
            texts[segment.id], sizes[segment.id] = text, (wide, high)
    for segment_id, (left, top, right, bottom) in place_labels(id_map, sizes, taken).items():
        light, share = name_plate(texts[segment_id], image)
        below = picture[top:bottom, left:right]
        below[:] = light + (np.multiply(below, share, dtype=np.uint16) + 127) // 255


def draw_legend(
    picture: np.ndarray, segments: Sequence[Segment], categories: Sequence[Category]
) -> tuple[np.ndarray, Box]:
    """The picture with a panel of its classes, largest first and as many as fit, lower left, and the panel's box."""
    areas = Counter[tuple[int, str]]()
    for segment in segments:
        areas[segment.category, segment.name] += segment.area
    height, width = picture.shape[:2]
    font = font_for(height, width)
    line = round(font.getbbox("Ag")[3] * 1.35) + 2
    rows = sorted(areas, key=lambda key: -areas[key])[: max(0, (height - line) // line)]
    if not rows:
        return picture, (0, height, 0, height)
    wide = min(width, round(max(font.getlength(name) for _, name in rows)) + 3 * line)
    top = height - line * len(rows) - line // 2
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas, "RGBA")
    box = (0, max(0, top - line // 4), wide, height)
    draw.rectangle(box, fill=(16, 18, 24, 190))
    for n, (category, name) in enumerate(rows):
        y = top + n * line
        swatch = (line // 2, y + line // 6, line // 2 + line, y + line - line // 6)
        draw.rounded_rectangle(swatch, radius=2, fill=(*class_color(category, categories), 255))
        draw.text((2 * line, y + line / 2), name, font=font, fill=(255, 255, 255, 255), anchor="lm")
    return np.array(canvas), box


def overlay(
    image: np.ndarray,
    id_map: np.ndarray,
    segments: Sequence[Segment],
    categories: Sequence[Category],
    *,
    alpha: float = 0.5,
    names: bool = True,
    legend: bool = False,
) -> np.ndarray:
    """The result over its image, see `Segmentation.overlay`. (H,W,3) uint8, (H,W) integers -> (H,W,3) uint8, new"""
    if image.shape != (*id_map.shape, 3) or image.dtype != np.uint8:
        raise DataError(
            f"The image to draw on has shape {image.shape} ({image.dtype}), the result {id_map.shape}; pass the "
            "(height, width, 3) uint8 RGB image that the result was made from."
        )
    if not isinstance(alpha, Real) or not 0.0 <= alpha <= 1.0:
        raise DataError(f"alpha is {shown(alpha)}; it is the share of the colours, from 0 (image only) to 1 (colours only).")
    if not id_map.size:
        return image.copy()
    picture = paint(image, id_map, segments, categories, alpha, border=2 if min(id_map.shape) >= 700 else 1)
    taken: list[Box] = []
    if legend:
        picture, box = draw_legend(picture, segments, categories)
        taken.append(box)
    if names:
        write_names(picture, id_map, segments, taken)
    return picture
