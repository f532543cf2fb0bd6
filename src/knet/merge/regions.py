"""Objects as connected regions, for models that learned them from data labelled in that way."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from knet.merge.panoptic import MergedMasks

_CORNERS_TOUCH = np.ones((3, 3), bool)


def as_regions(merged: MergedMasks, things: Tensor, smallest: int) -> MergedMasks:
    """Turns the things of an image into connected regions of their class. MergedMasks, (K,) bool -> MergedMasks

    Masks of one class that touch, corners included, become one, and a mask in several places becomes several: the rule
    by which `knet data from-labels` makes objects of class maps. A region takes kernel and score from the mask that
    owns most of it. Regions of fewer than `smallest` pixels become void. Stuff stays as it is and comes first.
    """
    owner, labels = merged.owner.cpu().numpy(), merged.labels.cpu()
    is_thing = things.cpu()[labels].numpy()
    new = np.where(np.append(is_thing, True)[owner], -1, owner)  # the last entry serves -1, void
    sources = np.arange(len(labels))
    for label in np.unique(labels.numpy()[is_thing]):
        of_class = np.append(is_thing & (labels.numpy() == label), False)[owner]
        parts, count = ndimage.label(of_class, _CORNERS_TOUCH)
        if not count:
            continue
        cells = parts[of_class] * len(labels) + owner[of_class]
        # How many pixels of each region each mask owns.
        shares = np.bincount(cells, minlength=(count + 1) * len(labels)).reshape(count + 1, -1)
        kept = shares.sum(1) >= smallest
        kept[0] = False
        numbers = np.full(count + 1, -1, new.dtype)
        numbers[kept] = len(sources) + np.arange(kept.sum())
        new[of_class] = numbers[parts[of_class]]
        sources = np.append(sources, shares[kept].argmax(1))
    areas = np.bincount(new[new >= 0], minlength=len(sources))
    taken = torch.from_numpy(sources).to(merged.labels.device)
    return MergedMasks(
        torch.from_numpy(new).to(merged.owner.device),
        torch.from_numpy(areas).to(merged.areas.device),
        merged.labels[taken],
        merged.scores[taken],
        merged.kernels[taken.to(merged.kernels.device)],
    )
