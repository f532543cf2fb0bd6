"""Every row of the zoo: it builds, segments a photograph, and comes back whole from a file. And what rows cost."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import knet
from knet.cli.main import main
from knet.inference.cost import cost, table_row
from knet.inference.load import describe_official, segmenter_for
from knet.models.zoo import ZOO, entry

PHOTO = Path(knet.__file__).parent / "assets" / "demo" / "highway_1.jpg"
LARGE = (
    "r101",
    "swinl",
    "swinb",
    "swint",
    "video-knet-r50",
    "cityscapes-step",  # networks of other rows
    "vipseg",
    "mapillary",
    "rtknet-cityscapes",
    "rt-video-knet-kitti-step",
    "knet-r50-coco-instance",
    "fcn",
    "pspnet",
    "deeplabv3",
    "upernet-r50",
    "knet-r50-cityscapes-panoptic",
)  # of the dilated ones, one family after the other stands for all
ROWS = [
    pytest.param(name, marks=[pytest.mark.large] if any(word in name for word in LARGE) else [])
    for name in ZOO
    if entry(name).task != "clip"  # see test_clip.py
]


@pytest.mark.parametrize("name", ROWS)
def test_builds_segments_a_photograph_and_comes_back_from_a_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, image = knet.create(name), np.array(Image.open(PHOTO).convert("RGB").resize((128, 96)))
    expected = segmenter_for(net, describe_official(name), size=64)(image)
    # As somebody's own training would save it: names of tensors alone.
    source, target = tmp_path / "weights.pth", tmp_path / "knet.safetensors"
    torch.save({"state_dict": net.state_dict()}, source)
    card = knet.convert(source, target, name)
    assert (card.task, card.merge) == (entry(name).task, entry(name).merge)
    source.unlink()
    segmenter = knet.load(target, device="cpu", precision="fp32", size=64)
    assert (segmenter.name, segmenter.task) == (name, entry(name).task)
    found = segmenter(image)
    assert found.id_map.shape == (96, 128)
    assert found.segments == expected.segments
    assert (found.id_map == expected.id_map).all()


def test_what_a_model_costs() -> None:
    name = "knet-r50-coco-instance"
    counted, net = cost(name), knet.create(name)
    assert counted.parameters == sum(p.numel() for p in net.parameters())
    height, width = counted.size
    assert height == entry(name).preprocessing.short_edge
    total = 0

    def convolution(module: torch.nn.Conv2d, _: object, out: torch.Tensor) -> None:
        nonlocal total
        total += 2 * out[0].numel() * module.weight[0].numel()

    for module in net.eval().modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(convolution)
    small = (1, 3, 64, 96)
    with torch.no_grad():
        net(torch.zeros(small))
    padded = -(-height // 32) * 32 * -(-width // 32) * 32
    assert 1 <= counted.flops / (total * padded / (64 * 96)) < 1.2  # the rest are kernels and attention


def test_deformable_convolutions_are_counted() -> None:
    plain, deformable = cost("knet-r101-coco-instance"), cost("knet-r101dcn-coco-instance")
    # All that differs are the small convolutions that predict where to look.
    assert plain.flops < deformable.flops < 1.05 * plain.flops
    assert plain.size == deformable.size == (800, 1067)


@pytest.mark.parametrize(
    "names",
    [
        ["rtknet-lite-street", "rt-video-knet-lite-kitti-step", "knet-r50-coco-instance"],
        pytest.param(knet.models(), marks=pytest.mark.large),
    ],
    ids=["some", "all"],
)
def test_the_stored_table_is_that_of_the_networks(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """After a change: python benchmarks/model_table.py"""
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == knet.models()
    assert [rows[name] for name in names] == [table_row(name) for name in names]


def test_the_list_has_every_row_of_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "knet-r50-*", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == {
        "knet-r50-cityscapes-panoptic",
        "knet-r50-coco-panoptic",
        "knet-r50-coco-instance",
        "knet-r50-cityscapes-step",
    }
    assert [row["parameters"] for row in rows if row["task"] == "instance"] == [37_482_368]
    assert all(row["gflops"] > 100 for row in rows)
    assert main(["models", "knet-r50-coco-*"]) == 0
    shown = capsys.readouterr().out
    assert "val PQ (1x) 44.3, val PQ (3x) 47.1" in shown
    assert "37.5 M" in shown
    coco = [f"knet-{b}-coco-panoptic" for b in ("r50", "r101", "r101dcn", "swinl")]
    coco += [f"knet-{b}-coco-instance" for b in ("r50", "r101", "r101dcn")]
    heads = ("fcn-r50", "pspnet-r50", "deeplabv3-r50", "upernet-r50", "upernet-swint", "upernet-swinl")
    ade = [f"knet-{head}-ade20k" for head in (*heads, "upernet-swinl640")]
    assert set(coco + ade) <= set(knet.models())
    assert all(entry(name).published for name in coco + ade)
