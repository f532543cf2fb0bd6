"""Results in the formats that the test servers of Cityscapes, Mapillary Vistas, COCO and ADE20K take.

Each kind has a folder of its own, whose content is packed and uploaded. The servers search it for the names of the
images, so nothing else may lie there.

    kind         files                                       content
    *-semantic   <image>.png                                 8 bit; Cityscapes raw label ids, void 0; Mapillary label
                                                             indices (category id - 1), void the index of Unlabeled;
                                                             ADE20K 1 .. 150, void 0
    *-instance   <image>.txt, masks/<image>_<n>.png          "mask label confidence" for each thing; masks 0 and 255
                 (COCO) detections.json                      a list of {image_id, category_id, segmentation: RLE, score}
    *-panoptic   panoptic.json, panoptic/<image>.png         COCO panoptic, category ids as in the data set

<image> is city_sequence_frame for Cityscapes, with which the names of its images begin, and for the others the name of
the image without its ending; COCO's names are numbers, the image ids. COCO's server wants a zip whose files are named
after the split and the method, as in detections_test-dev2017_knet_results.json: rename before packing (the folder of
the PNGs like the JSON). Sources: the headers of cityscapesScripts' evaluators, the README of mapillary_vistas, and the
descriptions of COCO and sceneparsing. Mapillary's ground truth is in COCO's panoptic format, so predictions are, too.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knet.data.categories import load_categories
from knet.data.cityscapes_labels import CITYSCAPES_EVALUATED
from knet.data.files.io import name_some
from knet.data.files.masks import Rle, mask_area, pack_mask
from knet.errors import ConfigError, DataError, did_you_mean
from knet.inference.results.draw import map_ids
from knet.inference.results.encoding import panoptic_entries, panoptic_rgb, rle_text
from knet.inference.results.files import JsonRows, Writer, write_bytes, write_image
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.writers import CocoFile
from knet.structures import Category

KINDS = tuple(f"{data}-{task}" for data in ("cityscapes", "mapillary") for task in ("semantic", "instance", "panoptic"))
KINDS += ("coco-instance", "coco-panoptic", "ade20k-semantic")
OF_CLIPS = "youtube-vis"  # a submission of videos, see `inference.results.youtube_vis.YoutubeVisWriter`

_TABLES = {"coco-instance": "coco_instance", "coco-panoptic": "coco_panoptic", "ade20k-semantic": "ade20k"}
_NAMES = {  # of images by data set: a pattern, whose first group is the server's name, and its description
    "cityscapes": (
        re.compile(r"([A-Za-z-]+_\d{6}_\d{6})(?:_.*)?", re.DOTALL),
        "a Cityscapes image, whose results the server finds by <city>_<6 digits>_<6 digits>, as in "
        "'berlin_000000_000019_leftImg8bit'",
    ),
    "mapillary": (
        re.compile(r"([A-Za-z0-9_-]{1,150})"),
        "a Mapillary Vistas image (letters, digits, '-' and '_' only), by which the server finds its result",
    ),
    "coco": (re.compile(r"([0-9]{12})"), "a COCO image, a number of 12 digits, by which the server finds its result"),
    "ade20k": (re.compile(r"(ADE_[a-z]+_[0-9]{8})"), "an ADE20K image, as in 'ADE_test_00000001'"),
}
_MAPILLARY_CLASSES = 65  # of v1.2; later versions have more


def check_kind(kind: str, categories: Sequence[Category]) -> str:
    """The kind of submission; ConfigError if it is unknown, or is for a data set of other classes."""
    _check_known(kind)
    ids = sorted(c.id for c in categories)
    if kind.startswith("cityscapes"):
        fits = set(ids) <= set(CITYSCAPES_EVALUATED)
        needed = "raw label ids (road 7 ... bicycle 33), not training labels"
    elif kind in _TABLES:
        wanted = sorted(c.id for c in load_categories(_TABLES[kind]))
        fits = wanted == (sorted(c.id for c in categories if c.thing) if kind == "coco-instance" else ids)
        needed = f"the {len(wanted)} category ids of the class table '{_TABLES[kind]}'"
    else:
        fits = ids == list(range(1, len(ids) + 1)) and _MAPILLARY_CLASSES <= len(ids) < 256
        needed = f"category ids 1 to {_MAPILLARY_CLASSES} (v1.2) or more (v2.0), all of them"
    if not fits or not ids:
        shown = name_some(ids, 5) or "no classes"
        raise ConfigError(f"A submission '{kind}' needs a model with {needed}; this one has {shown}.")
    return kind


def _check_known(kind: str) -> None:
    if kind == OF_CLIPS:
        raise ConfigError(f"The submission '{kind}' needs a model for clips; `knet models '*youtube-vis'` lists some.")
    if kind not in KINDS:
        known = (*KINDS, OF_CLIPS)
        hint = did_you_mean(kind, known)
        raise ConfigError(f"Unknown submission '{kind}'; known are {', '.join(known)}{'; ' + hint if hint else '.'}")


def submission_name(kind: str, name: str) -> str:
    """The server's name of an image, from the name of its file without the ending; DataError if it has another form."""
    _check_known(kind)
    pattern, description = _NAMES[kind.partition("-")[0]]
    found = pattern.fullmatch(name)
    if found is None:
        raise DataError(f"'{name}' is no name of {description}; give the original files.")
    return found[1]


