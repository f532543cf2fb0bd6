"""Small results to draw and write: a street with two cars, a class table, and results of random shapes."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

from knet.inference.results.segmentation import Segmentation
from knet.inference.sources.videos import VideoInfo
from knet.structures import Category, Segment

# Machines that do other work, too, must not fail a test by being slow.
steady = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ROAD = Category(7, "road", False, (128, 64, 128))
SKY = Category(23, "sky", False, (70, 130, 180))
CAR = Category(26, "car", True, (0, 0, 142))
TABLE = (ROAD, SKY, CAR)


def segments_of(id_map: np.ndarray, rows: dict[int, Category], tracks: dict[int, int] | None = None) -> list[Segment]:
    """The segments of an id map, with areas and boxes counted in it; ids without pixels are left out."""
    segments = []
    for i, category in rows.items():
        ys, xs = np.nonzero(id_map == i)
        if len(ys):
            box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
            score, track = 1.0 - i / 1000, (tracks or {}).get(i)
            segments.append(Segment(i, category.id, category.name, category.thing, score, len(ys), box, track))
    return segments


def street(
    height: int = 60, width: int = 80, name: str = "street", tracks: dict[int, int] | None = None
) -> Segmentation:
    """Sky above, road below, two cars that touch, a column of void on the left."""
    id_map = np.full((height, width), 1, np.int32)
    id_map[: height // 2] = 2
    id_map[height // 3 : 2 * height // 3, width // 4 : width // 2] = 3
    id_map[height // 3 : 2 * height // 3, width // 2 : 3 * width // 4] = 4
    id_map[:, 0] = 0
    return Segmentation(id_map, segments_of(id_map, {1: ROAD, 2: SKY, 3: CAR, 4: CAR}, tracks), TABLE, name)


def photo(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """A smooth picture, which compression hardly changes. (H,W,3) uint8"""
    coarse = np.random.default_rng(seed).integers(60, 200, (4, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@st.composite
def segmentations(draw: Any, largest_id: int = 12) -> Segmentation:
    """Results of any shape: noise of segments, ids with gaps, void, ids in the map that no segment has."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    ids = draw(st.lists(st.integers(1, largest_id), unique=True, max_size=6))
    pixels = draw(st.lists(st.sampled_from([0, *ids]), min_size=height * width, max_size=height * width))
    id_map = np.array(pixels, np.int32).reshape(height, width)
    rows = {i: draw(st.sampled_from(TABLE)) for i in ids}
    segments = segments_of(id_map, rows)
    if segments and draw(st.booleans()):
        segments.pop()
    return Segmentation(id_map, segments, TABLE, "noise")


def read_panoptic(document: Path, image_id: object) -> tuple[np.ndarray, dict[int, dict[str, Any]]]:
    """What another program reads from COCO panoptic files: (H,W) ids, and the segments by id."""
    content = json.loads(document.read_text())
    (annotation,) = [a for a in content["annotations"] if a["image_id"] == image_id]
    png = Image.open(document.parent / annotation["file_name"])
    assert png.mode == "RGB"
    red, green, blue = np.moveaxis(np.array(png).astype(np.int64), -1, 0)
    return red + 256 * green + 256 * 256 * blue, {s["id"]: s for s in annotation["segments_info"]}


def filmed(path: Path, count: int = 5, rate: Fraction | int = 10, codec: str = "libx264") -> Path:
    """A video of `count` grey frames, each 20 brighter than the one before, with a white upper left corner."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = 64, 32
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for n in range(count):
            image = np.full((32, 64, 3), 40 + 20 * (n % 10), np.uint8)
            image[:8, :8] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=stream.pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def clip(name: str = "drive", rate: Fraction | int = 10) -> VideoInfo:
    return VideoInfo(Path("/videos") / f"{name}.mp4", Fraction(rate), None, 60, 80)
