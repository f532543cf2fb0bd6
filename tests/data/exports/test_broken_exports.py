"""Exports that are broken, or made on other machines: one clear sentence, or a counted line, and the rest is used."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import EpsImagePlugin, Image

from drawn_exports import EXPORTS, scenes
from knet.cli.main import main

Spoil = Callable[[Path], object]


def change(path: Path, edit: Callable[[Any], object]) -> None:
    """Edits a JSON in place; what the edit returns replaces it, unless that is None."""
    content = json.loads(path.read_text("utf-8-sig"))
    made = edit(content)
    path.write_text(json.dumps(content if made is None else made))


def rows_of(path: str, edit: Callable[[list[dict[str, Any]]], object], key: str = "annotations") -> Spoil:
    return lambda root: change(root / path, lambda content: [None, edit(content[key])][0])


def text(path: str, edit: Callable[[str], str]) -> Spoil:
    return lambda root: (root / path).write_text(edit((root / path).read_text("utf-8-sig")))


def empty(path: str) -> Spoil:
    return lambda root: (root / path).write_bytes(b"")


def image(path: str, size: tuple[int, int], mode: str = "RGB") -> Spoil:
    return lambda root: Image.new(mode, size).save(root / path)


COCO, LABELME, ANN = "annotations/instances_default.json", "labels/002.json", "ds 0/ann/002.jpg.json"

# What goes wrong with an export, and the line that says so; the rest of it is used.
COUNTED: dict[str, tuple[str, Spoil, str]] = {
    "coco, missing image": (
        "cvat_coco",
        lambda root: (root / "images/default/001.jpg").unlink(),
        "left out: images that the JSON names do not exist (1): 001.jpg",
    ),
    "coco, other size": (
        "cvat_coco",
        image("images/default/001.jpg", (20, 10)),
        "left out: images of another size than the export says (1): images/default/001.jpg 20x10, not 64x48",
    ),
    "coco, image is empty": ("cvat_coco", empty("images/default/001.jpg"), "left out: images that cannot be read (1)"),
    "coco, two corners": (
        "cvat_coco",
        rows_of(COCO, lambda rows: rows[1].update(segmentation=[[1, 2, 30, 40]])),
        "left out: objects without a mask (neither RLE nor a polygon of three corners) (1): annotation 2 of 000.jpg",
    ),
    "coco, corners as text": (
        "cvat_coco",
        rows_of(COCO, lambda rows: rows[1].update(segmentation=[[str(n) for n in rows[1]["segmentation"][0]]])),
        "left out: objects whose mask cannot be read (1)",
    ),
    "coco, unknown category": (
        "cvat_coco",
        rows_of(COCO, lambda rows: rows[1].update(category_id=77)),
        "left out: segments have a category that the class table lacks (1): 77 of annotation 2",
    ),
    "coco, twice": (
        "cvat_coco",
        rows_of(COCO, lambda rows: rows.append(rows[1])),
        "left out: objects that are there twice (1)",
    ),
    "coco, same class twice": (
        "cvat_coco",
        lambda root: change(root / COCO, lambda c: [c["categories"].append({"id": 9, "name": "box"}), c][1]),
        "note: classes with several rows are one (1): box",
    ),
    "coco, RLE of another size": (
        "cvat_coco",
        rows_of(COCO, lambda rows: rows[0].update(segmentation={"size": [9, 9], "counts": [40, 41]})),
        "cannot be read (1)",
    ),
    "yolo, rubbish": (
        "yolo",
        text("train/labels/000.txt", lambda lines: f"{lines}nonsense\n0 0.1 0.1 0.2 x\n"),
        "left out: lines of a class that has no name (1): 000.txt line 3 (class nonsense)",
    ),
    "yolo, boxes": (
        "yolo",
        text("train/labels/000.txt", lambda lines: f"{lines}1 0.5 0.5 0.2 0.2\n"),
        "left out: boxes, which have no mask (1): 000.txt line 3",
    ),
    "yolo, two corners": (
        "yolo",
        text("train/labels/000.txt", lambda lines: f"{lines}1 0.5 0.5\n"),
        "left out: lines that are no polygon of three corners (1): 000.txt line 3",
    ),
    "yolo, decimal commas": (
        "yolo",
        text("train/labels/000.txt", lambda lines: f"{lines}1 0,1 0,1 0,9 0,1 0,9 0,9\n"),
        "left out: lines that are no polygon of three corners (1): 000.txt line 3",
    ),
    "yolo, pixels": (
        "yolo",
        text("train/labels/000.txt", lambda lines: f"{lines}1 10 10 30 10 30 30\n"),
        "left out: polygons that are not fractions of the image's size (1): 000.txt line 3",
    ),
    "yolo, no test": (
        "yolo",
        text("data.yaml", lambda lines: f"{lines}test: ../test/images\n"),
        "left out: splits whose folder is not there (1): test: ../test/images",
    ),
    "labelme, empty file": (
        "labelme",
        empty(LABELME),
        "left out: JSON files that cannot be read or hold no shapes (1): 002.json",
    ),
    "yolo, no text": (
        "yolo",
        lambda root: (root / "train/labels/000.txt").unlink(),
        "note: images without a text of labels have no object (1): train/images/000.jpg",
    ),
    "labelme, line": (
        "labelme",
        rows_of(LABELME, lambda rows: rows[0].update(shape_type="line", points=[[1, 1], [9, 9]]), "shapes"),
        "left out: shapes that cover no area (points, lines and polygons of two corners) (1): line box of 002.json",
    ),
    "labelme, no numbers": (
        "labelme",
        rows_of(LABELME, lambda rows: rows[0].update(points=[["a", "b"], None]), "shapes"),
        "left out: shapes whose points are no numbers (1): box of 002.json",
    ),
    "labelme, no label": (
        "labelme",
        rows_of(LABELME, lambda rows: rows[0].update(label=None), "shapes"),
        "left out: shapes without a label (1): shape 1 of 002.json",
    ),
    "labelme, rectangle": (
        "labelme",
        rows_of(LABELME, lambda rows: rows[0].update(shape_type="rectangle", points=[[1, 1], [9, 9]]), "shapes"),
        "note: rectangles and circles count as the object's mask (1): box of 002.json",
    ),
    "labelme, damaged mask": (
        "labelme",
        rows_of("labels/001.json", lambda rows: rows[0].update(mask="AAAA"), "shapes"),
        "left out: masks that cannot be read (1): box of 001.json",
    ),
    "labelme, damaged image inside": (
        "labelme",
        lambda root: change(root / "labels/000.json", lambda content: content.update(imageData="AAAA")),
        "left out: images that their JSON holds and that cannot be read (1): 000.json",
    ),
    "cvat masks, no image": (
        "cvat_masks",
        lambda root: (root / "JPEGImages/001.jpg").unlink(),
        "left out: masks without an image (1): 001.png",
    ),
    "cvat masks, other size": (
        "cvat_masks",
        image("SegmentationClass/001.png", (9, 9)),
        "left out: masks of another size than their image (1): 001.png 9x9",
    ),
    "cvat masks, empty file": (
        "cvat_masks",
        empty("SegmentationClass/001.png"),
        "left out: masks that cannot be read (1)",
    ),
    "colour masks, new colour": (
        "color_masks",
        lambda root: Image.new("RGB", (64, 48), (1, 2, 3)).save(root / "masks/001_mask.png"),
        "left out: colours that the table lacks, whose pixels are void (1): 001_mask.png (1, 2, 3), 3072 pixels",
    ),
    "colour masks, no mask": (
        "color_masks",
        lambda root: (root / "masks/001_mask.png").unlink(),
        "left out: images without a mask (1): 001.jpg",
    ),
    "brush, unknown task": (
        "label_studio_brush",
        lambda root: change(root / "project-1-at-2026-11-29.json", lambda rows: rows[1:]),
        "left out: tasks that the JSON does not list (1): task 41",
    ),
    "brush, empty file": (
        "label_studio_brush",
        empty("task-41-annotation-141-by-1-tag-box-0.png"),
        "left out: masks that cannot be read (1)",
    ),
    "supervisely, unknown class": (
        "supervisely",
        rows_of(ANN, lambda rows: rows[0].update(classTitle="tree"), "objects"),
        "left out: objects of a class that meta.json does not list (1): object 1 of 002.jpg.json",
    ),
    "supervisely, damaged bitmap": (
        "supervisely",
        rows_of(ANN, lambda rows: rows[1]["bitmap"].update(data="AAAA"), "objects"),
        "left out: objects whose mask cannot be read (1): object 2 of 002.jpg.json",
    ),
    "supervisely, empty file": (
        "supervisely",
        empty(ANN),
        "left out: JSON files that cannot be read or list no objects (1): 002.jpg.json",
    ),
    "supervisely, no image": (
        "supervisely",
        lambda root: (root / "ds 0/img/002.jpg").unlink(),
        "left out: images that are not there (1): 002.jpg",
    ),
}

COUNTED |= {
    "coco, image that it does not name": (
        "cvat_coco",
        image("images/default/new.jpg", (64, 48)),
        "left out: images that the export does not name (1): images/default/new.jpg",
    ),
    "labelme, image without JSON": (
        "labelme",
        image("photos/new.jpg", (64, 48)),
        "left out: images that the export does not name (1): photos/new.jpg",
    ),
    "supervisely, image without JSON": (
        "supervisely",
        image("ds 0/img/new.jpg", (64, 48)),
        "left out: images that the export does not name (1): ds 0/img/new.jpg",
    ),
    "yolo, text without image": (
        "yolo",
        lambda root: (root / "train/images/001.jpg").unlink(),
        "left out: texts of labels without an image (1): 001.txt",
    ),
    "coco, turned by EXIF": (
        "cvat_coco",
        image("images/default/001.jpg", (48, 64)),
        "001.jpg 48x64, not 64x48 (EXIF turns it: save it upright, and label that)",
    ),
    "labelme, not to be labelled": (
        "labelme",
        rows_of(LABELME, lambda rows: rows[0].update(label="__ignore__"), "shapes"),
        "left out: masks of background and the like, which are void (1): __ignore__ in",
    ),
}

# What makes an export useless, and the sentence.
REFUSED: dict[str, tuple[str, Spoil, str]] = {
    "coco, empty file": (
        "cvat_coco",
        empty(COCO),
        "(it holds 6 .jpg, 1 .json; annotations/instances_default.json cannot be read: it is empty",
    ),
    "coco, no categories": (
        "cvat_coco",
        lambda root: change(root / COCO, lambda content: content.update(categories=None)),
        "'categories' must be a list",
    ),
    "coco, annotations are no list": (
        "cvat_coco",
        lambda root: change(root / COCO, lambda content: content.update(annotations={})),
        "is no COCO instances JSON: it must hold lists 'images' and 'annotations'",
    ),
    "coco, only boxes": (
        "cvat_coco",
        rows_of(COCO, lambda rows: [row.update(segmentation=[]) for row in rows]),
        "The export has no object with a mask in 6 images: left out: objects without a mask",
    ),
    "yolo, folder that is not there": (
        "yolo",
        text("data.yaml", lambda lines: lines.replace("../train/images", "/home/me/photos")),
        "names '/home/me/photos', which is not in its folder",
    ),
    "yolo, names are a number": (
        "yolo",
        text("data.yaml", lambda lines: lines.replace("['box', 'disc']", "2")),
        "has names = 2; give a list of names",
    ),
    "brush, no JSON": (
        "label_studio_brush",
        lambda root: (root / "project-1-at-2026-11-29.json").unlink(),
        "name Label Studio's tasks, not images; export the project as JSON as well",
    ),
    "cvat masks, no images": (
        "cvat_masks",
        lambda root: (root / "JPEGImages").rename(root / "elsewhere"),
        "has masks but no JPEGImages; export with 'Save images'",
    ),
    "yolo, tab in YAML": (
        "yolo",
        text("data.yaml", lambda lines: lines.replace(": ", ":\t")),
        "data.yaml cannot be read: while scanning",
    ),
    "supervisely, only the JSON": (
        "supervisely",
        lambda root: (root / "ds 0/img").rename(root / "elsewhere"),
        "has annotations (ann) but no images (img); export the project with its images",
    ),
    "colour masks as JPEG": (
        "color_masks",
        lambda root: [path.rename(path.with_suffix(".jpg")) for path in (root / "masks").iterdir()],
        "for the masks in masks these are JPEGs, which change colours: export PNGs",
    ),
    "colour masks without a table": (
        "color_masks",
        lambda root: (root / "class_dict.csv").unlink(),
        "there is no table of colours, such as class_dict.csv with lines 'car,255,0,0'",
    ),
    "cvat masks, empty table": ("cvat_masks", empty("labelmap.txt"), "names no colours"),
}


def import_spoilt(form: str, spoil: Spoil, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    root = folder / "own"
    root.mkdir()
    EXPORTS[form](root, scenes())
    spoil(root)
    status = main(["data", "import", str(root), "--output", str(folder / "made")])
    printed = capsys.readouterr()
    sentences = [line for line in printed.err.splitlines() if line.startswith("knet: ")]
    assert "Traceback" not in printed.err and len(sentences) == bool(status)
    return status, printed.out, " ".join(sentences)


@pytest.mark.parametrize("case", COUNTED)
def test_what_is_broken_is_counted_and_the_rest_is_used(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, spoil, line = COUNTED[case]
    status, out, _ = import_spoilt(form, spoil, tmp_path, capsys)
    assert status == 0
    assert line in out


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_useless_gets_one_sentence_and_leaves_nothing(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, spoil, sentence = REFUSED[case]
    status, out, said = import_spoilt(form, spoil, tmp_path, capsys)
    assert (status, out) == (2, "")
    assert sentence in said
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


LISTS: dict[str, tuple[str, Spoil]] = {
    "coco, a class name": ("cvat_coco", rows_of(COCO, lambda rows: rows[0].update(name=["box"]), "categories")),
    "coco, two of them": (
        "cvat_coco",
        rows_of(COCO, lambda rows: [row.pop("id") and row.update(name=["box"]) for row in rows], "categories"),
    ),
    "labelme, a label": ("labelme", rows_of(LABELME, lambda rows: rows[0].update(label=["box"]), "shapes")),
    "labelme, a group": ("labelme", rows_of(LABELME, lambda rows: rows[0].update(group_id={"a": [1]}), "shapes")),
    "labelme, a long path": ("labelme", lambda root: change(root / LABELME, lambda c: c | {"imagePath": "x" * 300})),
    "yolo, a long path": ("yolo", text("data.yaml", lambda old: old.replace("../valid", "v" * 10_000))),
    "yolo, a long base": ("yolo", text("data.yaml", lambda old: f"path: {'p' * 300}\n{old}")),
}


@pytest.mark.parametrize("case", LISTS)
def test_what_nobody_expects_in_a_place_is_left_out_or_one_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, spoil = LISTS[case]
    status, _, said = import_spoilt(form, spoil, tmp_path, capsys)
    assert status in (0, 2) and len(said) < 1000 and "the system refuses" not in said


def _eps() -> bytes:
    picture = io.BytesIO()
    Image.new("L", (8, 8), 255).save(picture, "EPS")
    return picture.getvalue()


def _mask_is_eps(rows: list[dict[str, Any]]) -> None:
    rows[0].update(shape_type="mask", points=[[1, 1], [8, 8]], mask=base64.b64encode(_eps()).decode())


def _bitmap_is_eps(rows: list[dict[str, Any]]) -> None:
    data = base64.b64encode(zlib.compress(_eps())).decode()
    rows[0].update(geometryType="bitmap", bitmap={"data": data, "origin": [1, 1]})


@pytest.mark.parametrize(
    ("form", "spoil"),
    [
        ("labelme", rows_of(LABELME, _mask_is_eps, "shapes")),
        ("supervisely", rows_of(ANN, _bitmap_is_eps, "objects")),
    ],
)
def test_a_mask_for_which_pillow_would_start_another_program_is_left_out(
    form: str, spoil: Spoil, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **more: started.append(given))
    status, out, _ = import_spoilt(form, spoil, tmp_path, capsys)
    assert (status, started) == (0, []) and "cannot be read (1)" in out


def test_a_json_with_a_mark_in_utf16_and_without_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rewrite(root: Path) -> None:
        change(root / COCO, lambda content: [row.pop("height") for row in content["images"]] and None)
        (root / COCO).write_text((root / COCO).read_text(), "utf-16")

    status, out, _ = import_spoilt("cvat_coco", rewrite, tmp_path, capsys)
    assert status == 0 and "6 images" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere does not exist; give the folder that the tool exported"),
        (["."], "is no export of a form that is known (it holds no files)"),
        (["own.zip"], "own.zip is an archive; unpack it"),
        ([".", "--form", "coco"], "is no export of the form coco"),
        ([".", "--val", "2"], "--val 2.0 is no share of the images between 0 and 1"),
        (["own", "--stuff", "boxes"], "--stuff names 'boxes', which is no class of the export; did you mean 'box'"),
        (["own", "--stuff", "box", "--things", "box"], "'box' is both in --stuff and in --things"),
    ],
)
def test_mistakes_of_the_command_line(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "own" in arguments:
        EXPORTS["yolo"](Path("own"), scenes())
    elif "own.zip" in arguments:
        Path("own.zip").write_bytes(b"PK")
    assert main(["data", "import", *arguments, "--output", "made"]) == 2
    assert sentence in capsys.readouterr().err


def test_only_what_an_import_made_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EXPORTS["yolo"](tmp_path / "own", scenes())
    command = ["data", "import", str(tmp_path / "own"), "--output", str(tmp_path / "made")]
    assert [main(command), main(command), main([*command, "--overwrite"])] == [0, 2, 0]
    assert "made exists already; remove it, give --overwrite" in capsys.readouterr().err
    (tmp_path / "made/thesis.txt").write_text("years of work")
    assert main([*command, "--overwrite"]) == 2
    assert "holds other things than an import makes (thesis.txt)" in capsys.readouterr().err
    assert (tmp_path / "made/thesis.txt").is_file()
