"""Weights of other classes than the published ones, as the original code bases save them: trained on, and converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import knet
from knet.cli.main import main
from knet.config import RunConfig
from knet.models.zoo import ZOO, create
from knet.runs.build import load_first, run_card
from knet.structures import Category
from knet.weights.classes import class_layers

SMALL = {"backbone": "timm/resnet10t", "channels": 32, "kernels": 6}
SEMANTIC = {"backbone": "timm/resnet10t", "channels": 16, "update_channels": 8, "hidden": 32}
MODELS = {
    "knet-r50-coco-panoptic": SMALL,
    "knet-r50-coco-instance": SMALL,
    "knet-upernet-r50-ade20k": SEMANTIC,
    "video-knet-r50-kitti-step": SMALL,
    "rtknet-slim-camvid": {"width": 8, "head_width": 16, "channels": 16, "kernels": 6, "stages": 2},
}
OWN = ("gate", "person", "floor", "box", "wall")


def own_weights(model: str, path: Path, meta: dict[str, Any] | None = None) -> dict[str, torch.Tensor]:
    """A file as the original code saves it after training on five classes of one's own."""
    torch.manual_seed(0)
    stuff = {"stuff": (2, 4)} if "stuff" in ZOO[model].arguments else {}
    state = create(model, **{**MODELS[model], "classes": 5, **stuff}).state_dict()
    torch.save({"meta": meta or {}, "state_dict": state}, path)
    return state


def first_weights(model: str, weights: Path, *names: str) -> tuple[str, dict[str, torch.Tensor], list[str]]:
    """What a run on these classes starts from: what it says, its weights, and which of them are of classes."""
    data = {"val": {"images": "a", "json": "b", "masks": "c"}}
    run = RunConfig.model_validate({"model": model, "arguments": MODELS[model], "data": data, "weights": str(weights)})
    card = run_card(run, [Category(n, name, name != "floor", (0, 0, 0)) for n, name in enumerate(names, 1)])
    net = create(model, **card.arguments)
    return load_first(net, run, card), net.state_dict(), class_layers(model, card.arguments)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_run_on_other_classes_takes_all_that_is_no_class(model: str, count: int, tmp_path: Path) -> None:
    learned = own_weights(model, tmp_path / "own.pth")
    said, first, layers = first_weights(model, tmp_path / "own.pth", *[f"class {n}" for n in range(count)])
    assert said.endswith(f"but those of {count} of the {count} classes, which start anew")
    assert all(torch.equal(first[key], learned[key]) for key in first if key not in layers)


@pytest.mark.parametrize("meta", [{"CLASSES": OWN}, {"dataset_meta": {"classes": OWN}}])
def test_classes_that_the_file_names_are_kept(meta: dict[str, Any], tmp_path: Path) -> None:
    model = "knet-r50-coco-instance"
    learned = own_weights(model, tmp_path / "own.pth", meta)
    said, first, layers = first_weights(model, tmp_path / "own.pth", "Box", "car", "person")
    assert said.endswith("those of 1 of the 3 classes, which start anew")
    for key in layers:
        assert torch.equal(first[key][0], learned[key][3]) and torch.equal(first[key][2], learned[key][1])


def test_prediction_stays_strict_and_says_what_to_do(
    tmp_path: Path, street: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knet.inference.own_classes.fitting", lambda state: "")  # which builds every model there is
    model, path, out = "knet-r50-coco-instance", str(tmp_path / "own.pth"), str(tmp_path / "own.safetensors")
    own_weights(model, Path(path))
    advice = (
        "If their 5 classes are your own, and not the 80 published ones, convert them with their class table first "
        f"(`knet convert IN OUT --model {model} --classes FILE`)"
    )
    small = [f"{key}={value}" for key, value in SMALL.items()]
    assert main(["predict", model, str(street), "--weights", path, "--output", str(tmp_path / "out")]) == 2
    assert advice in capsys.readouterr().err
    assert main(["convert", path, out, *small, "--model", model]) == 2
    assert advice in capsys.readouterr().err
    assert main(["convert", path, out, "classes=5", "--model", model]) == 2
    assert "leave classes and stuff out, and give the table of weights that know other classes: --classes FILE" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("model", MODELS)
def test_weights_of_own_classes_are_converted_with_their_table(model: str, tmp_path: Path) -> None:
    learned = own_weights(model, tmp_path / "own.pth")
    rows = [{"id": n, "name": name, "thing": name not in ("floor", "wall")} for n, name in enumerate(OWN, 1)]
    (tmp_path / "classes.json").write_text(json.dumps({"categories": rows}))
    out = tmp_path / "own.safetensors"
    arguments = [f"{key}={value}" for key, value in MODELS[model].items()]
    files = [str(tmp_path / "own.pth"), str(out), *arguments]
    assert main(["convert", *files, "--model", model, "--classes", str(tmp_path / "classes.json")]) == 0
    segmenter = knet.load(out)
    assert [(c.id, c.name, c.thing) for c in segmenter.categories] == [(r["id"], r["name"], r["thing"]) for r in rows]
    assert segmenter.net is not None
    assert all(torch.equal(value, learned[key]) for key, value in segmenter.net.state_dict().items())


def test_classes_of_one_kind_are_taken_from_the_file_itself(tmp_path: Path) -> None:
    for model, ids in (("knet-r50-coco-instance", [1, 2, 3, 4, 5]), ("knet-upernet-r50-ade20k", [0, 1, 2, 3, 4])):
        own_weights(model, tmp_path / "own.pth", {"CLASSES": OWN})
        card = knet.inference.load.convert(tmp_path / "own.pth", tmp_path / "o.safetensors", model, **MODELS[model])
        assert [category.name for category in card.categories] == list(OWN)
        assert [category.id for category in card.categories] == ids
    own_weights("knet-r50-coco-panoptic", tmp_path / "own.pth", {"CLASSES": OWN})
    with pytest.raises(knet.KNetError, match="--classes FILE"):  # which of them are things, it does not say
        knet.inference.load.convert(tmp_path / "own.pth", tmp_path / "o.safetensors", "knet-r50-coco-panoptic", **SMALL)


@pytest.mark.parametrize("name", ["model", "half", "source", "categories"])
def test_options_of_convert_are_no_arguments_of_a_network(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", "a.pth", str(tmp_path / "b.safetensors"), "--model", "rtknet-camvid", f"{name}=1"]
    assert main(words) == 2
    assert f"'{name}' is no argument of a network" in capsys.readouterr().err
