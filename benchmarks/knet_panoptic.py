"""K-Net R-50 panoptic, from an image to its segments at 800x1333: this package against a plain way, with equal weights.

    python benchmarks/knet_panoptic.py                       # 5 rounds on 2 threads: about two minutes, 4 GB of memory
    python benchmarks/knet_panoptic.py --rounds 1            # to see that it runs
    python benchmarks/knet_panoptic.py --image street.jpg    # another image, resized to 800x1333

The plain way predicts masks image by image with a convolution by the kernels, gathers features with an einsum, resizes
all masks at once as often as the official code does, and merges in a loop, mask by mask. Weights are random, of the
statistics that the goldens were made with, and the thresholds are low, so that some tens of segments stay. The two ways
take turns in one process. Prints milliseconds and ratios.

Fails if the two mergings of one and the same network output differ in a pixel or a segment, or if the whole results
differ in a segment's class or in more than 0.1 % of the pixels. Whole results cannot be equal to the bit: layers that
add up in another order round differently, and K-Net's features gathered under hard masks magnify that. With random
weights the magnification depends on the seed; as with the goldens, one was chosen with which it is small.
"""

import argparse
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import knet
from knet.inference.results.segmentation import Segmentation
from knet.inference.segmenter import Segmenter
from knet.models.image import KNet
from knet.models.zoo import create
from knet.structures import Output

HEIGHT, WIDTH = 800, 1333
MODEL = "knet-r50-coco-panoptic"
ROOT = Path(__file__).parents[1]
PARTS = ("preparing", "network", "masks and merging")
Row = tuple[int, int, float, int]  # id, label, score, area


