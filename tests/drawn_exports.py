"""The same few drawn scenes as ten annotation tools export them: discs and boxes on a floor.

Each function writes into an empty folder what the tool writes, with the habits that make exports differ.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from knet.data.files.masks import pack_mask, run_lengths

HEIGHT, WIDTH = 48, 64
COLORS = {"box": (220, 120, 20), "disc": (20, 90, 200)}


class Drawn(NamedTuple):
    """An object: its class, its polygon as x, y, x, y, ..., and its mask (H,W) bool."""

    label: str
    polygon: list[int]
    mask: np.ndarray


class Scene(NamedTuple):
    """An image (H,W,3) with its objects, which do not overlap."""

    name: str
    image: Image.Image
    objects: list[Drawn]


def scenes(count: int = 6, size: tuple[int, int] = (HEIGHT, WIDTH)) -> list[Scene]:
    """`count` pictures, each with a box on the left and a disc on the right."""
    height, width = size
    rng, drawn, base = np.random.default_rng(0), [], min(height, width * 3 // 4)
    for number in range(count):
        image = Image.fromarray(rng.integers(90, 120, (height, width, 3), np.uint8))
        objects = []
        for place, label in enumerate(COLORS):
            edge = int(rng.integers(base // 4, base // 2))
            left = int(rng.integers(0, width // 2 - edge)) + place * width // 2
            top = int(rng.integers(0, height - edge))
            if label == "box":
                corners = [(left, top), (left + edge, top), (left + edge, top + edge), (left, top + edge)]
            else:
                angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
                middle = np.array([left + edge / 2, top + edge / 2])
                corners = [
                    tuple(np.rint(middle + edge / 2 * np.array([np.cos(a), np.sin(a)])).astype(int)) for a in angles
                ]
            canvas = Image.new("1", (width, height))
            ImageDraw.Draw(canvas).polygon(corners, fill=1)
            ImageDraw.Draw(image).polygon(corners, fill=COLORS[label])
            objects.append(
                Drawn(label, [int(value) for corner in corners for value in corner], np.asarray(canvas, bool))
            )
        drawn.append(Scene(f"{number:03}.jpg", image, objects))
    return drawn


def _save(scene: Scene, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene.image.save(path, quality=95)


def _write(path: Path, content: Any, mark: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(mark + (content if isinstance(content, str) else json.dumps(content)), "utf-8")


def _png(mask: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(mask).save(held, "PNG")
    return held.getvalue()


def _coco(
    drawn: list[Scene],
    segmentation: Callable[[int, Drawn], Any],
    first: int = 1,
    name: Callable[[Scene], str] = lambda s: s.name,
) -> dict[str, Any]:
    """A COCO instances JSON; `segmentation` gives the mask of an object, by its number."""
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for number, label in enumerate(COLORS):
        content["categories"].append({"id": first + number, "name": label, "supercategory": ""})
    for id_, scene in enumerate(drawn):
        width, height = scene.image.size
        content["images"].append({"id": id_, "file_name": name(scene), "width": width, "height": height})
        for one in scene.objects:
            ys, xs = np.nonzero(one.mask)
            number = len(content["annotations"]) + 1
            box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
            row = {"id": number, "image_id": id_, "category_id": first + list(COLORS).index(one.label), "iscrowd": 0}
            row |= {"segmentation": segmentation(number, one), "area": int(one.mask.sum()), "bbox": box}
            content["annotations"].append(row)
    return content


def _polygon(_: int, one: Drawn) -> Any:
    return [one.polygon]


def cvat_coco(root: Path, drawn: list[Scene]) -> None:
    """CVAT's COCO: every second object is a brush mask, as RLE with iscrowd 1."""

    def mask(number: int, one: Drawn) -> Any:
        counts = run_lengths(pack_mask(one.mask))
        return {"size": list(one.mask.shape), "counts": counts} if number % 2 else [one.polygon]

    content = _coco(drawn, mask)
    for row in content["annotations"]:
        row |= {"iscrowd": row["id"] % 2, "attributes": {"occluded": False}}
    _write(root / "annotations/instances_default.json", content)
    for scene in drawn:
        _save(scene, root / "images/default" / scene.name)


