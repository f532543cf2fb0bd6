"""Results as labels to correct in an annotation tool: outlines of all images in one JSON.

    format        file                                     content
    cvat          cvat.json                                COCO instances with polygons: upload as "COCO 1.0"
    labelstudio   labelstudio.json, labelstudio.xml        tasks with predictions, and the labelling interface they need

Of objects that may overlap, those with a score below 0.3 are left out, as in pictures.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from knet.data.categories import rows_for_json
from knet.data.files.outlines import polygons
from knet.inference.results.files import JsonRows, Writer, write_bytes
from knet.inference.results.segmentation import SHOWN, Segmentation
from knet.inference.results.writers import CocoFile
from knet.structures import Category

_LOCAL = "/data/local-files/?d="  # how Label Studio addresses files below its LOCAL_FILES_DOCUMENT_ROOT


class PrelabelWriter(Writer):
    """Writes the results of many images as documents of annotation tools, any of `formats.PRELABELS`. See `Writer`."""

    def __init__(self, folder: str | Path, formats: Sequence[str], categories: Sequence[Category]):
        super().__init__(folder, categories)
        self._formats, self._images, self._objects = tuple(formats), 0, 0

    def write(self, segmentation: Segmentation, path: Path) -> list[Path]:
        """Notes the outlines of one image, whose file is `path`, and returns the files that are finished by now."""
        height, width = segmentation.id_map.shape
        rows = [_row(segmentation, s) for s in segmentation.segments if segmentation.masks is None or s.score >= SHOWN]
        self._note_rows(
            {"file": str(path), "height": height, "width": width, "objects": [r for r in rows if r["rings"]]}
        )
        return []

    def add_rows(self, *rows: dict[str, Any]) -> None:
        """Adds an image with its objects to each document."""
        for row in rows:
            self._images += 1
            if "cvat" in self._formats:
                self._add_to_cvat(row)
            if "labelstudio" in self._formats:
                tasks = self._file("labelstudio", self._new_tasks)
                tasks.add([_task(row)])

    def _add_to_cvat(self, row: dict[str, Any]) -> None:
        document = self._file("cvat", lambda: CocoFile(self.folder / "cvat.json", self.categories))
        image = {"id": self._images, "file_name": Path(row["file"]).name} | {s: row[s] for s in ("height", "width")}
        objects = [
            {"id": self._objects + number, "image_id": self._images, "category_id": one["category"], "iscrowd": 0}
            | {"segmentation": one["rings"], "score": one["score"]}
            | {"area": one["area"], "bbox": one["bbox"]}
            for number, one in enumerate(row["objects"], 1)
        ]
        document.add_image(image, *objects)
        self._objects += len(objects)

    def _new_tasks(self) -> JsonRows:
        """The list of tasks, and beside it the labelling interface that a project for them needs."""
        labels = ""
        for row in rows_for_json(self.categories):
            color = bytes(row["color"]).hex()
            labels += f'    <Label value={quoteattr(row["name"])} background="#{color}"/>\n'
        tags = f'  <Image name="image" value="$image"/>\n  <PolygonLabels name="label" toName="image">\n{labels}'
        text = f"<View>\n{tags}  </PolygonLabels>\n</View>\n"
        write_bytes(self.folder / "labelstudio.xml", text.encode())
        return JsonRows(self.folder / "labelstudio.json")


def _row(segmentation: Segmentation, segment: Any) -> dict[str, Any]:
    left, top, right, bottom = (int(edge) for edge in segment.box)
    rings = polygons(segmentation.mask(segment)[top:bottom, left:right], (left, top)) if segment.area else []
    return {
        "category": int(segment.category),
        "name": segment.name,
        "score": float(segment.score),
        "area": int(segment.area),
        "bbox": [left, top, right - left, bottom - top],
        "rings": rings,
    }


def _task(row: dict[str, Any]) -> dict[str, Any]:
    """A task of Label Studio, whose image is a file on its machine, with one prediction."""
    found = list(_regions(row))
    scores = [one["score"] for one in row["objects"]]
    prediction = {"model_version": "knet", "score": min(scores, default=0.0), "result": found}
    return {"data": {"image": _LOCAL + quote(os.fsencode(row["file"].lstrip("/")))}, "predictions": [prediction]}


def _regions(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A region for each piece of each object, with corners in percent."""
    for number, one in enumerate(row["objects"], 1):
        for piece, ring in enumerate(one["rings"], 1):
            corners = [
                [100 * x / row["width"], 100 * y / row["height"]] for x, y in zip(ring[::2], ring[1::2], strict=True)
            ]
            yield {
                "id": f"{number}-{piece}",
                "type": "polygonlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": row["width"],
                "original_height": row["height"],
                "image_rotation": 0,
                "score": one["score"],
                "value": {"points": corners, "closed": True, "polygonlabels": [one["name"]]},
            }
