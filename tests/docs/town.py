"""A folder in which the commands of the documents make sense: small pictures, films, data sets and weights."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fake_video import filmed
from pages import ROOT, blocks_of
from PIL import Image

from drawn_exports import EXPORTS, scenes
from drawn_yard import make_yard
from knet.cli.main import main
from knet.data.categories import load_categories, package_table
from knet.data.make.from_labels import labels_to_panoptic
from knet.models.clip import ClipKNet
from knet.models.image import KNet
from knet.models.realtime import RTKNet
from knet.models.semantic import KNetSemantic
from knet.models.video import RTVideoKNet, VideoKNet
from knet.models.zoo import ZOO, create
from knet.weights.released import RELEASED

DEMO = ROOT / "src/knet/assets/demo"
_RT = {"width": 8, "head_width": 16, "channels": 16, "stages": 2}
_IMAGE = {"backbone": "timm/resnet10t", "stages": 1, "kernels": 60, "channels": 32}
_SEMANTIC = {"backbone": "timm/resnet10t", "channels": 16, "update_channels": 8, "hidden": 32}
SMALL = {RTKNet: _RT, RTVideoKNet: _RT, KNet: _IMAGE, VideoKNet: _IMAGE, ClipKNet: _IMAGE, KNetSemantic: _SEMANTIC}


def shrink_the_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives every model few channels and small images, but for those on EfficientNet-Lite, which are light enough."""
    for name, row in ZOO.items():
        if "lite" in name:
            continue
        seen = replace(row.preprocessing, short_edge=64, max_edge=128)
        monkeypatch.setitem(
            ZOO, name, replace(row, arguments={**row.arguments, **SMALL[row.build]}, preprocessing=seen)
        )


def save_published(path: Path, model: str, **arguments: Any) -> None:
    """Weights of a model as its authors publish them: a file that does not say what it is of."""
    torch.manual_seed(0)
    net = create(model, **arguments)
    if "coco-panoptic" in model:  # sure of the road and the sky, so that labels are made
        sure = [label for label, row in enumerate(load_categories("coco_panoptic")) if row.name in SURE]
        bias = net.decoder.stages[-1].to_class[-1].bias
        if len(bias) > max(sure):
            with torch.no_grad():
                bias.zero_()[sure] = 4.0
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": net.state_dict()}, path)


SURE = ("road", "sky-other-merged")


def save_weights_of_the_pages() -> None:
    """The files of weights that commands name."""
    for name, model, arguments in (
        ("rtknet_cityscapes.pth", "rtknet-cityscapes", {}),
        ("knet_swinl_coco.pth", "knet-swinl-coco-panoptic", {}),
        ("video_knet_vipseg_r50.pth", "video-knet-r50-vipseg", {}),
        ("video_knet_step_r50.pth", "video-knet-r50-kitti-step", {}),
        ("knet_s3_r50_fpn_1x_coco-panoptic_20211017_151750-395fbcba.pth", "knet-r50-coco-panoptic", {}),
        ("upernet.pth", "knet-upernet-r50-ade20k", {"channels": 24}),
        ("yard.pth", "knet-r50-coco-panoptic", {"classes": 3, "stuff": (0, 1)}),
        ("ade20k.pth", "knet-fcn-r50-ade20k", {}),
        ("youtube_vis.pth", "video-knet-r50-youtube-vis", {}),
        ("slim.pth", "rtknet-slim-camvid", {}),
    ):
        save_published(Path(name), model, **arguments)
    torch.save(create("knet-r50-coco-panoptic").backbone.state_dict(), "resnet50-0676ba61.pth")
    run("convert", "slim.pth", "slim.safetensors", "--model", "rtknet-slim-camvid")


