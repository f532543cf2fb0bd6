"""Videos on disk as the metrics read them: truth and predictions of each frame, paired, in the official forms.

Folders of PNGs, from which frames come as packed labels (see `video_labels`):

* STEP: `<sequence>/<frame>.png` or `<sequence>_<frame>_panoptic.png`; R = class, object = 256 G + B.
* Video K-Net's predictions: `<sequence>_<frame>_cat.png` (class) and `_ins.png` (object), 16 bits each.
* VIPSeg as downloaded, for the truth: `panomasks/<video>/<frame>.png` and a list `val.txt`, to which Video K-Net's
  predictions belong by the places of the video in the list and of the frame in the video; their classes are the stuff
  in the order of ids, then the things. Other predictions are `<video>/<frame>.png`, as the masks or as in STEP.

JSON files with masks beside them are read by `video_json`.
"""

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from knet.data.categories import SEMANTIC_CLASSES, load_categories, rows_for_json
from knet.data.files.ahead import map_ahead
from knet.data.files.io import read_ids, read_labels, read_labels_or_colors, values_in
from knet.data.readers.kitti_step import STEP_ENCODING
from knet.data.readers.vipseg import read_video_list
from knet.errors import DataError
from knet.evaluation.panoptic_files import Labelled, refuse_blue_first
from knet.evaluation.same_classes import ids_of_truth
from knet.evaluation.video_frames import FoundFrame, FoundFrames, VideoFrame, Videos, frame_key, pair_frames
from knet.evaluation.video_json import find_listed
from knet.evaluation.video_labels import NUMBER_BITS, VOID, pack_labels
from knet.files import exists, is_dir, is_file
from knet.structures import Category

_VIPSEG_OBJECTS = 100  # a thing's pixel is (category id + 1) * 100 + object
_VIPSEG_STUFF = 128  # pixels up to here are a category id + 1
_VIPSEG_STRAY = 200  # void as well, as in Video K-Net's code


def open_videos(
    truth: str | PathLike[str], predictions: str | PathLike[str], classes: Sequence[Category] | None = None
) -> Videos:
    """Finds and pairs the frames of two folders of PNGs, or of two JSON files.

    In place of the predictions' JSON file, the folder of a `pred.json` will do. The `classes` of the pixels are found
    by category id, beside a class table (`semantic_classes.json`, which `knet predict` writes) by name; None takes the
    truth's own table if it has one, else kitti_step or vipseg.
    """
    true, predicted = Path(truth), Path(predictions)
    for path in (true, predicted):
        if not exists(path):
            raise DataError(f"{path} does not exist; give a folder of PNGs or a JSON file.")
    if listed := is_file(true):
        predicted = predicted / "pred.json" if predicted.is_dir() else predicted
        form, classes, of_truth, found = find_listed(true, predicted, classes)
    else:
        form = "panomasks" if (true / "panomasks").is_dir() else "step"
        if classes is None:
            classes = load_categories(_own_table(true) or ("vipseg" if form == "panomasks" else "kitti_step"))
        found = _scan(predicted)
        by_place = any(len(frame.paths) == 2 for frame in found.values())
        of_truth = _scan_vipseg(true, by_place) if form == "panomasks" else _scan(true)
    pairs = pair_frames(of_truth, found, str(predicted))
    read = _read_listed if listed else _reader(classes, form == "panomasks")
    tables = [None if listed else _own_table(folder) for folder in (true, predicted)]
    of_sides = [_renumbering(table, classes) if table else None for table in tables]

    def frames() -> Iterator[VideoFrame]:
        contents = map_ahead(read, [side for pair in pairs for side in pair])
        for frame, _ in pairs:
            sides = [of_side(next(contents)) if of_side else next(contents) for of_side in of_sides]
            yield frame.sequence, frame.name, sides[0], sides[1]

    return Videos(form, listed, classes, len(pairs), frames)


def _own_table(folder: Path) -> Path | None:
    """The class table that `knet predict` wrote to the folder, or to one above it."""
    places = [folder, *folder.absolute().parents[:2]]
    return next((place / SEMANTIC_CLASSES for place in places if is_file(place / SEMANTIC_CLASSES)), None)


def _renumbering(table: Path, classes: Sequence[Category]) -> Callable[[Any], np.ndarray]:
    """What gives (H,W) labels the class ids of the truth, by the names in the class table of the predictions."""
    of_truth = ids_of_truth(rows_for_json(load_categories(table)), classes, str(table))

    def renumbered(labels: np.ndarray) -> np.ndarray:
        ids, of_id = labels >> NUMBER_BITS, np.arange(VOID + 1)
        for own in set(values_in(ids).tolist()) - {VOID}:
            of_id[own] = of_truth(own)
        return of_id[ids].astype(np.int32) << NUMBER_BITS | labels & ((1 << NUMBER_BITS) - 1)

    return renumbered


