"""A clip of three small frames with objects, and whether a reader gives it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from knet.data.categories import as_table, load_categories
from knet.data.files.io import save_png
from knet.data.readers.clips import ClipReader, make_id_map
from knet.data.readers.mots import MotsLine

SIZE = (12, 20)
STEP = load_categories("kitti_step")  # person, car, road, ...
ROAD, CAR, PERSON = 2, 1, 0
FRAMES = 3


def frame_maps(frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Road below, void above; car 7 drives to the right, car 300 stands, a crowd of persons, person 2 in frame 1."""
    labels, numbers = np.full(SIZE, -1), np.zeros(SIZE, int)
    labels[6:] = ROAD
    labels[2:5, 1 + frame : 5 + frame], numbers[2:5, 1 + frame : 5 + frame] = CAR, 7
    labels[3:8, 14:18], numbers[3:8, 14:18] = CAR, 300
    labels[9:11, 3:9] = PERSON
    if frame == 1:
        labels[8:12, 11:13], numbers[8:12, 11:13] = PERSON, 2
    return labels, numbers


def save_image(path: Path, frame: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(frame).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def check_frames(reader: ClipReader, numbers: bool = True) -> None:
    """The reader's one clip holds `frame_maps`; without `numbers` only that objects keep theirs."""
    assert [clip.frames for clip in reader.clips] == [tuple(range(FRAMES))]
    ids: list[dict[tuple[int, int], int]] = []
    for frame in range(FRAMES):
        labels, of_objects = frame_maps(frame)
        sample = reader.read(frame)
        expected, segments = make_id_map(labels, of_objects, reader.categories)
        if numbers:
            assert np.array_equal(sample.id_map, expected)
            assert sample.segments == segments
        pairs = set(zip(expected.ravel().tolist(), sample.id_map.ravel().tolist(), strict=True))
        assert len(pairs) == len(segments) + 1  # one to one
        ids.append(dict(pairs))
        crowds = {segment.id for segment in sample.segments if segment.crowd}
        assert crowds == {ids[-1][segment.id] for segment in segments if segment.crowd} and len(crowds) == 1
        assert np.array_equal(reader.read_truth(frame).id_map, sample.id_map)
        assert sample.image.shape == (*SIZE, 3)
    assert all(one[key] == other[key] for one in ids for other in ids for key in one.keys() & other.keys())


def write_clip_frame(root: Path, name: str, labels: np.ndarray, numbers: np.ndarray, table: str) -> None:
    """`labels/<name>.png` with the table's values, void as its first one, and `instances/<name>.png`."""
    values = np.array([*as_table(table).label_values, min(as_table(table).void_values)])[labels]
    for folder, content in (("labels", values), ("instances", numbers)):
        save_png(root / folder / f"{name}.png", content.astype(np.uint16))


def write_mots(path: Path, lines: list[MotsLine]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