class Plain:
    """The official code's steps, one after the other, with the layers of this package and PyTorch's default layout."""

    def __init__(self, net: KNet, segmenter: Segmenter):
        self.net = net.eval()
        self.preprocessing = segmenter.preprocessing
        self.things = [category.thing for category in segmenter.categories]
        self.score, self.overlap = segmenter.score, segmenter.overlap

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, list[Row], list[float]]:
        """(H,W,3) uint8 -> id map (H,W) int32, its segments, seconds of each of the PARTS."""
        times = [time.perf_counter()]
        inputs, resized = self.prepare(image)
        times.append(time.perf_counter())
        mask_logits, class_logits = self.network(inputs)
        times.append(time.perf_counter())
        scores, labels = self.classes(class_logits[0])
        masks = self.resize(mask_logits, inputs.shape[2:], resized, image.shape[:2])
        id_map, rows = self.merge(masks, scores, labels)
        times.append(time.perf_counter())
        return id_map, rows, np.diff(times).tolist()

    def prepare(self, image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """(H,W,3) uint8 -> (1,3,h,w) float32 normalised and padded, the size before padding."""
        p = self.preprocessing
        normal = (image.astype(np.float32) - np.float32(p.mean)) / np.float32(p.std)
        height, width = image.shape[:2]
        padded = np.zeros((-(-height // p.divisor) * p.divisor, -(-width // p.divisor) * p.divisor, 3), np.float32)
        padded[:height, :width] = normal
        return torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[None], (height, width)

    def network(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B,3,H,W) -> the last stage's mask logits (B,N,h,w), class logits (B,N,K)"""
        net = self.net
        localization, semantics = net.pyramid(net.neck(net.backbone(images)))
        localization, semantics = net.to_localization(localization), net.to_semantics(semantics)
        features = localization + semantics
        kernels = net.decoder.kernels.expand(len(images), -1, -1)
        mask_logits = self.masks(kernels, localization)
        kernels = kernels + self.grouped(mask_logits, features)
        stuff = net.semantic.weight.flatten(1)[net.stuff].expand(len(images), -1, -1)
        kernels = torch.cat((kernels, stuff), dim=1)
        mask_logits = torch.cat((mask_logits, net.semantic(semantics)[:, net.stuff]), dim=1)
        for stage in net.decoder.stages:
            x = stage.transform(features)
            kernels = stage.interaction(stage.update(self.grouped(mask_logits, x), kernels))
            class_logits, mask_logits = stage.to_class(kernels), self.masks(stage.to_mask(kernels), x)
        return mask_logits, class_logits

    def masks(self, kernels: Tensor, features: Tensor) -> Tensor:
        """Every image's features under its own 1x1 convolution. (B,N,C), (B,C,h,w) -> (B,N,h,w)"""
        each = [F.conv2d(features[i : i + 1], kernels[i, :, :, None, None]) for i in range(len(features))]
        return torch.cat(each)

    def grouped(self, mask_logits: Tensor, features: Tensor) -> Tensor:
        """Features summed where a mask's probability is above one half. (B,N,h,w), (B,C,h,w) -> (B,N,C)"""
        masks = (mask_logits.sigmoid() > 0.5).float()
        return torch.einsum("bnhw,bchw->bnc", masks, features)

    def classes(self, class_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and labels: things' best of the thing classes, each stuff kernel's own. (N,K) -> (N,), (N,)"""
        stuff, probabilities = self.net.stuff, class_logits.sigmoid()
        count = len(probabilities) - len(stuff)
        scores, labels = probabilities[:count, : stuff[0]].max(dim=1)
        own = probabilities[count:, stuff].diagonal()
        return torch.cat((scores, own)), torch.cat((labels, torch.tensor(stuff)))

    def resize(self, logits: Tensor, padded: Sequence[int], resized: Sequence[int], size: Sequence[int]) -> Tensor:
        """All masks at once, through every size on the way. (1,N,h,w) logits -> (N,H,W) 0..1 float32"""
        masks = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False).sigmoid()
        masks = F.interpolate(masks, tuple(padded), mode="bilinear", align_corners=False)
        masks = masks[:, :, : resized[0], : resized[1]]
        return F.interpolate(masks, tuple(size), mode="bilinear", align_corners=False)[0]

    def merge(self, masks: Tensor, scores: Tensor, labels: Tensor) -> tuple[np.ndarray, list[Row]]:
        """Best first, a boolean mask and three passes over the image each. (N,H,W), (N,), (N,) -> id map, segments"""
        owner = (scores[:, None, None] * masks).argmax(dim=0)
        id_map = torch.zeros(owner.shape, dtype=torch.int32)
        rows: list[Row] = []
        for index in scores.argsort(descending=True).tolist():
            label, score = int(labels[index]), float(scores[index])
            if self.things[label] and score < self.score:
                continue
            mask = owner == index
            area, whole = int(mask.sum()), int((masks[index] >= 0.5).sum())
            if area and whole and area / whole >= self.overlap:
                id_map[mask] = len(rows) + 1
                rows.append((len(rows) + 1, label, score, area))
        return id_map.numpy(), rows


class Clock:
    """When the network of a segmenter began and ended its last work."""

    def __init__(self, net: torch.nn.Module):
        self.begun = self.ended = 0.0
        net.register_forward_pre_hook(self._begin)
        net.register_forward_hook(self._end)
        self.last: Output | None = None

    def _begin(self, *_: Any) -> None:
        self.begun = time.perf_counter()

    def _end(self, _net: Any, _inputs: Any, outputs: list[Output]) -> None:
        self.ended, self.last = time.perf_counter(), outputs[-1]

    def segment(self, segmenter: Segmenter, image: np.ndarray) -> tuple[Segmentation, list[float]]:
        """The result and the seconds of each of the PARTS."""
        start = time.perf_counter()
        found = segmenter.segment(image)
        return found, np.diff([start, self.begun, self.ended, time.perf_counter()]).tolist()


def make_weights(path: Path, seed: int) -> None:
    """Weights by the goldens' rules as a checkpoint in the official form."""
    spec = importlib.util.spec_from_file_location("fill_weights", ROOT / "tests/goldens/fill_weights.py")
    assert spec is not None and spec.loader is not None
    rules = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rules)
    keys = json.loads((ROOT / "tests/goldens/knet/manifest_det_pan_r50.json").read_text())["keys"]
    torch.save({"state_dict": rules.fill_torch(keys, seed)}, path)


def load(seed: int, score: float, overlap: float) -> tuple[Segmenter, Plain]:
    """Both ways with the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        make_weights(Path(folder) / "weights.pth", seed)
        segmenter = knet.load(
            MODEL, Path(folder) / "weights.pth", device="cpu", merge="sorted", score=score, overlap=overlap
        )
    net = create(MODEL)
    net.load_state_dict(segmenter.net.state_dict())  # into PyTorch's default layout
    assert isinstance(net, KNet)
    return segmenter, Plain(net, segmenter)


def table(found: Segmentation) -> list[Row]:
    """Id, label, score and area of each segment."""
    label = {category.id: n for n, category in enumerate(found.categories)}
    return [(s.id, label[s.category], s.score, s.area) for s in found.segments]


@torch.inference_mode()
def compare_mergings(plain: Plain, found: Segmentation, last: Output) -> None:
    """Stops if the plain merging of our network's output is not our result: every pixel, class, score and area."""
    assert last.class_logits is not None
    scores, labels = plain.classes(last.class_logits[0])
    padded = [8 * side for side in last.mask_logits.shape[2:]]
    masks = plain.resize(last.mask_logits, padded, (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    id_map, rows = plain.merge(masks, scores, labels)
    assert np.array_equal(id_map, found.id_map), f"{(id_map != found.id_map).sum()} pixels differ in the mergings"
    assert rows == table(found), "segments differ in the mergings"


def take_turns(segmenter: Segmenter, plain: Plain, image: np.ndarray, rounds: int) -> None:
    """Runs both ways in turns, compares, prints."""
    clock = Clock(segmenter.net)
    found, _ = clock.segment(segmenter, image)  # the first time of each way is not counted
    assert clock.last is not None
    compare_mergings(plain, found, clock.last)
    id_map, rows, _ = plain(image)
    seconds = np.zeros((2, rounds, len(PARTS)))
    for number in range(rounds):
        id_map, rows, seconds[0, number] = plain(image)
        found, seconds[1, number] = clock.segment(segmenter, image)
    equal = float((id_map == found.id_map).mean())
    kinds = [[row[:2] for row in some] for some in (rows, table(found))]
    assert kinds[0] == kinds[1], f"other segments: {len(kinds[0])} the plain way, {len(kinds[1])} in knet"
    assert equal >= 0.999, f"only {100 * equal:.3f} % of the pixels are equal"
    print(f"{MODEL}, {WIDTH}x{HEIGHT}, {rounds} rounds, {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    print(f"{len(rows)} segments, the same in both; mergings of one output identical; of whole results ", end="")
    print(f"{100 * equal:.3f} % of the pixels")
    print(f"{'ms an image':20}{'plain':>9}{'knet':>9}{'ratio':>8}")
    for name, of_plain, of_ours in [*zip(PARTS, *seconds.mean(axis=1), strict=True), ("all", *seconds.sum(2).mean(1))]:
        print(f"{name:20}{1000 * of_plain:9.1f}{1000 * of_ours:9.1f}{of_plain / of_ours:8.2f}")
    each = seconds[0].sum(1) / seconds[1].sum(1)
    print(f"ratio of all by rounds: {each.min():.2f} to {each.max():.2f}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--image", type=Path, default=ROOT / "src/knet/assets/demo/highway_1.jpg")
    parser.add_argument("--seed", type=int, default=8, help="of the random weights")
    parser.add_argument("--score", type=float, default=0.05, help="threshold (published: 0.3)")
    parser.add_argument("--overlap", type=float, default=0.2, help="threshold (published: 0.6)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    image = np.asarray(Image.open(args.image).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    take_turns(*load(args.seed, args.score, args.overlap), image, args.rounds)


if __name__ == "__main__":
    main()
