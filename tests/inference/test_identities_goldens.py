"""From the official Video K-Net's stored outputs to its maps of segments, classes and tracks, faults included."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from knet.data.categories import load_categories
from knet.inference.engines.network import TorchEngine
from knet.inference.identities import VideoState
from knet.inference.load import describe_official
from knet.inference.segmenter import Segmenter
from knet.inference.settings import Settings
from knet.models.network import Network
from knet.structures import Output

CASES = {  # the others hold a part of the masks only
    "vk_r50_eval_seed1_128x384.npz": "kitti_step",
    "vk_r50_eval_seed26_120x372.npz": "kitti_step",
    "vk_r50_eval_seed5_128x384.npz": "kitti_step",
}


class Replay(Network):
    """A network that says what the golden's said."""

    embeds = True

    def __init__(self, golden: Any, stuff: list[int]):
        super().__init__()
        self.golden, self.stuff, self.frame = golden, stuff, -1

    def forward(self, images: Tensor, previous: Tensor | None = None) -> list[Output]:
        self.frame += 1
        if self.frame:
            assert previous is not None
            assert torch.equal(previous[0], self.stored("s2_object_feats", self.frame - 1))
        kernels = self.stored("s2_object_feats")[None]
        linked = self.stored("linked_feats")[None] if self.frame else None
        masks, features = self.stored("s2_mask_logits")[None], torch.zeros(1, 1, 1, 1)
        first = Output(kernels, masks, None, features, self.stored("seg_logits")[None])
        return [first, Output(kernels, masks, self.stored("s2_cls_logits")[None], features, linked=linked)]

    def embed(self, kernels: Tensor) -> Tensor:
        assert torch.equal(kernels, self.stored("thing_kernels"))  # the right ones, in the original's order
        return self.stored("track_embeds")

    def stored(self, name: str, frame: int | None = None) -> Tensor:
        return torch.from_numpy(self.golden[f"f{self.frame if frame is None else frame}_{name}"])


@pytest.mark.parametrize("name", CASES)
def test_official_maps(goldens: Any, name: str) -> None:
    golden = np.load(goldens.file("video_knet", name))
    categories = load_categories(CASES[name])
    stuff = [label for label, category in enumerate(categories) if not category.thing]
    net = Replay(golden, stuff)
    settings = Settings(size="image", score=0.25, overlap=0.6)
    segmenter = Segmenter(TorchEngine(net), describe_official("video-knet-r50-kitti-step"), settings, True)
    frames = json.loads(bytes(golden["info"]))["frames"]
    state, ever_shifted = VideoState(), False
    for number, info in enumerate(frames):
        if f"f{number}_s2_mask_logits" not in golden:  # later frames hold a part of the masks
            break
        image = golden["images"][number]
        result, state = segmenter.segment_next(image, state, number)
        panoptic = golden[f"f{number}_panoptic"]
        void = (panoptic == 0) & (golden[f"f{number}_semantic"] == result.semantic_map())
        assert ((result.id_map != panoptic) & ~void).sum() <= 10
        assert (result.semantic_map() != golden[f"f{number}_semantic"]).sum() <= 10
        tracks = np.zeros(image.shape[:2], np.int64)
        for segment in result.segments:
            tracks[result.id_map == segment.id] = segment.track or 0
        assert (tracks != golden[f"f{number}_track"]).sum() <= 10
        scores = [s.score for s in result.segments if s.thing]
        assert np.allclose(scores, [s["score"] for s in info["segments"] if s["isthing"]], atol=1e-6)
        assert (state.tracks.given if state.tracks else 0) >= tracks.max()  # type: ignore[union-attr]
        ever_shifted |= len(golden[f"f{number}_boxes_out"]) < len(golden[f"f{number}_boxes_in"])
    assert number >= 2
    assert ever_shifted
