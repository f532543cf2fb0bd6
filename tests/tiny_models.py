"""Files of random weights of very small models of each task: quick, and wrong about everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from knet.data.categories import load_categories
from knet.inference.load import describe
from knet.models.zoo import create
from knet.structures import Preprocessing
from knet.weights.load import save_weights

_SMALL = {"backbone": "timm/resnet10t", "stages": 1}
ARGUMENTS: dict[str, tuple[str, str, dict[str, Any]]] = {  # task -> model, class table, arguments
    "panoptic": (
        "knet-r50-coco-panoptic",
        "camvid",
        {**_SMALL, "classes": 11, "stuff": list(range(8)), "kernels": 6, "channels": 32},
    ),
    "instance": ("knet-r50-coco-instance", "coco_instance", {**_SMALL, "kernels": 6, "channels": 32}),
    "semantic": (
        "knet-upernet-r50-ade20k",
        "ade20k",
        {**_SMALL, "channels": 16, "update_channels": 8, "hidden": 32},
    ),
    "video": (
        "video-knet-r50-kitti-step",
        "kitti_step",
        {**_SMALL, "kernels": 6, "channels": 32},
    ),
    "clip": ("video-knet-r50-youtube-vis", "youtube_vis", {**_SMALL, "kernels": 6, "channels": 32}),
}


def tiny_file(task: str, folder: Path, **more: Any) -> Path:
    """A .safetensors file as `knet train` writes it. more: `merge`, or what replaces other entries of its card."""
    model, table, arguments = ARGUMENTS[task]
    torch.manual_seed(0)
    net = create(model, **arguments)
    with torch.no_grad():  # masks and classes that differ over the image
        if task == "semantic":
            net.kernels[-1].weight.mul_(100)
        else:
            net.decoder.kernels.mul_(0.1)
            net.decoder.stages[-1].to_class[-1].weight.mul_(30)
            net.decoder.stages[-1].to_class[-1].bias.zero_()
    preprocessing = Preprocessing(64, 128, antialias=False, divisor=1 if task == "semantic" else 32)
    score, overlap = (0.0, 0.1) if task in ("panoptic", "video") else (0.0, 0.0)
    card = describe(model, arguments, load_categories(table), preprocessing, score, overlap, more.pop("merge", None))
    path = folder / f"{task}.safetensors"
    save_weights(path, net.state_dict(), card.model_copy(update=more))
    return path