def draw_photos() -> None:
    """street.jpg, drive.mp4, photos/, frames/ without one, and the frames of a fleet."""
    pictures = [Image.open(path).convert("RGB").resize((192, 108)) for path in sorted(DEMO.glob("*.jpg"))]
    for folder in ("photos", "frames", "more", "fleet/images/train", "fleet/images/val"):
        Path(folder).mkdir(parents=True)
    pictures[2].save("street.jpg")
    for number, picture in enumerate(pictures[:3]):
        picture.save(f"photos/{number}.jpg")
        picture.save(f"more/{number}.jpg")
        picture.save(f"fleet/images/{'train' if number else 'val'}/{number}.png")
    Image.linear_gradient("L").resize((192, 108)).point(lambda value: value // 4).convert("RGB").save(
        "fleet/images/train/night.png"
    )  # in which nothing is found
    for number in (1, 2, 4, 5):
        pictures[2].save(f"frames/{number:06}.png")
    filmed(Path("drive.mp4"), [np.array(pictures[2])] * 3)
    shutil.copytree("frames", "CLIP_FOLDER")


def draw_camvid(root: Path) -> None:
    """Pictures with CamVid's label PNGs, and cars of which some are too small."""
    rng = np.random.default_rng(0)
    value = {row["name"]: row["label_value"] for row in package_table("camvid")["categories"]}
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in range(8 if split == "train" else 3):
            labels = np.full((64, 96), value["Road"], np.uint8)
            labels[:20] = value["Sky"]
            for place, name in enumerate(value):
                labels[18:24, 8 * place : 8 * place + 8] = value[name]
            for name, left in (("Car", 4), ("Pedestrian", 36), ("Bicyclist", 68)):
                labels[24 + number : 44, left : left + 16] = labels[60:62, left : left + 2] = value[name]
            Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)).save(root / "images" / split / f"{number}.png")
            Image.fromarray(labels).save(root / "labels" / split / f"{number}.png")


def draw_mixture(root: Path) -> None:
    """The two sets of mixtures.md: CamVid, and a fleet's images with other names of classes."""
    for path in Path("camvid/images/train").iterdir():
        shutil.copy(path, root / "camvid/images")
    shutil.copytree("camvid/images/val", root / "camvid/val/images")
    shutil.copy(root / "camvid/train/panoptic.json", root / "camvid/panoptic.json")
    shutil.copytree(root / "camvid/train/panoptic", root / "camvid/panoptic")
    shutil.copytree("camvid/images/train", root / "fleet/images")
    shutil.copytree(root / "camvid/panoptic", root / "fleet/panoptic")
    for path in root.glob("fleet/*/*.png"):
        path.rename(path.with_name(f"202{4 + int(path.stem) // 4}_{path.name}"))
    content = json.loads((root / "camvid/panoptic.json").read_text())
    others = {"Car": "bus", "Pedestrian": "truck", "Tree": "terrain"}
    content["categories"] = [{**row, "name": others.get(row["name"], row["name"])} for row in content["categories"]]
    for row in [*content["images"], *content["annotations"]]:
        row["file_name"] = f"202{4 + int(Path(row['file_name']).stem) // 4}_{row['file_name']}"
        row["id" if "id" in row else "image_id"] = Path(row["file_name"]).stem
    (root / "fleet/panoptic.json").write_text(json.dumps(content))


def draw_coco(root: Path) -> None:
    """Panoptic COCO with street scenes in its names, and instances of the same."""
    names = {
        "Sky": "sky-other-merged",
        "Building": "house",
        "Pole": "fence-merged",
        "Road": "road",
        "Tree": "tree-merged",
    }
    names |= {"Pavement": "pavement-merged", "SignSymbol": "stop sign", "Fence": "wall-brick", "Car": "car"}
    names |= {"Pedestrian": "person", "Bicyclist": "bicycle"}
    table = {row.name: row for row in load_categories("coco_panoptic")}
    for split in ("train", "val"):
        shutil.copytree(Path("camvid/images", split), root / f"{split}2017")
        masks = root / f"annotations/panoptic_{split}2017"
        shutil.copytree(Path("data/camvid", split, "panoptic"), masks)
        content = json.loads(Path("data/camvid", split, "panoptic.json").read_text())
        ids = {row["id"]: table[names[row["name"]]].id for row in content["categories"] if row["name"] in names}
        for annotation in content["annotations"]:
            for segment in annotation["segments_info"]:
                segment["category_id"] = ids[segment["category_id"]]
        content["categories"] = [{"id": row.id, "name": row.name, "isthing": int(row.thing)} for row in table.values()]
        masks.with_suffix(".json").write_text(json.dumps(content))


