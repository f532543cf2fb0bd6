"""Data sets of every format with one file of them changed, through the verbs that read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from drawn_exports import EXPORTS, scenes
from fuzz.mutate import mutated_bytes, mutated_json, mutated_png, mutated_yaml
from fuzz.oracle import command, no_parts
from knet.data.categories import load_categories, rows_for_json
from knet.data.files.masks import pack_mask
from knet.data.make.prepare import prepare_cityscapes, prepare_mapillary
from knet.data.synthetic.clip_layouts import synthesize_clips
from knet.data.synthetic.layouts import synthesize

_SIZE = (32, 64)
Words = tuple[object, ...]


def _panoptic(root: Path) -> list[Words]:
    """COCO panoptic: road, and two cars that are one object and a crowd."""
    ids = np.full(_SIZE, 5)
    ids[:8], ids[10:20, 4:20], ids[12:18, 40:60] = 0, 70000, 9
    rows = [{"id": 5, "category_id": 3}, {"id": 70000, "category_id": 8}, {"id": 9, "category_id": 8, "iscrowd": 1}]
    for row in rows:
        row |= {"iscrowd": row.get("iscrowd", 0), "area": int((ids == row["id"]).sum()), "bbox": [0, 0, 9, 9]}
    _save(root / "images/0.png", np.full((*_SIZE, 3), 90))
    _save(root / "masks/0.png", np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1))
    content = {
        "images": [{"id": 7, "file_name": "0.png", "height": _SIZE[0], "width": _SIZE[1]}],
        "annotations": [{"image_id": 7, "file_name": "0.png", "segments_info": rows}],
        "categories": [
            {"id": 3, "name": "road", "isthing": 0, "color": [1, 2, 3]},
            {"id": 8, "name": "car", "isthing": 1, "color": [4, 5, 6]},
        ],
    }
    for name in ("panoptic.json", "found.json"):
        (root / name).write_text(json.dumps(content))
    shutil.copytree(root / "masks", root / "found")
    both = ("--truth", root / "panoptic.json", "--predictions", root / "found.json")
    return [
        ("data", "check", "--images", root / "images", "--panoptic", root / "panoptic.json", "--masks", root / "masks"),
        ("eval", "--metric", "pq", *both, "--truth-masks", root / "masks"),
    ]


def _instances(root: Path) -> list[Words]:
    """COCO instances, with a polygon, and masks as plain and as packed runs; and detections."""
    mask = np.zeros(_SIZE, bool)
    mask[5:20, 10:30] = True
    packed = {"size": list(_SIZE), "counts": pack_mask(mask)["counts"].decode()}
    plain = {"size": list(_SIZE), "counts": [330, 15, 2048 - 345]}
    shapes = ([[10, 5, 30, 5, 30, 20, 10, 20]], packed, plain)
    annotations = [
        {"id": n + 1, "image_id": 1, "category_id": n % 2 + 1, "segmentation": s, "iscrowd": int(n == 2), "area": 300}
        | {"bbox": [10, 5, 20, 15]}
        for n, s in enumerate(shapes)
    ]
    images = [{"id": 1, "file_name": "0.png", "height": _SIZE[0], "width": _SIZE[1]}]
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}]
    found = [{"image_id": 1, "category_id": n + 1, "score": 0.5, "segmentation": packed} for n in range(2)]
    _save(root / "images/0.png", np.full((*_SIZE, 3), 90))
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    (root / "found.json").write_text(json.dumps(found))
    given = ("--images", root / "images", "--instances", root / "instances.json")
    return [
        ("data", "check", *given),
        ("data", "from-coco", *given, "--output", root / "out", "--overwrite"),
        ("eval", "--metric", "ap", "--truth", root / "instances.json", "--predictions", root / "found.json"),
    ]


def _own(root: Path) -> list[Words]:
    """Label and instance PNGs of two frames, with a class table."""
    labels = np.full(_SIZE, 3, np.uint8)
    labels[:9], labels[12:20, 5:25] = 255, 1
    for frame in ("a/0.png", "a/1.png"):
        _save(root / "images" / frame, np.full((*_SIZE, 3), 90))
        _save(root / "labels" / frame, labels)
        _save(root / "instances" / frame, (labels == 1).astype(np.uint8) * 4)
    rows = [{"id": 3, "name": "floor", "thing": False, "color": [9, 9, 9]}, {"id": 1, "name": "box", "thing": True}]
    table = root / "classes.json"
    table.write_text(json.dumps({"void_id": 255, "categories": rows}))
    given = ("--images", root / "images", "--labels", root / "labels", "--instances", root / "instances")
    maps = ("--truth", root / "labels", "--predictions", root / "labels")
    return [
        ("data", "check", *given, "--classes", table),
        ("data", "from-labels", *given, "--classes", table, "--output", root / "out", "--overwrite"),
        ("eval", "--metric", "miou", *maps, "--classes", table),
    ]


def _mots(root: Path) -> list[Words]:
    mask = np.zeros(_SIZE, bool)
    mask[5:20, 10:30] = True
    counts = pack_mask(mask)["counts"].decode()
    lines = [f"{frame} {obj} {kind} {_SIZE[0]} {_SIZE[1]} {counts}" for frame in (0, 1) for obj, kind in ((1001, 1),)]
    for frame in range(2):
        _save(root / f"images/0002/{frame:06d}.png", np.full((*_SIZE, 3), 90))
    (root / "texts").mkdir()
    (root / "texts/0002.txt").write_text("\n".join(lines) + "\n")
    return [("data", "check", "--images", root / "images", "--mots", root / "texts")]


def _prepared(layout: str) -> Callable[[Path], list[Words]]:
    def make(root: Path) -> list[Words]:
        made = synthesize(layout, root / "set", 1, (64, 128)).root
        (prepare_cityscapes if layout == "cityscapes" else prepare_mapillary)(made)
        words: list[Words] = [("data", "check", layout, made), ("data", "prepare", layout, made, "--overwrite")]
        if layout == "cityscapes":
            truth = made / "gtFine" / "val"
            for path in truth.rglob("*_instanceIds.png"):
                name = path.name.removesuffix("_gtFine_instanceIds.png")
                _save(root / "found" / f"{name}_0.png", (np.asarray(Image.open(path)) > 1000) * 255)
                (root / "found" / f"{name}_pred.txt").write_text(f"{name}_0.png 26 0.9\n")
            words.append(("eval", "--metric", "ap", "--truth", truth, "--predictions", root / "found"))
        return words

    return make


def _clips(layout: str) -> Callable[[Path], list[Words]]:
    def make(root: Path) -> list[Words]:
        made = synthesize_clips(layout, root / "set", 1, 2, (32, 64)).root
        words: list[Words] = [("data", "check", layout, made)]
        found = root / "found"
        if layout == "step":
            truth = made / "panoptic_maps" / "val"
            shutil.copytree(truth, found)
            words += [
                ("eval", "--metric", metric, "--truth", truth, "--predictions", found) for metric in ("stq", "vpq")
            ]
        if layout == "vipseg":
            words += [("eval", "--metric", "vpq", "--truth", made, "--predictions", made / "panomasks")]
        if layout == "youtube-vis":
            content = json.loads((made / "valid.json").read_text())
            rows = [
                {"video_id": row["video_id"], "category_id": row["category_id"], "score": 0.5}
                | {"segmentations": row["segmentations"]}
                for row in content["annotations"]
            ]
            (root / "found.json").write_text(json.dumps(rows))
            words += [
                ("eval", "--metric", "ytvis", "--truth", made / "valid.json", "--predictions", root / "found.json")
            ]
        return words

    return make


def _export(form: str) -> Callable[[Path], list[Words]]:
    """What an annotation tool writes, to be imported."""

    def make(root: Path) -> list[Words]:
        EXPORTS[form](root / "export", scenes(3, _SIZE))
        return [("data", "import", root / "export", "--output", root / "out", "--overwrite")]

    return make


def _tables(root: Path) -> list[Words]:
    """A class table in YAML and what is measured with it."""
    table = {
        "name": "mine",
        "void_id": [255, 0],
        "image_size": [64, 128],
        "categories": rows_for_json(load_categories("camvid")),
    }
    (root / "classes.json").write_text(json.dumps(table))
    _save(root / "labels/0.png", np.full(_SIZE, 2, np.uint8))
    maps = ("--truth", root / "labels", "--predictions", root / "labels")
    return [("eval", "--metric", "miou", *maps, "--classes", root / "classes.json")]


_MAKERS = {
    "panoptic": _panoptic,
    "instances": _instances,
    "own": _own,
    "mots": _mots,
    "tables": _tables,
    **{layout: _prepared(layout) for layout in ("cityscapes", "mapillary")},
    **{layout: _clips(layout) for layout in ("step", "vipseg", "youtube-vis", "cityscapes-vps")},
    **{form: _export(form) for form in EXPORTS},
}
_MUTATED = {".json": mutated_json, ".png": mutated_png, ".yaml": mutated_yaml}


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def prepare(folder: Path) -> Callable[[Random], bool]:
    """See `fuzz`."""
    sets = list[tuple[Path, list[Words], dict[str, list[Path]]]]()
    for name, make in _MAKERS.items():
        root = folder / name
        root.mkdir()
        words = make(root)
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".jpg"]
        sets.append((root, words, {end: [f for f in files if f.suffix == end] for end in {f.suffix for f in files}}))

    def case(rng: Random) -> bool:
        root, words, files = rng.choice(sets)
        path = rng.choice(files[".json" if ".json" in files and rng.random() < 0.7 else rng.choice(sorted(files))])
        before = path.read_bytes()
        path.write_bytes(_MUTATED.get(path.suffix, mutated_bytes)(rng, before))
        kept = {place: place.read_bytes() for place in _rewritten(files, words)}
        chosen = rng.choice(words)
        try:
            return command(*chosen, *(("--json",) if rng.random() < 0.3 else ()))
        finally:
            for place, content in {**kept, path: before}.items():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            no_parts(root)
            shutil.rmtree(root / "out", ignore_errors=True)

    return case


def _rewritten(files: dict[str, list[Path]], words: list[Words]) -> list[Path]:
    """What `knet data prepare` may write anew."""
    if not any(line[1] == "prepare" for line in words):
        return []
    return [path for paths in files.values() for path in paths]
