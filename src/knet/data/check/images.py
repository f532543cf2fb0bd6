"""Reads every file of a data set before a long training does, and reports all that is wrong at once."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from knet.data.categories import load_table
from knet.data.check.findings import CheckReport
from knet.data.check.tally import Tally
from knet.data.files.channels import is_blue_first
from knet.data.files.io import areas_in, list_images, read_ids, read_image
from knet.data.files.numbers import flag, whole
from knet.data.readers.find_images import ImageFinder
from knet.data.readers.panoptic_json import Entry, Fault, PanopticJson
from knet.data.readers.reader import Kernels, size_text
from knet.data.readers.roots import (
    CITYSCAPES_SPLITS,
    MAPILLARY_SPLITS,
    RootSplit,
    find_cityscapes,
    find_mapillary,
    label_stems,
    unpaired_files,
)
from knet.errors import ConfigError, DataError, shown
from knet.files import open_plain
from knet.structures import Category

ROOTS = ("cityscapes", "mapillary")


def check_panoptic(
    images: str | Path,
    json: str | Path,
    masks: str | Path,
    categories: Sequence[Category] | None = None,
    kernels: Kernels | None = None,
) -> CheckReport:
    """Checks a data set in the COCO panoptic form, file by file. Memory grows with the JSON only.

    Args:
        images, json, masks, categories: as in `CocoPanoptic`.
        kernels: those of the model that is to learn from it; None counts 100.

    Raises:
        DataError: a folder does not exist. Everything else that is wrong is in the report.
    """
    files = RootSplit(str(json), Path(images), Path(), Path(json), Path(masks), "", "")
    return _Check(files, categories, {}, kernels).run()


def check_root(
    layout: str,
    root: str | Path,
    splits: Sequence[str] | None = None,
    *,
    version: str | None = None,
    kernels: Kernels | None = None,
) -> list[CheckReport]:
    """Checks the splits of a prepared Cityscapes or Mapillary Vistas folder, and that no raw label was forgotten.

    `splits` are names, None for all that have labels; for `version` see `find_mapillary`.

    Raises:
        ConfigError: an unknown layout.
        DataError: a folder is missing, or a split is not prepared yet.
    """
    if layout not in ROOTS:
        raise ConfigError(f"There is no data set layout {shown(layout)} to check; choose from {', '.join(ROOTS)}.")
    digests: dict[bytes, str] = {}  # for all splits together: a picture of train in val spoils the figures
    checks = [_Check(*prepared, digests, kernels) for prepared in _prepared(layout, Path(root), splits, version)]
    return [check.run() for check in checks]


def _prepared(
    layout: str, root: Path, splits: Sequence[str] | None, version: str | None
) -> Iterator[tuple[RootSplit, Sequence[Category] | None]]:
    categories: Sequence[Category] | None
    if layout == "cityscapes":
        found = find_cityscapes(root, splits or CITYSCAPES_SPLITS)
        with_train_ids = find_cityscapes(root, splits or CITYSCAPES_SPLITS, train_ids=True)
        categories = load_table("cityscapes").categories
    else:
        vistas = find_mapillary(root, splits or MAPILLARY_SPLITS, version)
        found = with_train_ids = vistas.splits
        categories = load_table(vistas.table).categories if vistas.table.is_file() else None
    for split, other in zip(found, with_train_ids, strict=True):
        if split.json.is_file():
            yield split, categories
        elif other.json.is_file():
            yield other, None
        else:
            raise DataError(f"{split.json} does not exist; run `knet data prepare {layout} {root}` first.")


class _Check:
    """One run over one data set. `digests` of the images' bytes -> path, shared by checks that belong together."""

    def __init__(
        self,
        files: RootSplit,
        categories: Sequence[Category] | None,
        digests: dict[bytes, str],
        kernels: Kernels | None,
    ):
        self._files, self._categories, self._digests, self._kernels = files, categories, digests, kernels
        self._notes: list[tuple[str, object]] = []
        self._used: set[str] = set()

    def run(self) -> CheckReport:
        """Reads everything and reports."""
        files = self._files
        if files.label_ending:
            self._notes += [("label without image", label) for label in unpaired_files(files)[0]]
        find, masks = ImageFinder(files.images, files.json), set(list_images(files.masks))
        found: list[Entry | Fault] = []
        try:
            document = PanopticJson(files.json, self._categories)
            self._categories = document.categories
            self._compare_categories(document.content.get("categories"))
            found = list(document.walk(find, files.masks, masks))
            if files.label_ending:
                self._compare_labels(document.content.get("images"))
            self._notes += [("image elsewhere", f"{name} as {file}") for name, file in find.elsewhere.items()]
        except DataError as fault:
            self._notes.append(("json", str(fault).rstrip(".")))
        tally = Tally(self._categories or (), self._kernels)
        for kind, example in self._notes:
            tally.notes.add(kind, example)
        for wrong in found:
            if isinstance(wrong, Fault):
                for example in wrong.examples:
                    tally.notes.add(wrong.kind, example)
        entries = [entry for entry in found if isinstance(entry, Entry)]
        shown = f"checking {Path(files.name).name}"
        for entry in tqdm(entries, desc=shown, unit="image", disable=None):
            tally.add_segments(entry.segments, entry.name)
            size = None if entry.image is None else self._read_image(entry.image, tally)
            if entry.mask in masks:
                self._read_mask(entry, size, tally)
        for name in sorted(set(list_images(files.images)) - self._used):
            tally.notes.add("image unused", name)
        for name in sorted(masks - {entry.mask for entry in entries}):
            tally.notes.add("mask unused", name)
        return tally.report(files.name, len(entries))

    def _compare_labels(self, rows: object) -> None:
        """Notes raw labels that are not in the JSON."""
        ids = {str(row.get("id")) for row in rows if isinstance(row, dict)} if isinstance(rows, list) else set()
        self._notes += [("label not prepared", stem) for stem in label_stems(self._files) if stem not in ids]

    def _compare_categories(self, rows: object) -> None:
        """Notes classes that are things in the JSON and stuff in the table, or the other way round."""
        known = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        thing = {whole(row.get("id")): flag(row.get("isthing")) for row in known}
        for category in self._categories or ():
            if thing.get(category.id) == (not category.thing):
                self._notes.append(("thing differs", category.name))

    def _read_image(self, name: str, tally: Tally) -> tuple[int, int] | None:
        """(height, width) of an image, None if it cannot be read or was read for another row."""
        path = self._files.images / name
        if name in self._used:
            tally.notes.add("same file twice", name)
            return None
        self._used.add(name)
        try:
            image = read_image(path)
            with open_plain(path) as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        except (DataError, OSError) as fault:
            tally.notes.add("image unreadable", str(fault).removeprefix("The image ").rstrip("."))
            return None
        other = self._digests.setdefault(digest, str(path))
        if other != str(path):
            tally.notes.add("same picture", f"{other} = {path}")
        tally.add_image(image, name)
        return image.shape[0], image.shape[1]

    def _read_mask(self, entry: Entry, image_size: tuple[int, int] | None, tally: Tally) -> None:
        """Compares a panoptic PNG with the JSON and with the image."""
        try:
            id_map = read_ids(self._files.masks / entry.mask)
        except DataError:
            tally.notes.add("mask unreadable", entry.mask)
            return
        size = id_map.shape[0], id_map.shape[1]
        for kind, what, other in (("json size", "JSON", entry.size), ("image size", "image", image_size)):
            if other is not None and other != size:
                tally.notes.add(kind, f"{entry.mask} {size_text(size)}, {what} {size_text(other)}")
        areas = areas_in(id_map)
        void, known = areas.pop(0, 0), {segment.id: segment.label for segment in entry.segments}
        if is_blue_first(areas, known):
            tally.notes.add("blue first", entry.mask)
            return
        for kind, lonely in (("not in json", areas.keys() - known.keys()), ("not in png", known.keys() - areas.keys())):
            for id_ in sorted(lonely):
                tally.notes.add(kind, f"{id_} in {entry.mask}")
        for row in entry.rows:
            area = areas.get(row["id"])
            if area is not None and whole(row.get("area", area)) != area:
                tally.notes.add("area", f"{row['id']} in {entry.mask}: {area} pixels, JSON {row['area']}")
        tally.add_pixels(id_map.size, void, [(known[id_], area) for id_, area in areas.items() if id_ in known])