def draw_ade20k(root: Path) -> None:
    """Pictures with label PNGs of ADE20K's scene parsing."""
    rng = np.random.default_rng(0)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)).save(root / "images" / split / f"{number}.jpg")
            Image.fromarray(rng.integers(0, 5, (64, 96), np.uint8)).save(root / "annotations" / split / f"{number}.png")


def draw_instances(path: Path) -> None:
    """COCO instances of the pictures in img/."""
    corners = {1: [0, 0, 96, 0, 96, 24, 0, 24], 2: [0, 24, 96, 24, 96, 64, 0, 64], 3: [10, 30, 40, 30, 40, 50, 10, 50]}
    images = [{"id": n, "file_name": f"{n}.png", "height": 64, "width": 96} for n in range(3)]
    rows = [
        {"id": 10 * image["id"] + kind, "image_id": image["id"], "category_id": kind, "segmentation": [polygon]}
        for image in images
        for kind, polygon in corners.items()
    ]
    names = [{"id": kind, "name": name} for kind, name in enumerate(("sky", "road", "car"), start=1)]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": names}))


def write_config(path: Path) -> None:
    """A config of one's own: the published one of a model, on few and small pictures."""
    table = yaml.safe_load((ROOT / "configs/rtknet-slim-camvid.yaml").read_text())
    table |= {"iterations": 2, "batch": 2, "workers": 0, "validate_every": 2, "short_edge": 64, "max_edge": 128}
    table |= {"augment": {"short_edges": [64], "crop": [64, 64]}, "output": "runs/mine"}
    path.write_text(yaml.safe_dump(table))


def run(*words: str) -> None:
    """A command that has to succeed."""
    assert main(list(words)) == 0, words


def build() -> None:
    """Everything, in the folder in which the process is."""
    Path("configs").symlink_to(ROOT / "configs")
    draw_photos()
    for name, write in EXPORTS.items():
        write(Path("exports", name), scenes())
    (table,) = (block.text for block in blocks_of(ROOT / "docs/custom-data.md") if block.kind == "json")
    make_yard(Path("yard"), {"train": 3, "val": 2}, (48, 64), table)
    draw_camvid(Path("camvid"))
    for split in ("train", "val"):
        labels_to_panoptic(
            Path("camvid/images", split), Path("camvid/labels", split), Path("data/camvid", split), "camvid"
        )
    shutil.copytree("camvid/images", "data/camvid/images")
    draw_mixture(Path("data"))
    draw_coco(Path("data/coco"))
    draw_ade20k(Path("data/ADEChallengeData2016"))
    for form, folder in (("cityscapes", "data/cityscapes"), ("mapillary", "data/mapillary_vistas")):
        run("data", "synth", form, folder, "--images", "4", "--size", "96x192")
        run("data", "prepare", form, folder)
    for form, folder in (("step", "data/kitti-step"), ("youtube-vis", "data/youtube_vis_2019")):
        run("data", "synth", form, folder, "--clips", "3", "--frames", "4", "--size", "64x128")
    shutil.copytree("data/coco/val2017", "coco/val2017")
    shutil.copytree("data/coco/annotations", "annotations")
    shutil.copytree("data/camvid/images/val", "img")
    shutil.copytree("data/camvid/val/panoptic", "panoptic")
    shutil.copy("data/camvid/val/panoptic.json", "panoptic.json")
    Path("table.json").write_text(json.dumps(package_table("camvid")))
    draw_instances(Path("instances.json"))
    for name in ("validation", "semantic"):
        shutil.copytree("data/mapillary_vistas/validation/labels", f"{name}/labels" if name == "validation" else name)
    write_config(Path("my.yaml"))
    for name in ("gt", "pred"):
        shutil.copytree("data/camvid/val/panoptic", name)
        shutil.copy("data/camvid/val/panoptic.json", f"{name}.json")
    save_weights_of_the_pages()


@contextmanager
def served_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Published weights, of the small networks, come from a server on this machine in the place of the authors'."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        for model, released in RELEASED.items():
            if released.url:
                name = f"{model}.pth" if "drive.google" in released.url else Path(released.url).name
                save_published(folder / name, model)
                digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
                url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
                monkeypatch.setitem(RELEASED, model, replace(released, url=url, sha256=digest))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass
