"""A tiny COCO panoptic data set that tests can break in one place at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 20, 30


def write_ids(path: Path, id_map: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([id_map % 256, id_map // 256 % 256, id_map // 65536], -1).astype(np.uint8)).save(path)


@dataclass
class TinyPanoptic:
    """Two images: road (id 5), two cars (ids 70000 and 300), a crowd of cars (id 9), void elsewhere."""

    folder: Path
    content: dict[str, Any]
    id_map: np.ndarray

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def masks(self) -> Path:
        return self.folder / "masks"

    @property
    def json(self) -> Path:
        path = self.folder / "panoptic.json"
        path.write_text(json.dumps(self.content))
        return path


def make_tiny(folder: Path) -> TinyPanoptic:
    id_map = np.zeros((HEIGHT, WIDTH), np.int32)
    id_map[10:] = 5
    id_map[4:9, 2:8], id_map[3:8, 12:16], id_map[12:15, 20:28] = 70000, 300, 9
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [
            {"id": 3, "name": "road", "isthing": 0, "color": [1, 2, 3]},
            {"id": 8, "name": "car", "isthing": 1, "color": [4, 5, 6]},
        ],
    }
    (folder / "images").mkdir()
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        write_ids(folder / "masks" / f"{number}.png", id_map)
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH})
        segments = [(70000, 8, 0), (5, 3, 0), (300, 8, 0), (9, 8, 1)]
        rows = [{"id": id_, "category_id": category, "iscrowd": crowd} for id_, category, crowd in segments]
        content["annotations"].append({"image_id": number, "file_name": f"{number}.png", "segments_info": rows})
    return TinyPanoptic(folder, content, id_map)
