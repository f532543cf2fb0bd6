"""Constructor arguments with which no network can be built: one sentence, wherever they come from."""

from __future__ import annotations

from typing import Any

import pytest

from knet.errors import ConfigError
from knet.models.zoo import create


@pytest.mark.parametrize("model", ["rtknet-slim-camvid", "knet-r50-coco-instance", "knet-upernet-r50-ade20k"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"kernels": 0},
        {"kernels": -3},
        {"kernels": 2.5},
        {"stages": 0},
        {"channels": 7},
        {"channels": 0},
        {"width": 0},
        {"head_width": 0},
        {"drop_path": 2},
        {"drop_path": -0.1},
        {"classes": 0},
        {"backbone": "r49"},
        {"nothing": 1},
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(model: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        create(model, **arguments)


def test_a_network_that_no_memory_holds_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*size: int, **options: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 154614104100 bytes.")

    monkeypatch.setattr("torch.empty", none_left)
    with pytest.raises(
        ConfigError, match=r"too little memory for the model 'knet-r50-coco-panoptic' with {'channels'.*154614"
    ):
        create("knet-r50-coco-panoptic", channels=65535)
