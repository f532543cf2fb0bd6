"""Whole networks with official weights, frame after frame: what the original code of Video K-Net saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import knet
from knet.data.readers.kitti_step import read_step_png
from knet.inference.identities import VideoState
from knet.inference.results.track_writers import TrackWriter
from knet.inference.sources.streams import Frame
from knet.inference.sources.videos import Item

R50, SWIN, VIPSEG = "video-knet-r50-kitti-step", "video-knet-swinb-kitti-step", "video-knet-r50-vipseg"
VIDEOS = [
    pytest.param(R50, "r50", "vk_r50_eval_seed26_120x372"),
    pytest.param(R50, "r50", "vk_r50_eval_seed1_128x384", marks=pytest.mark.large),
    pytest.param(R50, "r50", "vk_r50_eval_seed5_128x384", marks=pytest.mark.large),
    pytest.param(SWIN, "swinb", "vk_swinb_eval_seed32_128x384", marks=pytest.mark.large),
    pytest.param(VIPSEG, "vipseg_r50", "vk_vipseg_r50_eval_seed41_128x384", marks=pytest.mark.large),
]
IMAGES = [
    "knet_citystep_r50_seed112_120x250",
    pytest.param("knet_citystep_r50_seed111_128x256", marks=pytest.mark.large),
]
PIXELS = 10  # of a map may differ: the README of the goldens


@pytest.fixture(autouse=True)
def _two_threads() -> Any:
    """Sums in another order can move a pixel over the hard edge of a mask, which later stages magnify."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def written_classes(segmenter: Any) -> np.ndarray:
    """Category id -> the number that Video K-Net writes: of KITTI-STEP the id, of VIPSeg its place, stuff first."""
    ids = [category.id for category in segmenter.categories]
    order = sorted(segmenter.categories, key=lambda category: (category.thing, category.id))
    ranks = {category.id: place for place, category in enumerate(order)}
    return np.array([ranks.get(i, -1) if segmenter.name == VIPSEG else i for i in range(max(ids) + 1)])


@pytest.mark.parametrize(("model", "manifest", "name"), VIDEOS, ids=lambda value: value if "seed" in value else "")
def test_every_frame_as_saved(
    goldens: Any, official_checkpoint: Any, tmp_path: Path, model: str, manifest: str, name: str
) -> None:
    golden = np.load(goldens.file("video_knet", f"{name}.npz"))
    info = json.loads(bytes(golden["info"]))
    weights = official_checkpoint(f"manifest_{manifest}.json", info["seed"], "video_knet")
    segmenter = knet.load(model, weights=weights, device="cpu", size="image", compatible=True)
    writer = TrackWriter(tmp_path, ["step"], segmenter.categories)
    classes, state, dropped = written_classes(segmenter), VideoState(), 0
    for number, told in enumerate(info["frames"]):
        image = golden["images"][number]
        stored = {name: golden[f"f{number}_{name}"] for name in ("panoptic", "semantic", "track")}
        result, state = segmenter.segment_next(image, state, told["frame_id"])

        void = stored["panoptic"] == 0  # written as road, or as the wall of VIPSeg
        assert ((result.id_map != stored["panoptic"]) & ~void).sum() <= PIXELS
        rows = result.segments[: len(told["segments"])]
        assert [s.id for s in rows] == [s["id"] for s in told["segments"]]
        assert [s.thing for s in rows] == [s["isthing"] for s in told["segments"]]
        scores = [s.score for s in rows if s.thing]
        assert np.allclose(scores, [s["score"] for s in told["segments"] if s["isthing"]], rtol=0, atol=1e-4)
        given = golden[f"f{number}_ids_final"].tolist()  # shorter where duplicates were dropped, and read by position
        assert [s.track or 0 for s in rows if s.thing] == given + [0] * (len(scores) - len(given))
        dropped += len(scores) - len(given)
        kernels = torch.from_numpy(golden[f"f{number}_s2_object_feats"])
        assert (state.kernels[0] - kernels).abs().max() < 2e-4

        writer.write(result, Frame(Item(image, "frame"), "clip", number, number, not number))
        written, numbers = read_step_png(tmp_path / "panoptic" / "clip" / f"{number:06d}.png")
        assert (classes[written] != stored["semantic"]).sum() <= PIXELS
        assert (numbers != stored["track"]).sum() <= PIXELS
        assert set(np.unique(numbers)) == set(np.unique(stored["track"]))
    assert dropped and stored["track"].any()


@pytest.mark.parametrize("name", IMAGES)
def test_the_image_model_that_the_video_model_starts_from(goldens: Any, official_checkpoint: Any, name: str) -> None:
    golden = np.load(goldens.file("video_knet", f"{name}.npz"))
    info = json.loads(bytes(golden["info"]))
    weights = official_checkpoint("manifest_knet_citystep_r50.json", info["seed"], "video_knet")
    segmenter = knet.load("knet-r50-cityscapes-step", weights, device="cpu", size="image", compatible=True)
    result = segmenter.segment(golden["image"])
    assert (result.id_map != golden["panoptic"]).sum() <= PIXELS
    assert [s.id for s in result.segments] == [s["id"] for s in info["segments"]]
    stuff = [category.id for category in segmenter.categories if not category.thing]
    things = [category.id for category in segmenter.categories if category.thing]
    for ours, theirs in zip(result.segments, info["segments"], strict=True):
        assert ours.thing == theirs["isthing"]
        if ours.thing:
            assert ours.category == things[theirs["category_id"]]
            assert abs(ours.score - theirs["score"]) < 1e-4
        else:
            assert ours.category == stuff[theirs["category_id"] - 1]
            assert abs(ours.area - theirs["area"]) <= PIXELS
