"""Calls from Python with values of any type where others are meant."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

import knet
from fuzz.mutate import NUMBERS, STRINGS, some_value
from fuzz.oracle import no_parts, refused
from knet.config import read_config
from knet.inference.segmenter import Segmenter
from knet.track import EmbeddingSettings, OverlapSettings
from tiny_models import ARGUMENTS, tiny_file

_IMAGE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
_ODD = (
    *(object(), object, len, print, b"", b"x", b"\0" * 9, bytearray(4), memoryview(b"ab"), 1j, ..., NotImplemented),
    *(
        range(3),
        iter(()),
        {1, 2},
        frozenset(),
        np.float16("nan"),
        np.int8(-1),
        np.bool_(True),
        np.zeros(0),
        np.zeros((2, 2)),
    ),
    *(
        torch.tensor(0.5),
        torch.zeros(2),
        Path(),
        Path("nothing"),
        Exception("x"),
        (0.5, None),
        ("a", "b"),
        (1, 2, 3, 4),
    ),
)


def prepare(folder: Path) -> Callable[[Random], bool]:
    """See `fuzz`."""
    files = {task: tiny_file(task, folder) for task in ARGUMENTS}
    models = {task: knet.load(path, device="cpu") for task, path in files.items() if task != "clip"}
    result = models["panoptic"](_IMAGE, score=0.0)
    Image.fromarray(_IMAGE).save(folder / "a.png")
    calls = [call for model in models.values() for call in _of_model(model)]
    calls += [
        (
            lambda folder, **o: result.save("out" if isinstance(folder, str | Path) else folder, **o),
            {"folder": "out", "formats": ["json"]} | {"image": _IMAGE, "name": "a"},
        ),
        (result.overlay, {"image": _IMAGE, "alpha": 0.5, "names": True, "legend": True}),
        (result.to_coco, {"image_id": 1, "form": "polygons"}),
        (
            knet.load,
            {
                "model": files["panoptic"],
                "weights": None,
                "device": "cpu",
                "precision": "fp32",
                "merge": None,
                "score": 0.5,
            },
        ),
        (knet.create, {"name": "knet-r50-coco-panoptic", **ARGUMENTS["panoptic"][2]}),
        (knet.models, {"pattern": "knet*"}),
        (knet.Category, {"id": 1, "name": "car", "thing": True, "color": (1, 2, 3)}),
        (EmbeddingSettings, {"start": 0.3, "follow": 0.3, "likeness": 0.5, "memory": 5}),
        (OverlapSettings, {"start": 0.3, "overlap": 0.1, "memory": 5}),
        (
            lambda **o: read_config("rtknet-cityscapes", **o),
            {"batch": 2, "data__root": "x", "losses__mask": 1.0, "augment": None},
        ),
        (
            knet.evaluation.mean_iou,
            {"truth": [_IMAGE[..., 0]], "predictions": [_IMAGE[..., 0]], "protocol": "mean", "classes": ["a", "b"]},
        ),
        (knet.evaluation.panoptic_quality, {"truth": "a.json", "predictions": "b.json"}),
        (knet.evaluation.stq, {"truth": "a", "predictions": "b", "classes": None, "protocol": None}),
    ]

    def case(rng: Random) -> bool:
        call, given = rng.choice(calls)
        options = dict(given)
        for name in rng.sample(sorted(options), min(len(options), rng.choice((1, 1, 2)))):
            options[name] = _value(rng, options[name])
        try:
            return refused(lambda: call(**options))
        finally:
            no_parts(folder)
            shutil.rmtree(folder / "out", ignore_errors=True)

    return case


def _value(rng: Random, meant: Any) -> Any:
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(_ODD)
    if kind < 0.5:
        return rng.choice(NUMBERS)
    if kind < 0.65:
        return rng.choice(STRINGS[:40])
    if kind < 0.8:
        return [meant] if rng.random() < 0.5 else (meant, meant)
    return some_value(rng)


def _of_model(model: Segmenter) -> list[tuple[Callable[..., Any], dict[str, Any]]]:
    options: dict[str, Any] = {"size": 64, "score": 0.5, "only": None, "region": (0, 0, 20, 20)}
    options |= (
        {"scales": (1.0,), "flip": False, "window": 64, "stride": 32} if model.task == "semantic" else {"overlap": 0.5}
    )
    one = (lambda source, **o: model(source, **o)), {"source": _IMAGE, **options}
    if model.task == "semantic":
        return [one]
    tracking = {"tracker": "overlap", "classes": None, "every": 1, "start": 0.0, "end": 1.0, "score": 0.5}
    return [one, ((lambda source, **o: list(model.track(source, **o))), {"source": [_IMAGE], **tracking})]
