"""Ten tools' exports of the same scenes: every object comes out, under its class, where it was drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from drawn_exports import EXPORTS, Scene, cvat_coco, scenes, yolo
from knet.data.make.from_export import Imported, import_export
from knet.data.readers.coco_instances import CocoInstances
from knet.data.readers.coco_panoptic import CocoPanoptic
from knet.structures import Sample


def imported(form: str, folder: Path, drawn: list[Scene], **options: object) -> Imported:
    (folder / form).mkdir()
    EXPORTS[form](folder / form, drawn)
    return import_export(folder / form, folder / "made", **options)


def samples(made: Imported, split: str) -> list[tuple[str, Sample, list[str]]]:
    """Of each image of a split the name of its scene, what a reader gives, and the names of the classes."""
    images, folder = made.output / "images" / split, made.output / split
    if made.kind == "panoptic":
        reader: CocoPanoptic | CocoInstances = CocoPanoptic(images, folder / "panoptic.json", folder / "panoptic")
    else:
        reader = CocoInstances(images, folder / "instances.json")
    rows = json.loads((folder / f"{made.kind}.json").read_text())["images"]
    named = {str(row["id"]): Path(row["file_name"]).stem for row in rows}
    names = [category.name for category in reader.categories]
    return [(named[reader.name(n)], reader.read(n), names) for n in range(len(reader))]


@pytest.mark.parametrize("form", EXPORTS)
def test_every_object_comes_out_where_it_was_drawn(form: str, tmp_path: Path) -> None:
    drawn = scenes()
    made = imported(form, tmp_path, drawn)
    assert [report.errors for report in made.reports] == [0] * len(made.images)
    assert sum(made.images.values()) == len(drawn) and made.images["train"] and made.images["val"]
    truth = {Path(scene.name).stem: scene for scene in drawn}
    for split in made.images:
        for name, sample, names in samples(made, split):
            scene = truth.pop(name)
            assert sample.image.shape[:2] == scene.image.size[::-1]
            found = {
                names[segment.label]: (sample.id_map == segment.id).reshape(-1, *sample.image.shape[:2]).any(0)
                for segment in sample.segments
                if not segment.crowd
            }
            assert found.keys() - {"floor"} == {one.label for one in scene.objects}
            for one in scene.objects:
                both = (found[one.label] & one.mask).sum() / (found[one.label] | one.mask).sum()
                assert both > 0.8, (form, name, one.label)  # tools draw the edge of a polygon in or out
    assert not truth


def test_cvats_brush_masks_are_objects_and_said(tmp_path: Path) -> None:
    made = imported("cvat_coco", tmp_path, scenes())
    assert any("iscrowd 1 count as objects, since CVAT marks its brush masks so (6)" in line for line in made.remarks)
    assert not any(count.crowds for report in made.reports for count in report.classes)


def test_true_crowds_of_coco_stay_crowds(tmp_path: Path) -> None:
    cvat_coco(tmp_path / "own", scenes())
    path = tmp_path / "own/annotations/instances_default.json"
    content = json.loads(path.read_text())
    for row in content["annotations"]:
        del row["attributes"]
    path.write_text(json.dumps(content))
    made = import_export(tmp_path / "own", tmp_path / "made")
    assert sum(count.crowds for report in made.reports for count in report.classes) == 6


def test_roboflows_placeholder_is_no_class_even_if_a_class_is_called_so(tmp_path: Path) -> None:
    made = imported("roboflow_coco", tmp_path, scenes())
    assert [count.name for count in made.reports[0].classes] == ["box", "disc"]
    assert any(line.startswith("left out: placeholder classes") for line in made.remarks)
    assert made.images == {"train": 2, "val": 2, "test": 2}


def test_a_share_divides_anew_what_the_export_has_divided(tmp_path: Path) -> None:
    made = imported("roboflow_coco", tmp_path, scenes(), val=0.25)
    assert made.images == {"train": 3, "val": 1, "test": 2}


def test_stuff_makes_panoptic_data_and_says_who_is_on_top(tmp_path: Path) -> None:
    drawn = scenes()
    height, width = drawn[0].objects[0].mask.shape
    carpet = drawn[0].objects[0]._replace(label="box", polygon=[0, 0, width, 0, width, height, 0, height])
    drawn = [scene._replace(objects=[carpet, scene.objects[1]]) for scene in drawn]
    made = imported("label_studio_coco", tmp_path, drawn, stuff=["box"])
    assert made.kind == "panoptic"
    assert any("where objects overlap, the smaller one is on top" in line for line in made.remarks)
    assert [(count.name, count.thing) for count in made.reports[0].classes] == [("box", False), ("disc", True)]


def test_regions_of_a_mask_are_the_objects_of_things(tmp_path: Path) -> None:
    made = imported("color_masks", tmp_path, scenes(), things=["box"])
    assert [(count.name, count.thing) for count in made.reports[0].classes] == [
        *(("floor", False), ("box", True), ("disc", False)),
    ]
    assert any("connected regions count as objects" in line for line in made.remarks)


def test_overlaps_of_instances_are_counted_and_kept(tmp_path: Path) -> None:
    drawn = [
        scene._replace(objects=[one._replace(label=label) for one in scene.objects[:1] for label in ("box", "disc")])
        for scene in scenes()
    ]
    made = imported("yolo", tmp_path, drawn)
    assert any("objects overlap, which COCO instances keeps" in line for line in made.remarks)


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    yolo(tmp_path / "own", scenes())
    texts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        import_export(tmp_path / "own", tmp_path / name, val=0.3, seed=seed)
        texts.append((tmp_path / name / "val/instances.json").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_pictures_of_one_name_in_two_folders_stay_two(tmp_path: Path) -> None:
    drawn = scenes(4)
    for folder in ("ds1", "ds2"):
        EXPORTS["supervisely"](tmp_path / "own" / folder, drawn[:2] if folder == "ds1" else drawn[2:])
    meta = tmp_path / "own/ds1/meta.json"
    meta.rename(tmp_path / "own/meta.json")
    for path in sorted((tmp_path / "own/ds2/ds 0").rglob("00*")):
        path.rename(path.with_name(path.name.replace("002", "000").replace("003", "001")))
    made = import_export(tmp_path / "own", tmp_path / "made")
    assert sum(made.images.values()) == 4
    held = [np.asarray(sample.image) for split in made.images for _, sample, _ in samples(made, split)]
    assert len({image.tobytes() for image in held}) == 4