def label_studio_coco(root: Path, drawn: list[Scene]) -> None:
    """Label Studio's COCO: categories from 0, the server's paths, backslashes."""
    content = _coco(drawn, _polygon, 0, lambda scene: f"..\\..\\label-studio\\data\\media\\upload\\1\\{scene.name}")
    _write(root / "result.json", content)
    for scene in drawn:
        _save(scene, root / "images" / scene.name)


def roboflow_coco(root: Path, drawn: list[Scene]) -> None:
    """Roboflow's COCO: a folder a split, a placeholder class of the project's name, packed RLE here and there."""

    def mask(number: int, one: Drawn) -> Any:
        packed = {"size": list(one.mask.shape), "counts": pack_mask(one.mask)["counts"].decode()}
        return packed if number % 3 == 0 else [one.polygon]

    third = len(drawn) // 3
    for split, members in (
        ("train", drawn[: -2 * third]),
        ("valid", drawn[-2 * third : -third]),
        ("test", drawn[-third:]),
    ):
        content = _coco(members, mask)
        for row in content["categories"]:
            row["supercategory"] = "box"
        content["categories"].insert(0, {"id": 0, "name": "box", "supercategory": "none"})
        _write(root / split / "_annotations.coco.json", content)
        for scene in members:
            _save(scene, root / split / scene.name)


def labelme2coco(root: Path, drawn: list[Scene]) -> None:
    """labelme2coco: absolute paths of another machine."""
    _write(root / "dataset.json", _coco(drawn, _polygon, 1, lambda scene: f"C:\\Users\\me\\pictures\\{scene.name}"))
    for scene in drawn:
        _save(scene, root / "pictures" / scene.name)


def yolo(root: Path, drawn: list[Scene]) -> None:
    """YOLO segmentation as Roboflow writes it: data.yaml whose paths start above the folder."""
    splits = {"train": drawn[:-2], "valid": drawn[-2:]}
    _write(root / "data.yaml", "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['box', 'disc']\n")
    for split, members in splits.items():
        for scene in members:
            _save(scene, root / split / "images" / scene.name)
            width, height = scene.image.size
            lines = []
            for one in scene.objects:
                corners = [value / (height if place % 2 else width) for place, value in enumerate(one.polygon)]
                lines.append(" ".join([str(list(COLORS).index(one.label)), *(f"{value:.6f}" for value in corners)]))
            _write(root / split / "labels" / f"{scene.name[:-4]}.txt", "\r\n".join(lines) + "\r\n", "\ufeff")


def labelme(root: Path, drawn: list[Scene]) -> None:
    """labelme: a JSON beside each image, the first with its image inside, the second with masks."""
    for number, scene in enumerate(drawn):
        width, height = scene.image.size
        shapes = []
        for one in scene.objects:
            corners = [[float(x), float(y)] for x, y in zip(one.polygon[::2], one.polygon[1::2], strict=True)]
            shape: dict[str, Any] = {"label": one.label, "points": corners, "group_id": None, "shape_type": "polygon"}
            if number == 1:
                ys, xs = np.nonzero(one.mask)
                box = one.mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
                ends = [[float(xs.min()), float(ys.min())], [float(xs.max()), float(ys.max())]]
                shape |= {"shape_type": "mask", "points": ends, "mask": base64.b64encode(_png(box)).decode()}
            shapes.append({**shape, "flags": {}})
        held = io.BytesIO()
        scene.image.save(held, "JPEG", quality=95)
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\photos\\{scene.name}"}
        content |= {"imageData": None if number else base64.b64encode(held.getvalue()).decode()}
        _write(root / "labels" / f"{scene.name[:-4]}.json", {**content, "imageHeight": height, "imageWidth": width})
        if number:
            _save(scene, root / "photos" / scene.name)


def _colored(scene: Scene, colors: list[tuple[int, int, int]]) -> Image.Image:
    width, height = scene.image.size
    painted = np.zeros((height, width, 3), np.uint8)
    for one, color in zip(scene.objects, colors, strict=True):
        painted[one.mask] = color
    return Image.fromarray(painted)