def _scan(folder: Path) -> FoundFrames:
    rows: FoundFrames = {}
    if not is_dir(folder):
        raise DataError(f"{folder} is no folder of PNGs, but the truth is one; give the folder of the predictions.")
    for path in sorted(folder.rglob("*.png")):
        stem, _, kind = path.stem.rpartition("_")
        if kind in ("leftImg8bit", "ins"):
            continue
        paths: tuple[Path, ...] = (path,)
        if kind == "panoptic" and is_file(path.with_name("panoptic.json")):
            raise DataError(
                f"{path.parent} holds PNGs of COCO panoptic, whose colours are no classes; judge them by --metric "
                "pq, or write tracks with --formats step."
            )
        if kind in ("cat", "panoptic"):
            sequence, _, frame = stem.rpartition("_")
            if kind == "cat":
                paths = (path, path.with_name(f"{stem}_ins.png"))
                if not paths[1].is_file():
                    raise DataError(f"{path} has no {paths[1].name} beside it; both belong to a prediction.")
        else:
            sequence, frame = path.parent.name if path.parent != folder else "", path.stem
        key = frame_key(sequence), frame_key(frame)
        if key in rows:
            raise DataError(f"{rows[key].paths[0]} and {path} are the same frame; leave one of them.")
        rows[key] = FoundFrame(sequence or folder.name, frame, paths)
    if not rows:
        text = " (MOTS text is judged by no metric here)" if next(folder.rglob("*.txt"), None) else ""
        raise DataError(f"{folder} holds no PNG of a frame{text}; give the folder with the sequences.")
    return dict(sorted(rows.items(), key=lambda row: [(isinstance(part, str), part) for part in row[0]]))


def _scan_vipseg(root: Path, by_place: bool) -> FoundFrames:
    """VIPSeg's `panomasks`; with `by_place`, keys are the places in the lists."""
    lists = [root / f"{split}.txt" for split in ("val", "train", "test") if (root / f"{split}.txt").is_file()]
    if not lists:
        raise DataError(f"{root} has panomasks, but no val.txt that lists the videos to evaluate; add it.")
    rows: FoundFrames = {}
    for place, video in enumerate(read_video_list(lists[0])):
        masks = sorted((root / "panomasks" / video).glob("*.png"))
        if not masks:
            raise DataError(f"{root / 'panomasks' / video} holds no PNG, but {lists[0].name} lists the video.")
        for number, path in enumerate(masks):
            key = (place, number) if by_place else (frame_key(video), frame_key(path.stem))
            rows[key] = FoundFrame(video, path.stem, (path,))
    return rows


def _read_listed(frame: FoundFrame) -> Labelled:
    assert frame.segments is not None
    return refuse_blue_first(read_ids(frame.paths[0]), frame.segments, frame.paths[0]), frame.segments


def _reader(table: Sequence[Category], raw: bool) -> Callable[[FoundFrame], np.ndarray]:
    """Reads (H,W) int32 labels from a frame's PNGs; with `raw`, those of one channel are VIPSeg's masks."""
    of_class = np.arange(VOID + 1)
    if raw:  # how Video K-Net numbers the classes
        order = sorted(table, key=lambda category: (category.thing, category.id))
        of_class = np.full(VOID + 1, -1)
        of_class[: len(order)], of_class[VOID] = [category.id for category in order], VOID

    def read(frame: FoundFrame) -> np.ndarray:
        paths = frame.paths
        if len(paths) == 1:
            return _read_vipseg(paths[0]) if raw else _read_step(paths[0])
        classes, numbers = (_read_numbers(path) for path in paths)
        if classes.max() > VOID or (of_class[classes] < 0).any():
            raise DataError(f"{paths[0]} has the class {classes.max()}; the class table has {len(table)} from 0 on.")
        return pack_labels(of_class[classes], numbers, str(paths[0]))

    return read


def _read_step(path: Path) -> np.ndarray:
    """A STEP PNG's labels; R is the lowest byte of what is read, but the highest of a label."""
    return (read_ids(path, STEP_ENCODING).view(np.uint32).byteswap() >> 8).astype(np.int32)


def _read_vipseg(path: Path) -> np.ndarray:
    """The labels of one of VIPSeg's masks, or of a STEP PNG in its place.

    Objects are numbered from 1, as in Video K-Net's script, since 0 would be a crowd.
    """
    values = read_labels_or_colors(path)
    if values.ndim == 3:
        red, green, blue = values.astype(np.int32).transpose(2, 0, 1)
        return red << NUMBER_BITS | green << 8 | blue
    thing = values > _VIPSEG_STUFF
    classes = np.where(thing, values // _VIPSEG_OBJECTS, values) - 1
    classes[(values == 0) | (values == _VIPSEG_STRAY)] = VOID
    return pack_labels(classes, np.where(thing & (classes != VOID), values % _VIPSEG_OBJECTS + 1, 0), str(path))


def _read_numbers(path: Path) -> np.ndarray:
    """A PNG of one channel, up to 16 bits -> (H,W) int32"""
    values = read_labels(path)
    if int(values.max()) >> NUMBER_BITS or int(values.min()) < 0:
        raise DataError(f"{path} holds {values.max()}; object ids must fit 16 bits, 0 to {(1 << NUMBER_BITS) - 1}.")
    return values
