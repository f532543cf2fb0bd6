"""Objects as connected regions, for models whose data shows objects only as regions of a class."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from knet.merge.panoptic import MergedMasks

_CORNERS_TOUCH = np.ones((3, 3), bool)


def as_regions(merged: MergedMasks, things: Tensor, smallest: int) -> MergedMasks:
    """Makes each connected region of a thing's mask an object of its own. MergedMasks, (K,) bool -> MergedMasks

    A kernel that learned from class maps, in which two cars that touch are one, may paint several cars that do not
    touch. Regions of different masks stay apart even where they touch: some of the data has true objects. Regions of
    fewer than `smallest` pixels become void. Stuff stays as it is and comes first. `benchmarks/regions.py` compares
    this with other rules.
    """
    owner, labels = merged.owner.cpu().numpy(), merged.labels.cpu()
    is_thing = things.cpu()[labels].numpy()
    new = owner.copy()
    sources = list(range(len(labels)))
    for mask, box in enumerate(ndimage.find_objects(owner + 1, max_label=len(labels))):
        if not is_thing[mask] or box is None:
            continue
        parts, count = ndimage.label(owner[box] == mask, _CORNERS_TOUCH)
        kept = np.bincount(parts.ravel(), minlength=count + 1) >= smallest
        kept[0] = False
        numbers = np.full(count + 1, -1, new.dtype)
        numbers[kept] = len(sources) + np.arange(kept.sum())
        new[box][parts > 0] = numbers[parts[parts > 0]]
        sources += [mask] * int(kept.sum())
    taken = torch.tensor(sources, dtype=torch.int64, device=merged.labels.device)
    areas = np.bincount(new[new >= 0], minlength=len(sources))
    return MergedMasks(
        torch.from_numpy(new).to(merged.owner.device),
        torch.from_numpy(areas).to(merged.areas.device),
        merged.labels[taken],
        merged.scores[taken],
        merged.kernels[taken.to(merged.kernels.device)],
    )