def cvat_masks(root: Path, drawn: list[Scene]) -> None:
    """CVAT's segmentation masks 1.1: classes and objects in colours, and labelmap.txt."""
    rows = [f"{label}:{','.join(map(str, color))}::" for label, color in COLORS.items()]
    _write(root / "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", "background:0,0,0::", *rows]) + "\n")
    _write(root / "ImageSets/Segmentation/default.txt", "\n".join(scene.name[:-4] for scene in drawn))
    for scene in drawn:
        _save(scene, root / "JPEGImages" / scene.name)
        numbered = [(128, 0, number) for number in range(1, len(scene.objects) + 1)]
        classes = [COLORS[one.label] for one in scene.objects]
        for folder, colors in (("SegmentationClass", classes), ("SegmentationObject", numbered)):
            (root / folder).mkdir(exist_ok=True)
            _colored(scene, colors).save(root / folder / f"{scene.name[:-4]}.png")


def label_studio_brush(root: Path, drawn: list[Scene]) -> None:
    """Label Studio's brush PNGs: named by task; the project's JSON says which image a task is of."""
    tasks = []
    for number, scene in enumerate(drawn, 41):
        _save(scene, root / "images" / scene.name)
        tasks.append({"id": number, "data": {"image": f"/data/upload/1/{scene.name}"}, "annotations": []})
        for one in scene.objects:
            path = root / f"task-{number}-annotation-{number + 100}-by-1-tag-{one.label}-0.png"
            Image.fromarray(one.mask.astype(np.uint8) * 255).save(path)
    _write(root / "project-1-at-2026-11-29.json", tasks)


def color_masks(root: Path, drawn: list[Scene]) -> None:
    """A folder of RGB masks with a table of colours, in which the floor is a class as well."""
    rows = ["name,r,g,b", "floor,120,120,120", *(f"{label},{','.join(map(str, c))}" for label, c in COLORS.items())]
    _write(root / "class_dict.csv", "\n".join(rows) + "\n", "\ufeff")
    for scene in drawn:
        _save(scene, root / "images" / scene.name)
        painted = np.asarray(_colored(scene, [COLORS[one.label] for one in scene.objects])).copy()
        painted[(painted == 0).all(-1)] = (120, 120, 120)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(painted).save(root / "masks" / f"{scene.name[:-4]}_mask.png")


def supervisely(root: Path, drawn: list[Scene]) -> None:
    """Supervisely: meta.json, a data set with img and ann; discs are bitmaps."""
    rows = [
        {"title": label, "shape": "any", "color": "#{:02X}{:02X}{:02X}".format(*color)}
        for label, color in COLORS.items()
    ]
    _write(root / "meta.json", {"classes": rows, "tags": [], "projectType": "images"})
    for scene in drawn:
        _save(scene, root / "ds 0/img" / scene.name)
        width, height = scene.image.size
        objects = []
        for one in scene.objects:
            row: dict[str, Any] = {"classTitle": one.label, "geometryType": "polygon", "tags": []}
            corners = [[x, y] for x, y in zip(one.polygon[::2], one.polygon[1::2], strict=True)]
            row["points"] = {"exterior": corners, "interior": []}
            if one.label == "disc":
                ys, xs = np.nonzero(one.mask)
                box = one.mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
                data = base64.b64encode(zlib.compress(_png(box))).decode()
                row |= {"geometryType": "bitmap", "bitmap": {"data": data, "origin": [int(xs.min()), int(ys.min())]}}
            objects.append(row)
        content = {"description": "", "tags": [], "size": {"height": height, "width": width}, "objects": objects}
        _write(root / "ds 0/ann" / f"{scene.name}.json", content)


EXPORTS: dict[str, Callable[[Path, list[Scene]], None]] = {
    function.__name__: function
    for function in (
        *(cvat_coco, label_studio_coco, roboflow_coco, labelme2coco, yolo),
        *(labelme, cvat_masks, label_studio_brush, color_masks, supervisely),
    )
}
