"""Writes synthetic street scenes with the files and folders that the downloads of real data sets have."""

import json as jsonlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from knet.data.categories import package_table
from knet.data.synthetic.street import StreetScene, draw_street
from knet.errors import ConfigError, DataError, shown
from knet.files import cannot_write, hidden_folder

_CITIES = {"train": ("knetburg", "maskstadt"), "val": ("kernelhausen",), "test": ("teststadt",)}
_FRAME = 19  # the labelled frame of each snippet of 30, as in Cityscapes
_FIRST_INSTANCE = 1000
_VISTAS_INSTANCES = 256
_JPEG_QUALITY = 92
# What the kinds of a scene are called in Mapillary Vistas, where it is not the same in title case.
_VISTAS_NAMES = {
    "rider": "Bicyclist",
    "traffic sign": "Traffic Sign (Front)",
    "train": "On Rails",
    "static": "Trash Can",
    "out of roi": None,
}
_Writer = Callable[[Path, str, int, StreetScene], None]


@dataclass(frozen=True, slots=True)
class SyntheticSet:
    """What was written: images of each split, and how many objects of each kind, by the names of Cityscapes."""

    root: Path
    images: dict[str, int]
    objects: dict[str, int]


def synthesize(layout: str, output: str | Path, images: int, size: tuple[int, int], seed: int = 0) -> SyntheticSet:
    """Writes a data set of street scenes with the files and folders of a download.

    The output appears when all of it is written; an interrupted run leaves nothing.

    Args:
        layout: "cityscapes" or "mapillary" (v1.2).
        output: folder to make.
        images: of the training split; validation gets a quarter of that (at least one), and so does Cityscapes' test,
            which has images only.
        size: (height, width) in pixels, each 32 or more.
        seed: the same one gives the same files.

    Raises:
        ConfigError: an unknown layout, or a number out of its range.
        DataError: the output exists.
        OutputError: the output cannot be written.
    """
    if layout not in _LAYOUTS:
        raise ConfigError(f"There is no layout {shown(layout)}; choose from {', '.join(_LAYOUTS)}.")
    if images < 1 or seed < 0:
        raise ConfigError(
            f"{images} images with seed {seed} cannot be made; give at least 1 image and a seed from 0 on."
        )
    split_names, write, finish = _LAYOUTS[layout]
    counts = {split: images if number == 0 else max(images // 4, 1) for number, split in enumerate(split_names)}
    tasks = [(number, split, i) for number, split in enumerate(split_names) for i in range(counts[split])]
    seen: Counter[str] = Counter()
    with whole_folder(output) as partial:
        for number, split, i in tqdm(tasks, desc="street scenes", unit="image", disable=None):
            scene = draw_street(*size, np.random.default_rng([seed, number, i]))
            write(partial, split, i, scene)
            visible = np.unique(scene.numbers).tolist()
            seen.update(scene.objects[n - 1].kind for n in visible)
        finish(partial)
    return SyntheticSet(Path(output), counts, dict(seen.most_common()))


@contextmanager
def whole_folder(output: str | Path) -> Iterator[Path]:
    """Gives a folder to fill, which is renamed to `output` when the block ends well, and removed when it does not."""
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} exists already; remove it or choose another folder for the synthetic data.")
    try:
        with hidden_folder(output) as partial:
            yield partial
            if output.is_dir():
                output.rmdir()  # it is empty
            partial.rename(output)
    except OSError as fault:
        raise cannot_write(output, fault.strerror or fault) from fault


def _write_cityscapes(root: Path, split: str, index: int, scene: StreetScene) -> None:
    cities = _CITIES[split]
    city = cities[index % len(cities)]
    stem = f"{city}_{index // len(cities):06d}_{_FRAME:06d}"
    save(scene.image, root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
    if split == "test":
        return
    raw_labels = {row["name"]: row for row in package_table("cityscapes")["raw_labels"]}
    values = np.zeros(len(scene.objects) + 1, np.uint16)
    counted: Counter[str] = Counter()
    for number in np.unique(scene.numbers).tolist():
        thing = scene.objects[number - 1]
        raw = raw_labels[thing.kind]
        values[number] = raw["id"]
        if raw["has_instances"] and not thing.group:
            values[number] = raw["id"] * _FIRST_INSTANCE + counted[thing.kind]
            counted[thing.kind] += 1
    instances = values[scene.numbers]
    label_ids = np.where(instances < _FIRST_INSTANCE, instances, instances // _FIRST_INSTANCE)
    train_ids = np.zeros(256, np.uint8)
    for row in raw_labels.values():
        train_ids[row["id"]] = row["train_id"] % 256  # -1 (license plate, never painted) would be 255
    folder = root / "gtFine" / split / city
    save(instances, folder / f"{stem}_gtFine_instanceIds.png")
    save(label_ids.astype(np.uint8), folder / f"{stem}_gtFine_labelIds.png")
    save(train_ids[label_ids], folder / f"{stem}_gtFine_labelTrainIds.png")


def _write_mapillary(root: Path, split: str, index: int, scene: StreetScene) -> None:
    stem = f"knet{split[0]}{index:017d}"  # 22 characters, as the real names have
    save(scene.image, root / split / "images" / f"{stem}.jpg")
    table = package_table("mapillary")
    rows = {row["name"]: row for row in table["categories"]}
    values = np.full(len(scene.objects) + 1, table["void_id"] * _VISTAS_INSTANCES, np.uint16)
    counted: Counter[int] = Counter()
    for number in np.unique(scene.numbers).tolist():
        kind = scene.objects[number - 1].kind
        name = _VISTAS_NAMES.get(kind, kind.title())
        if name is not None:
            row = rows[name]
            label = row["label_value"]
            values[number] = label * _VISTAS_INSTANCES + (counted[label] if row["thing"] else 0)
            counted[label] += 1
    instances = values[scene.numbers]
    labels = (instances // _VISTAS_INSTANCES).astype(np.uint8)
    save(instances, root / split / "instances" / f"{stem}.png")
    save(labels, root / split / "labels" / f"{stem}.png", _vistas_colors(table))


def _write_vistas_config(root: Path) -> None:
    """config.json as it comes with the v1.2 download."""
    table = package_table("mapillary")
    by_value = {row["label_value"]: row for row in table["categories"]}
    labels = []
    for value, color in enumerate(_vistas_colors(table)):
        row = by_value.get(value)
        label = {
            "name": row["long_name"] if row else "void--unlabeled",
            "readable": row["name"] if row else "Unlabeled",
            "evaluate": row is not None,
            "instances": bool(row and row["thing"]),
            "color": color,
        }
        labels.append(label)
    content = {"labels": labels, "version": "1.2", "mapping": "public"}
    (root / "config.json").write_text(jsonlib.dumps(content, indent=1), "utf-8")


def _vistas_colors(table: dict[str, Any]) -> list[list[int]]:
    colors = {row["label_value"]: row["color"] for row in table["categories"]}
    return [colors.get(value, [0, 0, 0]) for value in range(table["void_id"] + 1)]


def save(pixels: np.ndarray, path: Path, colors: list[list[int]] | None = None) -> None:
    """Writes a picture, or a PNG of indices into colours, in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if colors is not None:
        picture.putpalette(np.array(colors, np.uint8).tobytes())
    picture.save(path, quality=_JPEG_QUALITY)  # a PNG has no quality


_LAYOUTS: dict[str, tuple[tuple[str, ...], _Writer, Callable[[Path], None]]] = {
    "cityscapes": (("train", "val", "test"), _write_cityscapes, lambda root: None),
    "mapillary": (("training", "validation"), _write_mapillary, _write_vistas_config),
}
