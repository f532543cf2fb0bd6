"""From class logits to one class for each pixel: of whole images, sliding windows, and several views of one image.

As in mmsegmentation, logits are resized (bilinear, align_corners=False) to the network's input and then to the image
itself, where the probabilities of several views are averaged. Only a few classes are resized at a time, so a large
photograph in 150 classes needs no more memory than a small one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from knet.errors import ConfigError
from knet.merge.pixels.backend import backend
from knet.merge.pixels.stretch import stretch

# (B,3,H,W) network inputs -> (B,K,h,w) class logits of the last stage.
Predict = Callable[[Tensor], Tensor]
_VALUES_AT_ONCE = 2**25  # 128 MiB of float32


@dataclass(frozen=True, slots=True)
class ViewLogits:
    """The class logits of one view of an image: at one scale, mirrored or not."""

    logits: Tensor  # (K,h,w) of the last stage
    resized: tuple[int, int]  # height and width of the view, without padding
    original: tuple[int, int]  # height and width of the image itself
    flipped: bool = False  # whether the view is the mirror image

    def parts(self) -> Iterator[Tensor]:
        """The logits on the image's own pixels, a few classes at a time in label order: (k,H,W) float32 each."""
        pixels = max(math.prod(self.original), math.prod(self.resized))
        for part in self.logits.split(max(_VALUES_AT_ONCE // pixels, 1)):
            part = _stretch(part[None].float().contiguous(), self.resized)
            yield _stretch(part.flip(3) if self.flipped else part, self.original)[0]


def look(
    predict: Predict,
    inputs: Tensor,
    original: tuple[int, int],
    flip: bool = False,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
) -> list[ViewLogits]:
    """One view of an image, or two with that of its mirror image. (1,3,h,w) -> [ViewLogits, ...]

    `inputs` is normalised, without padding; `original` is the size of the image itself. Without a window the network
    sees the whole image at once, else see `sliding_logits`.
    """
    resized = (inputs.shape[2], inputs.shape[3])

    def see(images: Tensor) -> Tensor:
        return predict(images) if window is None else sliding_logits(predict, images, window, stride or window)

    views = [ViewLogits(see(inputs)[0], resized, original)]
    if flip:
        views.append(ViewLogits(see(inputs.flip(3))[0], resized, original, flipped=True))
    return views


def sliding_logits(predict: Predict, images: Tensor, window: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Class logits of windows that slide over the images, averaged where they overlap. (B,3,H,W) -> (B,K,H,W)

    All windows have the same size (height, width): the last one of a row or column is moved back into the image, and a
    window larger than the image is cut to it. `stride`: pixels from one to the next, down and to the right.

    Raises:
        ConfigError: a window of less than one pixel, or a stride that would skip pixels.
    """
    if min(window) < 1 or any(not 1 <= step <= side for step, side in zip(stride, window, strict=True)):
        raise ConfigError(
            f"A sliding window of {window} pixels cannot move by {stride}; give a window of at least 1 x 1 and a "
            "stride between 1 and the window's size."
        )
    count = torch.zeros(images.shape[2:], device=images.device)
    total = count
    for rows in _windows(images.shape[2], window[0], stride[0]):
        for columns in _windows(images.shape[3], window[1], stride[1]):
            part = images[:, :, rows, columns]
            logits = _stretch(predict(part).float(), (part.shape[2], part.shape[3]))
            if total is count:  # the first window shows how many classes there are
                total = logits.new_zeros(*logits.shape[:2], *images.shape[2:])
            total[:, :, rows, columns] += logits
            count[rows, columns] += 1
    return total / count


def best_classes(views: Sequence[ViewLogits]) -> tuple[Tensor, Tensor]:
    """The most probable class of every pixel, by the mean over all views. -> labels (H,W) int64, probabilities (H,W)

    On a tie the lower label wins. The probabilities are float32, 0 to 1. With one view the classes are compared by
    their logits, and the probability is that of the best class on the network's own grid, resized.
    """
    if len(views) == 1:
        logits = views[0].logits.float()
        to_image = stretch((logits.shape[1], logits.shape[2]), views[0].resized, views[0].original)
        alike, merging = torch.ones(len(logits), device=logits.device), backend(logits.device)
        labels, _, _ = merging.share_pixels(logits, alike, to_image, logits=False, count=False)
        return labels.long(), to_image(logits.softmax(dim=0).amax(dim=0)).float()
    top = torch.full(views[0].original, -torch.inf, device=views[0].logits.device)
    labels, first = torch.zeros_like(top, dtype=torch.int64), 0
    for part in mean_probabilities(views):
        value, index = part.max(dim=0)
        labels, top = torch.where(value > top, index + first, labels), torch.maximum(top, value)
        first += len(part)
    return labels, top


def mean_probabilities(views: Sequence[ViewLogits]) -> Iterator[Tensor]:
    """Class probabilities averaged over the views of an image, a few classes at a time in label order: (k,H,W) each."""
    totals = [_log_total(view) for view in views]
    for parts in zip(*(view.parts() for view in views), strict=True):
        mean = torch.zeros_like(parts[0])
        for part, total in zip(parts, totals, strict=True):
            mean += (part - total).exp_()
        yield mean / len(views)


def class_segments(
    labels: Tensor, probabilities: Tensor, score: float = 0.0
) -> tuple[Tensor, list[tuple[int, int, float]]]:
    """One segment a class in an image, numbered 1, 2, ... by label. (H,W) int64, (H,W) -> id map (H,W) int32, rows

    A row is a segment's id, label and score: the mean probability of its pixels. Those below `score` are void.
    """
    present, index, areas = labels.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(present), dtype=torch.float64, device=labels.device)
    sums.index_add_(0, index.flatten(), probabilities.flatten().double())
    scores = sums / areas
    kept = scores >= score
    numbers = (kept.cumsum(0) * kept).int()
    rows = zip(numbers[kept].tolist(), present[kept].tolist(), scores[kept].tolist(), strict=True)
    return numbers[index], list(rows)


def _log_total(view: ViewLogits) -> Tensor:
    """The logarithm of the softmax's denominator at each pixel. -> (H,W)"""
    total = torch.full(view.original, -torch.inf, device=view.logits.device)
    for part in view.parts():
        total = torch.logaddexp(total, part.logsumexp(dim=0))
    return total


def _windows(whole: int, window: int, stride: int) -> Iterator[slice]:
    """Where windows lie along a side of `whole` pixels."""
    window = min(window, whole)
    for number in range(-(-(whole - window) // stride) + 1):
        start = min(number * stride, whole - window)
        yield slice(start, start + window)


def _stretch(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,K,h,w) -> (B,K,H,W)"""
    if tuple(logits.shape[2:]) == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)
