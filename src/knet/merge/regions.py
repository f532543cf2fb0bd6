"""Objects as connected regions, for models whose data shows objects only as regions of a class."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from knet.merge.panoptic import MergedMasks

_CORNERS_TOUCH = np.ones((3, 3), bool)


def as_regions(merged: MergedMasks, things: Tensor, smallest: int) -> MergedMasks:
    """Makes each connected part of a thing's mask an object of its own. MergedMasks, (K,) bool -> MergedMasks

    A kernel that learned from class maps, in which two cars that touch are one, may paint several cars that do not
    touch. Parts of different masks stay apart even where they touch, since some of the data has true objects. But a
    part of fewer than `smallest` pixels is no object: it goes to the nearest one in its connected region of the class,
    and a region without any is one object, or void if it is too small itself. Stuff stays as it is and comes first.
    `benchmarks/regions.py` compares this with other rules.
    """
    owner, labels = merged.owner.cpu().numpy(), merged.labels.cpu()
    is_thing = things.cpu()[labels].numpy()
    new = np.where(np.append(is_thing, True)[owner], -1, owner)  # the last entry serves -1, void
    sources = list(range(len(labels)))
    for label in np.unique(labels.numpy()[is_thing]):
        of_class = np.append(is_thing & (labels.numpy() == label), False)[owner]
        regions, _ = ndimage.label(of_class, _CORNERS_TOUCH)
        for number, box in enumerate(ndimage.find_objects(regions), 1):
            _divide(new[box], owner[box], regions[box] == number, smallest, sources)
    taken = torch.tensor(sources, dtype=torch.int64, device=merged.labels.device)
    areas = np.bincount(new[new >= 0], minlength=len(sources))
    return MergedMasks(
        torch.from_numpy(new).to(merged.owner.device),
        torch.from_numpy(areas).to(merged.areas.device),
        merged.labels[taken],
        merged.scores[taken],
        merged.kernels[taken.to(merged.kernels.device)],
    )


def _divide(new: np.ndarray, owner: np.ndarray, region: np.ndarray, smallest: int, sources: list[int]) -> None:
    """Numbers the objects of a connected region of a class in `new`, and adds the mask of each to `sources`."""
    if np.count_nonzero(region) < smallest:
        return
    first = len(sources)
    masks, areas = np.unique(owner[region], return_counts=True)
    for mask in masks:
        parts, _ = ndimage.label(region & (owner == mask), _CORNERS_TOUCH)
        for part in np.flatnonzero(np.bincount(parts.ravel())[1:] >= smallest) + 1:
            new[parts == part] = len(sources)
            sources.append(int(mask))
    if len(sources) == first:
        new[region] = first
        sources.append(int(masks[areas.argmax()]))
        return
    rest = region & (new < first)
    if rest.any():
        nearest = ndimage.distance_transform_edt(~region | rest, return_distances=False, return_indices=True)
        new[rest] = new[tuple(nearest)][rest]
