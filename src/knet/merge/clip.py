"""From the kernels of a clip to its objects, each with a mask in every frame, as the official code makes them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from knet.merge.pixels.backend import backend
from knet.merge.sorted import best_instances, enlarge, to_image
from knet.preprocess import ImageSizes


@dataclass(slots=True)
class ClipObject:
    """An object of a clip. Objects may overlap, and a kernel may give several, each of another class."""

    score: float  # 0 to 1
    label: int
    kernel: int
    masks: list[dict[str, Any] | None]  # packed, one a frame, None where the object has no pixel


def clip_objects(
    class_logits: Tensor,
    mask_logits: Tensor,
    sizes: ImageSizes,
    pack: Callable[[np.ndarray], dict[str, Any]],
    score: float = 0.0,
    count: int = 10,
) -> list[ClipObject]:
    """The best combinations of a kernel and a class. (N,K), (N,T,h,w) logits -> at most `count` objects, best first

    An object's place in the list is its identity, so nothing has to be tracked. Its mask is where the probability
    exceeds 0.5. Only the masks of the chosen kernels are resized, one frame at a time. Objects below `score` are left
    out. `pack` turns a mask (H,W) bool into what is stored. The official `count` is 10, of 100 kernels x 40 classes.
    """
    scores, labels, kernels = best_instances(class_logits, count)
    good = scores >= score
    chosen = list(zip(scores[good].tolist(), labels[good].tolist(), kernels[good].tolist(), strict=True))
    used = sorted({kernel for _, _, kernel in chosen})  # a kernel with several classes is resized once
    tubes: dict[int, list[dict[str, Any] | None]] = {kernel: [] for kernel in used}
    for frame in mask_logits[used].unbind(1):
        probabilities = enlarge(frame)
        found = backend(frame.device).masks_above_half(probabilities, to_image(probabilities, sizes))
        for kernel, on_device in zip(used, found, strict=True):
            mask = on_device.cpu().numpy()
            tubes[kernel].append(pack(mask) if mask.any() else None)
    return [ClipObject(value, label, kernel, list(tubes[kernel])) for value, label, kernel in chosen]
