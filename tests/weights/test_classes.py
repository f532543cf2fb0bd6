"""Weights for other classes: what a class of the same name learned is kept, in its new place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from knet.config import RunConfig
from knet.errors import CheckpointError
from knet.models.zoo import create
from knet.runs.build import load_first, run_card
from knet.structures import Category
from knet.weights.classes import class_layers
from knet.weights.load import save_weights

TINY = {"width": 8, "head_width": 16, "channels": 16, "kernels": 6, "stages": 2}
DATA = {"val": {"images": "a", "json": "b", "masks": "c"}}


def table(*names: str) -> tuple[Category, ...]:
    return tuple(Category(number, name, name == "car", (0, 0, 0)) for number, name in enumerate(names))


def config(**more: object) -> RunConfig:
    return RunConfig.model_validate({"model": "rtknet-slim-camvid", "arguments": TINY, "data": DATA, **more})


@pytest.mark.parametrize("now", [("car", "door", "road", "gate"), ("road", "car", "sky"), ("car", "sky", "wall")])
def test_classes_keep_what_they_learned_by_name(tmp_path: Path, now: tuple[str, ...]) -> None:
    before = ("road", "sky", "car")
    torch.manual_seed(0)
    learned = create("rtknet-slim-camvid", **{**TINY, "classes": 3})
    path = tmp_path / "w.safetensors"
    save_weights(path, learned.state_dict(), run_card(config(), table(*before)))
    run = config(weights=str(path))
    card = run_card(run, table(*now))
    net = create(run.model, **card.arguments)
    first = {key: value.clone() for key, value in net.state_dict().items()}
    said = load_first(net, run, card)
    new = sum(name not in before for name in now)
    assert f"those of {new} of the {len(now)} classes, which start anew" in said
    layers = class_layers(run.model, card.arguments)
    assert len(layers) == 5  # a weight and a bias in each stage, and the semantic head's
    for key, value in net.state_dict().items():
        old = learned.state_dict()[key]
        if key not in layers:
            assert torch.equal(value, old)
            continue
        for place, name in enumerate(now):
            assert torch.equal(value[place], old[before.index(name)] if name in before else first[key][place])


def test_equal_classes_are_all_kept(tmp_path: Path) -> None:
    learned = create("rtknet-slim-camvid", **{**TINY, "classes": 2})
    path = tmp_path / "w.safetensors"
    for card in (None, run_card(config(), table("road", "car"))):
        save_weights(path, learned.state_dict(), card)
        run = config(weights=str(path))
        own = run_card(run, table("road", "car"))
        net = create(run.model, **own.arguments)
        assert load_first(net, run, own) == f"all weights are from '{path}'"
        assert all(torch.equal(value, learned.state_dict()[key]) for key, value in net.state_dict().items())


def test_a_name_that_is_no_model_and_no_file_is_refused() -> None:
    run = config(weights="rtknet-lite-stret")
    card = run_card(run, table("road", "car"))
    with pytest.raises(CheckpointError, match="There is no weights file 'rtknet-lite-stret'"):
        load_first(create(run.model, **card.arguments), run, card)