def submission_names(kind: str, names: Iterable[str]) -> list[str]:
    """`submission_name` of all images of a run; DataError also where two would have the same name."""
    found: dict[str, str] = {}
    for name in names:
        server = submission_name(kind, name)
        if server in found:
            raise DataError(f"'{name}' and '{found[server]}' are the same image to the server; give each once.")
        found[server] = name
    return list(found)


def coco_instance_results(
    image_id: int | str, masks: Iterable[np.ndarray | Rle], category_ids: Sequence[int], scores: Sequence[float]
) -> list[dict[str, Any]]:
    """The objects of an image as rows of COCO's results list, ready for JSON; without boxes, as K-Net submits them.

    Masks are those of the original image, (H,W) bool or packed. They may overlap; empty ones are left out.
    """
    rows = []
    for mask, category, score in zip(masks, category_ids, scores, strict=True):
        rle = pack_mask(mask) if isinstance(mask, np.ndarray) else mask
        if mask_area(rle):
            row = {"image_id": image_id, "category_id": int(category), "segmentation": rle_text(rle)}
            rows.append({**row, "score": float(score)})
    return rows


class SubmissionWriter(Writer):
    """Writes the results of many images as a submission to a test server (one of `KINDS`), into `folder / kind`.

    The attribute `folder` is then that folder, whose content is what is uploaded. Files of an earlier run are replaced;
    if the run before had other images, empty the folder first. `panoptic.json` and `detections.json` are finished by
    `close`, see `Writer`; after an error they list the images that were done. Memory does not grow with the images.
    """

    def __init__(self, folder: str | Path, kind: str, categories: Sequence[Category]):
        self.kind = check_kind(kind, categories)
        super().__init__(Path(folder) / kind, categories)
        self._task = kind.partition("-")[2]
        # Mapillary's semantic labels are positions in the list of classes, which ends with Unlabeled.
        self._shift, self._void = (1, len(self.categories)) if kind.startswith("mapillary") else (0, 0)
        self._known = {c.id for c in self.categories}
        self._seen: set[str] = set()

    def write(self, segmentation: Segmentation) -> list[Path]:
        """Writes one result, named `segmentation.name`, and returns the files that are finished: not the JSON of all.

        Nothing is written, but a DataError raised, if the server would not know the name, the image was written before,
        or a segment has a category that the class table lacks.
        """
        name = submission_name(self.kind, segmentation.name)
        if name in self._seen:
            raise DataError(f"'{name}' was written already; a submission holds one result for each image.")
        strange = next((s for s in segmentation.segments if s.category not in self._known), None)
        if strange is not None:
            raise DataError(
                f"'{name}' has a segment of the category {strange.category}, which the class table lacks; write "
                "results with the class table of the model that made them."
            )
        writers = {
            "semantic": self._write_semantic,
            "instance": self._write_instances,
            "panoptic": self._write_panoptic,
            "detections": self._write_detections,
        }
        written = writers["detections" if self.kind == "coco-instance" else self._task](segmentation, name)
        self._seen.add(name)
        return written

    def _write_semantic(self, segmentation: Segmentation, name: str) -> list[Path]:
        values = np.array([s.category - self._shift for s in segmentation.segments], np.uint8)
        labels = map_ids(segmentation.id_map, [s.id for s in segmentation.segments], values, self._void)
        return [write_image(self.folder / f"{name}.png", labels)]

    def _write_instances(self, segmentation: Segmentation, name: str) -> list[Path]:
        """The masks come first: where there is a text file, all its masks are there as well."""
        written: list[Path] = []
        lines = ""
        for segment in segmentation.segments:
            mask = segmentation.mask(segment)
            if segment.thing and mask.any():
                path = self.folder / "masks" / f"{name}_{len(written):03d}.png"
                written.append(write_image(path, mask.astype(np.uint8) * 255))
                lines += f"masks/{path.name} {segment.category - self._shift} {segment.score:.9f}\n"
        return [*written, write_bytes(self.folder / f"{name}.txt", lines.encode())]

    def _write_panoptic(self, segmentation: Segmentation, name: str) -> list[Path]:
        png = write_image(self.folder / "panoptic" / f"{name}.png", panoptic_rgb(segmentation))
        image_id = int(name) if self.kind.startswith("coco") else name
        image, annotation = panoptic_entries(segmentation, image_id, segmentation.name, png.name)
        rows = [{"id": row["id"], "category_id": row["category_id"]} for row in annotation["segments_info"]]
        self._note_rows(image, annotation | {"segments_info": rows})
        return [png]

    def _write_detections(self, segmentation: Segmentation, name: str) -> list[Path]:
        things = [s for s in segmentation.segments if s.thing]
        masks = map(segmentation.rle, things)
        rows = coco_instance_results(int(name), masks, [s.category for s in things], [s.score for s in things])
        self._note_rows(*rows)
        return []

    def add_rows(self, *rows: dict[str, Any]) -> None:
        """Adds an image's rows to `detections.json`, or that of `images` and of `annotations` to `panoptic.json`."""
        if self.kind == "coco-instance":
            self._file("detections", lambda: JsonRows(self.folder / "detections.json")).add(rows)
        else:
            self._file("panoptic", lambda: CocoFile(self.folder / "panoptic.json", self.categories)).add_image(*rows)
