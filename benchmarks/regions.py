"""What makes the best objects of the bundled model's masks: the masks as they are, their parts, or regions of a class.

    python benchmarks/regions.py data   # camvid/ and street/, as configs/rtknet-lite-street.yaml has them; minutes

CamVid's things are connected regions of a class, so two cars that touch are one. COCO's are true objects, drawn by
people, and those of the Drive.ai frames near to it; the model saw both in training, so their figures say which rule
is better there, not how good the model is. It prints PQ of things for each rule.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

import knet
from knet.config import data_config
from knet.data.readers.open import open_data
from knet.inference import segments
from knet.merge.panoptic import MergedMasks
from knet.merge.regions import as_regions
from knet.runs.evaluate import evaluate

PSEUDO = {"images": "street/pseudo/images", "json": "street/pseudo/panoptic.json", "masks": "street/pseudo/panoptic"}
SETS = {
    "CamVid val": {"images": "camvid/images/val", "json": "camvid/val/panoptic.json", "masks": "camvid/val/panoptic"},
    "COCO": {"images": "street/coco/images", "json": "street/coco/panoptic.json", "masks": "street/coco/panoptic"},
    "Drive.ai": {**PSEUDO, "names": ["driveai_*"]},
}


def of_classes(merged: MergedMasks, things: Tensor, smallest: int) -> MergedMasks:
    """Connected regions of a class: masks that touch become one first, and are called as the most certain of them."""
    owner, labels = merged.owner.clone(), merged.labels
    for label in torch.nonzero(things).ravel():
        masks = torch.nonzero(labels == label).ravel()
        if len(masks):
            owner[torch.isin(owner, masks.to(owner.dtype))] = masks[merged.scores[masks].argmax()].to(owner.dtype)
    areas = torch.from_numpy(np.bincount(owner[owner >= 0], minlength=len(labels)))
    return as_regions(replace_fields(merged, owner, areas), things, smallest)


def whole(merged: MergedMasks, things: Tensor, smallest: int) -> MergedMasks:
    """Masks in one piece or several, without pieces that are too small."""
    owner = merged.owner.numpy().copy()
    for mask in torch.nonzero(things[merged.labels]).ravel().tolist():
        parts, _ = ndimage.label(owner == mask, np.ones((3, 3)))
        owner[(np.bincount(parts.ravel()) < smallest)[parts] & (parts > 0)] = -1
    areas = torch.from_numpy(np.bincount(owner[owner >= 0], minlength=len(merged.labels)))
    return replace_fields(merged, torch.from_numpy(owner), areas)


def replace_fields(merged: MergedMasks, owner: Tensor, areas: Tensor) -> MergedMasks:
    """The same masks with other pixels."""
    return MergedMasks(owner, areas, merged.labels, merged.scores, merged.kernels)


RULES: dict[str, tuple[Callable[..., MergedMasks], int]] = {
    "masks as they are": (as_regions, 0),
    "masks without pieces below 150 pixels": (whole, 150),
    "parts of masks, small ones joined (knet)": (as_regions, 150),
    "the same, of 50": (as_regions, 50),
    "regions of a class": (of_classes, 150),
}


def main(data: Path) -> None:
    """Prints the table."""
    segmenter = knet.load("rtknet-lite-street", device="cpu", precision="fp32")
    readers = {}
    for name, files in SETS.items():
        options = data_config(data__root=str(data), data__val=files)
        readers[name] = open_data(options, options.val, segmenter.categories)
    print(f"{'PQ of things':42}" + "".join(f"{f'{name} ({len(reader)})':>18}" for name, reader in readers.items()))
    for name, (rule, smallest) in RULES.items():
        segments.as_regions = rule
        segmenter.rules = replace(segmenter.rules, regions=smallest)
        found = [100 * evaluate(segmenter, reader)["panoptic"]["things"]["pq"] for reader in readers.values()]
        print(f"{name:42}" + "".join(f"{figure:18.1f}" for figure in found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
