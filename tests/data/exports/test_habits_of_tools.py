"""What tools do beside the plain case: other folders, names, tables and shapes; nothing of it may be lost."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drawn_exports import EXPORTS, scenes
from knet.data.make.from_export import Imported, import_export

COCO, TASKS = "annotations/instances_default.json", "project-1-at-2026-11-29.json"


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def renamed(path: str, name: Callable[[str], str]) -> Callable[[Path], object]:
    """Renames the files that fit a path."""
    return lambda root: [file.rename(file.with_name(name(file.name))) for file in sorted(root.glob(path))]


def called(json_: str, name: Callable[[str], str]) -> Callable[[Path], object]:
    """Renames the images within a COCO JSON."""
    return lambda root: edit(
        root / json_,
        lambda content: [row.update(file_name=name(row["file_name"][-7:])) for row in content["images"]],
    )


def divided(folders: dict[str, str], second: str, first: str = "train") -> Callable[[Path], object]:
    """Moves the files of folders into those of two splits: {"masks": "{}_labels"} makes train_labels and val_labels."""

    def move(root: Path) -> None:
        for folder, target in folders.items():
            for file in sorted((root / folder).iterdir()):
                place = root / target.format(first if file.stem[:3] < "004" else second)
                place.mkdir(parents=True, exist_ok=True)
                file.rename(place / file.name)

    return move


def table(text: str, name: str = "class_dict.csv", coding: str = "utf-8") -> Callable[[Path], object]:
    def write(root: Path) -> None:
        (root / "class_dict.csv").unlink()
        (root / name).write_text(text, coding)

    return write


def uploaded(name: str) -> str:
    return f"/data/upload/1/1a2b3c4d-my_photo_{name}"


def two_tasks(root: Path) -> None:
    """Two unpacked exports side by side, whose images have the same names."""
    drawn = scenes()
    for path in sorted(root.glob("*")):
        path.rename(root.parent / path.name)
    for number, part in enumerate((drawn[:3], drawn[3:])):
        EXPORTS["cvat_coco"](root / f"task {number}", [one._replace(name=f"{n:03}.jpg") for n, one in enumerate(part)])


def listed_splits(root: Path) -> None:
    lists = root / "ImageSets/Segmentation"
    (lists / "Train.txt").write_text("000\n001\n002\n003\n")
    (lists / "Validation.txt").write_text('"004"\n005\n')


def label_with_dashes(root: Path) -> None:
    for path in root.glob("*-tag-box-*.png"):
        path.rename(path.with_name(path.name.replace("by-1-tag-box", "by-me@x-y.org-tag-My-box")))
    result = [{"value": {"format": "rle", "brushlabels": ["My-box"]}}]
    edit(root / TASKS, lambda rows: [row.update(annotations=[{"result": result}]) for row in rows])


def captions(root: Path) -> None:
    edit(root / COCO, lambda content: content.update(captions=1))
    content = json.loads((root / COCO).read_text())
    rows = [{"id": 1, "image_id": 0, "caption": "a box"}]
    (root / "annotations/captions.json").write_text(json.dumps({"images": content["images"], "annotations": rows}))


RGB = "name;r;g;b\r\nfloor;120;120;120\r\n{};220;120;20\r\ndisc;20;90;200\r\n"

# The form, what is done to it, and the classes that come out; all six images are used.
HABITS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "images beside the JSON's folder": ("cvat_coco", renamed("images/default", lambda _: "cam 1"), "box disc"),
    "umlauts that macOS took apart": (
        "cvat_coco",
        lambda root: [
            called(COCO, lambda name: f"Straße/ü{name}")(root),
            (root / "images/default").rename(root / "images/Straße"),
            renamed("images/Straße/*", lambda name: unicodedata.normalize("NFD", f"ü{name}"))(root),
        ],
        "box disc",
    ),
    "upper-case endings": (
        "cvat_coco",
        renamed("images/default/*", lambda name: name.replace("jpg", "JPG")),
        "box disc",
    ),
    "two unpacked tasks": ("cvat_coco", two_tasks, "box disc"),
    "captions beside instances": ("cvat_coco", captions, "box disc"),
    "names after an upload": (
        "label_studio_coco",
        lambda root: [
            called("result.json", uploaded)(root),
            renamed("images/*", lambda name: f"my photo {name}")(root),
        ],
        "box disc",
    ),
    "an address with a signature": (
        "label_studio_coco",
        called("result.json", lambda name: f"https://bucket.example.com/p/{name}?X-Signature=ab/cd"),
        "box disc",
    ),
    "files of a local server": (
        "label_studio_coco",
        called("result.json", lambda name: f"/data/local-files/?d={name}"),
        "box disc",
    ),
    "brushes of uploaded images": (
        "label_studio_brush",
        lambda root: [
            edit(
                root / TASKS,
                lambda rows: [row["data"].update(image=uploaded(row["data"]["image"][-7:])) for row in rows],
            ),
            renamed("images/*", lambda name: f"my photo {name}")(root),
        ],
        "box disc",
    ),
    "a dash in who labelled, and in the label": ("label_studio_brush", label_with_dashes, "disc My-box"),
    "masks in folders": (
        "cvat_masks",
        divided({name: f"{name}/{{}}" for name in ("JPEGImages", "SegmentationClass", "SegmentationObject")}, "ü 1"),
        "box disc",
    ),
    "masks in lists": ("cvat_masks", listed_splits, "box disc"),
    "a comma in a class": (
        "cvat_masks",
        lambda root: (root / "labelmap.txt").write_text(
            "background:0,0,0::\n3 box, big:220,120,20::\ndisc:20,90,200::\n"
        ),
        "3 box, big|disc",
    ),
    "train and train_labels": (
        "color_masks",
        divided({"images": "{}", "masks": "{}_labels"}, "val"),
        "floor box disc",
    ),
    "images/train and masks/train": (
        "color_masks",
        divided({"images": "images/{}", "masks": "masks/{}"}, "val"),
        "floor box disc",
    ),
    "a table of a western spreadsheet": (
        "color_masks",
        table(RGB.format("Kästen"), coding="cp1252"),
        "floor Kästen disc",
    ),
    "a table in UTF-16": ("color_masks", table(RGB.format("box"), coding="utf-16"), "floor box disc"),
    "a table in quotes": (
        "color_masks",
        table('"id","name","r","g","b"\n"0","floor, wood","120","120","120"\n"1","box","220","120","20"\n'),
        "floor, wood|box",
    ),
    "a table with #": (
        "color_masks",
        table("name,color\nfloor,#787878\nbox,#DC7814\ndisc,#145ac8\n"),
        "floor box disc",
    ),
    "a table of titles": (
        "color_masks",
        table(json.dumps({"classes": [{"title": "floor", "color": "#787878"}]}), "classes.json"),
        "floor",
    ),
    "a table without signs": (
        "color_masks",
        table("120 120 120\tfloor\r\n220 120 20 box 2\r\n", "colors.txt"),
        "floor|box 2",
    ),
    "turned rectangles": (
        "labelme",
        lambda root: [
            edit(
                path,
                lambda content: [row.update(shape_type="rotation") for row in content["shapes"] if "mask" not in row],
            )
            for path in (root / "labels").iterdir()
        ],
        "box disc",
    ),
}


def imported(root: Path, path: Path | None = None) -> Imported:
    return import_export(path or root, root.parent / "made")


@pytest.mark.parametrize("habit", HABITS)
def test_nothing_is_lost_to_a_habit_of_a_tool(habit: str, tmp_path: Path) -> None:
    form, change, classes = HABITS[habit]
    root = tmp_path / "own"
    EXPORTS[form](root, scenes())
    change(root)
    made = imported(root)
    assert sum(made.images.values()) == 6, made.remarks
    assert [row.name for row in made.reports[0].classes] == classes.split("|" if "|" in classes else None)
    assert not any("cannot be read" in line or "not there" in line for line in made.remarks)
    if habit in ("masks in lists", "train and train_labels", "images/train and masks/train"):
        assert made.images == {"train": 4, "val": 2}


def test_a_json_in_its_folder_may_be_given_and_is_read_alone(tmp_path: Path) -> None:
    root = tmp_path / "own"
    EXPORTS["cvat_coco"](root, scenes())
    other = json.loads((root / COCO).read_text())
    other["categories"].append({"id": 3, "name": "person"})
    (root / "annotations/person_keypoints_default.json").write_text(json.dumps(other))
    made = imported(root, root / COCO)
    assert sum(made.images.values()) == 6
    assert not any("listed twice" in line or "person" in line for line in made.remarks)
