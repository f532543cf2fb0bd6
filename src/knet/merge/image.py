"""From K-Net's masks and classes to results, as the official code does it (mmdet's chain of resizes, then K-Net's own
merging), written to be read.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from knet.merge.plain import MergedMasks, best_class

# Of resized masks. 8 MiB of float32 stay in a processor's cache, and their memory is used again for the next masks,
# while larger blocks come fresh from the system each time, which costs more than the arithmetic. A GPU takes more.
_VALUES_AT_ONCE = 2**21
_TIMES_ON_GPU = 16


@dataclass(slots=True)
class Instances:
    """Objects of an image; they may overlap. M objects, best first.

    `masks` (M,H,W) bool · `labels` (M,) int64 · `scores` (M,) float32 0..1 · `kernels` (M,) int64, the kernel that each
    comes from: one kernel may give several, with other classes.
    """

    masks: Tensor
    labels: Tensor
    scores: Tensor
    kernels: Tensor


def resize_masks(
    mask_logits: Tensor, padded: tuple[int, int], seen: tuple[int, int], size: tuple[int, int], enlarged: int = 2
) -> Tensor:
    """Mask probabilities on an image's own pixels. (N,h,w) logits on the feature map's grid -> (N,H,W) 0..1 float32

    Args:
        mask_logits: of the last stage, for one image.
        padded: height and width of the batch that the network saw.
        seen: height and width of the image in it, without padding.
        size: height and width of the result, the original image's.
        enlarged: how many times, before logits become probabilities; 4 in Video K-Net.
    """

    def resize(masks: Tensor, to: tuple[int, int]) -> Tensor:
        return F.interpolate(masks[None], to, mode="bilinear", align_corners=False)[0]

    if not len(mask_logits):  # which torch refuses to resize
        return mask_logits.new_zeros((0, *size), dtype=torch.float32)
    height, width = mask_logits.shape[1:]
    probabilities = resize(mask_logits.float(), (enlarged * height, enlarged * width)).sigmoid()
    return resize(resize(probabilities, padded)[:, : seen[0], : seen[1]], size)


def resized_parts(
    mask_logits: Tensor, padded: tuple[int, int], seen: tuple[int, int], size: tuple[int, int], enlarged: int = 2
) -> Iterator[Tensor]:
    """What `resize_masks` gives, a few masks at a time: a large photograph needs no more memory. (n,H,W) each"""
    pixels = max(height * width for height, width in (padded, size))
    values = _VALUES_AT_ONCE if mask_logits.device.type == "cpu" else _VALUES_AT_ONCE * _TIMES_ON_GPU
    for part in mask_logits.split(max(values // pixels, 1)):
        yield resize_masks(part, padded, seen, size, enlarged)


def panoptic_classes(class_logits: Tensor, stuff: Sequence[int], pairs: int | None = None) -> tuple[Tensor, Tensor]:
    """Every kernel's class where stuff has kernels of its own. (N,K) logits -> scores (N,) 0..1, labels (N,) int64

    The last kernels are those of the `stuff` labels, one each, in that order; the others take their best thing class.
    pairs: things whose kernel is not in so many of the best pairs of kernel and class get the score 0, so that they win
    no pixel (Video K-Net: 100 pairs of 100 kernels, and a kernel may be in several).
    """
    things = torch.tensor([label for label in range(class_logits.shape[1]) if label not in set(stuff)])
    things, stuff_labels = things.to(class_logits.device), torch.tensor(stuff, device=class_logits.device)
    count = len(class_logits) - len(stuff)
    thing_scores, best = best_class(class_logits[:count, things])
    if pairs is not None:
        listed = torch.zeros_like(thing_scores, dtype=torch.bool)
        listed[best_instances(class_logits[:count, things], pairs)[2]] = True
        thing_scores = thing_scores * listed
    stuff_scores = class_logits[count:].float().sigmoid().gather(1, stuff_labels[:, None])[:, 0]
    return torch.cat((thing_scores, stuff_scores)), torch.cat((things[best], stuff_labels))


def merge_sorted(
    probabilities: Tensor | Iterable[Tensor],
    scores: Tensor,
    labels: Tensor,
    things: Tensor,
    score: float,
    overlap: float,
) -> MergedMasks:
    """Gives every pixel to one mask (K-Net's panoptic merging). (N,H,W) 0..1, (N,), (N,), (K,) bool -> MergedMasks

    The masks may come a few at a time, as `resized_parts` gives them.

    A pixel goes to the mask with the largest score x probability, whether that mask is kept or not. A mask is kept if
    the pixels it won are at least `overlap` of those where its probability is 0.5 or more, and if it is stuff or its
    score is at least `score`. The pixels of all others become void.

    The masks of the result are in order of falling score, so `number_segments` gives the best kept one the number 1.
    The official numbers start at 0 instead, and category 0 x 1000 + number is then a map value equal to the one its
    evaluation takes for void: a person that is the best segment counts as void there. Here it does not.
    """
    present, first = list[Tensor](), 0
    best = owner = torch.empty(0)
    for part in [probabilities] if isinstance(probabilities, Tensor) else probabilities:
        present.append((part >= 0.5).sum(dim=(1, 2)))
        weighted = scores[first : first + len(part), None, None] * part
        for index, value in enumerate(weighted, start=first):
            if not index:
                best, owner = value.clone(), torch.zeros_like(value, dtype=torch.int64)
                continue
            owner.masked_fill_(value > best, index)  # on a tie the first mask keeps the pixel
            torch.maximum(best, value, out=best)
        first += len(part)
    won, large = torch.bincount(owner.flatten(), minlength=len(scores)), torch.cat(present)
    kept = (won > 0) & (large > 0) & (won.double() / large.clamp(min=1) >= overlap)
    kept &= ~things.to(labels.device)[labels] | (scores >= score)
    order = scores.argsort(descending=True, stable=True)
    rank = order.argsort()
    return MergedMasks(torch.where(kept[owner], rank[owner], -1), labels[order], scores[order], order)


def best_instances(class_logits: Tensor, count: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of kernel and class of an image. (N,K) logits -> scores (M,) 0..1, labels (M,), kernels (M,)

    Best first, M = `count` or all there are.
    """
    scores = class_logits.float().sigmoid().flatten()
    scores, index = scores.topk(min(count, len(scores)))
    classes = class_logits.shape[1]
    return scores, index % classes, index // classes


def instances(
    mask_logits: Tensor,
    class_logits: Tensor,
    padded: tuple[int, int],
    seen: tuple[int, int],
    size: tuple[int, int],
    score: float = 0.0,
    count: int = 100,
) -> Instances:
    """The objects of an image. (N,h,w), (N,K) logits -> Instances of `size`: where the probability is above 0.5

    Args:
        mask_logits, padded, seen, size: see `resize_masks`.
        class_logits: of the last stage, for one image.
        score: objects below are left out.
        count: the most objects.
    """
    scores, labels, kernels = best_instances(class_logits, count)
    good = scores >= score
    scores, labels, kernels = scores[good], labels[good], kernels[good]
    used, place = kernels.unique(return_inverse=True)  # a kernel with several classes is resized once
    masks = torch.cat([part > 0.5 for part in resized_parts(mask_logits[used], padded, seen, size)])
    return Instances(masks[place], labels, scores, kernels)
