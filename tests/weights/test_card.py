"""The card in a file of weights or an exported model: every way that one can be faulty has its sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import knet
from knet.data.categories import load_categories
from knet.errors import CheckpointError, ConfigError
from knet.inference.load import describe, describe_official
from knet.models.zoo import ZOO, entry
from knet.weights.card import FORMAT, Card

MODEL = "rtknet-slim-camvid"
GRAPH = {
    "precision": "fp32",
    "size": [64, 96],
    "merge_inside": False,
    "stuff": [],
    "embeds": True,
    "previous": [1, 64, 256],
    "stride": 8,
    "divisor": 32,
}


def table(model: str = MODEL, /, **more: Any) -> dict[str, Any]:
    """What the card of a model as published says, to be spoilt."""
    content: dict[str, Any] = json.loads(describe_official(model).text())
    return {**content, **more}


def refused(content: Any) -> str:
    """The one sentence for a faulty card."""
    with pytest.raises(CheckpointError) as error:
        Card.read(content if isinstance(content, str) else json.dumps(content), "some.safetensors")
    sentence = str(error.value)
    assert sentence.startswith("The card of 'some.safetensors' ") and "\n" not in sentence and len(sentence) < 400
    assert "write it anew with `knet convert`" in sentence or "install a newer knet" in sentence
    return sentence


@pytest.mark.parametrize("model", ZOO)
def test_cards_come_back_as_they_were_written(model: str) -> None:
    card = describe_official(model)
    text = card.text()
    assert text.isascii() and json.loads(text)["format"] == FORMAT
    assert Card.read(text, "file") == card
    assert (card.task, card.merge, card.graph, card.more) == (entry(model).task, entry(model).merge, None, {})


def test_a_card_keeps_what_else_is_said_of_the_weights() -> None:
    training = {"iteration": 4000, "val": {"pq": 0.5}, "config": {"batch": 8}}
    row = entry(MODEL)
    table = load_categories("camvid")
    card = describe(MODEL, {}, table, row.preprocessing, 0.3, 0.6, version="0.1.0", licence="CC", training=training)
    assert card.more == {"version": "0.1.0", "licence": "CC", "training": training}
    assert json.loads(card.text())["training"] == training  # beside the rest, as in files of version 0.1.0
    assert Card.read(card.text(), "file") == card
    again = card.model_copy(update={"more": {"more": 1}})
    assert Card.read(again.text(), "file") == again


@pytest.mark.parametrize("model", [MODEL, "knet-r50-coco-panoptic", "knet-r50-coco-instance"])
def test_cards_of_version_0_1_0_lack_task_merge_format_and_graph(model: str) -> None:
    old = table(model)
    for name in ("task", "merge", "format", "graph"):
        del old[name]
    assert Card.read(json.dumps(old), "old.safetensors") == describe_official(model)


def test_a_card_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        describe_official(MODEL).score = 0.5  # type: ignore[misc]


ENTRIES = [
    ("score", "0.3", 'has score = "0.3": input should be a valid number'),
    ("score", True, "has score = true: input should be a valid number"),
    ("score", float("nan"), "has score = NaN: input should be a finite number"),
    ("score", 1.5, r"has score = 1\.5: input should be less than or equal to 1"),
    ("score", None, "has score = null: input should be a valid number"),
    ("score", int("9" * 140), r"has score = 9{60}\.\.\.: input should be (less than|a valid number)"),
    ("overlap", -0.1, "input should be greater than or equal to 0"),
    (
        "format",
        FORMAT + 1,
        f"is of format {FORMAT + 1}, and this version of knet reads formats up to {FORMAT}; install",
    ),
    ("format", int("9" * 140), r"is of format 9{60}\.\.\., and"),
    ("format", 0, "has format = 0"),
    ("format", True, "has format = true: input should be a valid integer"),
    ("format", "1", 'has format = "1": input should be a valid integer'),
    ("model", "rtknet-foo", 'is of the model "rtknet-foo", which this version of knet does not have'),
    ("model", "m" * 10**6, r"is of the model \"m{59}\.\.\., which"),
    ("model", ["rtknet"], "has model = .*: input should be a valid string"),
    ("task", "depth", "has task = \"depth\": input should be 'panoptic', 'instance', 'semantic' or 'clip'"),
    ("task", "semantic", f"is for semantic segmentation, and '{MODEL}' for panoptic segmentation"),
    ("task", None, "has task = null"),
    ("merge", "average", "has merge = \"average\": input should be 'optimised' or 'sorted'"),
    ("arguments", [], r"has arguments = \[\]: input should be an object"),
    ("arguments", {"depth": 3}, r"has an unknown entry 'arguments\.depth'"),
    ("arguments", {"self": 3}, r"has an unknown entry 'arguments\.self'"),
    ("arguments", {"kernels": "many"}, r'has arguments\.kernels = "many": input should be a valid integer'),
    ("arguments", {"kernels": 0}, r"has arguments\.kernels = 0"),
    ("arguments", {"kernels": 10**9}, r"has arguments\.kernels = 1000000000"),
    ("arguments", {"stages": 10**4}, r"has arguments\.stages = 10000"),
    ("arguments", {"drop_path": 2}, r"has arguments\.drop_path = 2"),
    ("arguments", {"pooling": "max"}, r"has arguments\.pooling = \"max\": input should be 'mean', 'sum' or 'softmax'"),
    ("arguments", {"injection": [True]}, r"lacks the entry 'arguments\.injection\.1'"),
    ("arguments", {"stuff": [0, 11]}, r"has the stuff labels \[0, 11\], which are no distinct labels"),
    ("arguments", {"stuff": [3, 3]}, r"has the stuff labels \[3, 3\]"),
    ("arguments", {"classes": 12}, "has 11 categories, and its network 12 classes"),
    ("categories", [], r"has categories = \[\]"),
    ("categories", "road", 'has categories = "road": input should be a valid array'),
    ("preprocessing", [384, 768], r"has preprocessing = \[384, 768\]: input should be an object"),
    ("graph", [], r"has graph = \[\]: input should be an object"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), ENTRIES, ids=[f"{row[0]}{n}" for n, row in enumerate(ENTRIES)])
def test_a_wrong_entry(name: str, value: Any, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        Card.read(json.dumps(table(**{name: value})), "x")
    refused(table(**{name: value}))


@pytest.mark.parametrize("name", ["model", "arguments", "categories", "preprocessing", "score", "overlap"])
def test_a_missing_entry(name: str) -> None:
    content = table()
    del content[name]
    assert f"lacks the entry '{name}'; copy the file again" in refused(content)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not JSON (EOF"),
        ("model: rtknet", "is not JSON (expected"),
        ("[]", "is [], not a table of entries"),
        ('"text"', 'is "text", not a table of entries'),
        ("null", "is null, not a table of entries"),
        ("NaN", "is NaN, not a table of entries"),
        ("9" * 5000, "is not JSON (number out of range"),
        ("9" * 4000, "is not JSON (it has a number of more than 150 digits"),
        ("[" * 10**6, "is not JSON (recursion limit"),
        ('{"model": ' * 10**5, "is not JSON (recursion limit"),
        ('"\\ud800"', 'is "\\ud800", not a table'),
        ("\ud800", "is not JSON ("),
    ],
)
def test_text_that_is_no_card(text: str, sentence: str) -> None:
    assert sentence in refused(text)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"colour": 1}, "has an unknown entry 'preprocessing.colour'"),
        ({"std": [0, 1, 1]}, "std divides, so it is above 0, not (0.0, 1.0, 1.0)"),
        ({"std": [1, 1]}, "lacks the entry 'preprocessing.std.2'"),
        ({"mean": [0, 0, float("inf")]}, "has preprocessing.mean.2 = Infinity: input should be a finite number"),
        ({"short_edge": 0}, "short_edge, max_edge and divisor are numbers of pixels, from 1 on"),
        ({"max_edge": -5}, "numbers of pixels"),
        ({"divisor": 0}, "numbers of pixels"),
        ({"divisor": 10**9}, "numbers of pixels"),
        ({"short_edge": 10**12}, "numbers of pixels"),
        ({"short_edge": 384.5}, "has preprocessing.short_edge = 384.5: input should be a valid integer"),
        ({"resize": 1}, "has preprocessing.resize = 1: input should be a valid boolean"),
    ],
)
def test_a_wrong_preprocessing(changes: dict[str, Any], sentence: str) -> None:
    content = table()
    content["preprocessing"].update(changes)
    assert sentence in refused(content)


def rows(change: Callable[[list[dict[str, Any]]], object]) -> dict[str, Any]:
    content = table()
    change(content["categories"])
    return content


def test_wrong_categories() -> None:
    assert "has 10 categories, and its network 11 classes" in refused(rows(lambda rows: rows.pop()))
    assert "has 12 categories, and its network 11" in refused(rows(lambda rows: rows.append({**rows[0], "id": 77})))
    assert "has two categories of the id 3" in refused(rows(lambda rows: rows[5].update(id=3)))
    assert "the id of a class is a whole number from 0" in refused(rows(lambda rows: rows[5].update(id=-1)))
    assert "the id of a class is a whole number from 0" in refused(rows(lambda rows: rows[5].update(id=2**31)))
    assert "a class needs a name" in refused(rows(lambda rows: rows[5].update(name=" ")))
    assert "has categories.5.name = 3: input should be a valid string" in refused(
        rows(lambda rows: rows[5].update(name=3))
    )
    assert "has categories.5.thing = 1: input should be a valid boolean" in refused(
        rows(lambda r: r[5].update(thing=1))
    )
    assert "from 0 to 255, not (0, 0, 256)" in refused(rows(lambda rows: rows[5].update(color=[0, 0, 256])))
    assert "lacks the entry 'categories.5.color.2'" in refused(rows(lambda rows: rows[5].update(color=[0, 0])))
    assert "has an unknown entry 'categories.5.hue'" in refused(rows(lambda rows: rows[5].update(hue=1)))
    assert "lacks the entry 'categories.5.id'" in refused(rows(lambda rows: rows[5].pop("id")))
    assert "has categories.5 = null: input should be an object" in refused(rows(lambda rows: rows.insert(5, None)))  # type: ignore[arg-type]


def test_a_graph_comes_back() -> None:
    card = Card.read(json.dumps(table(graph=GRAPH)), "model.onnx")
    assert card.graph is not None and (card.graph.size, card.graph.previous) == ((64, 96), (1, 64, 256))
    assert Card.read(card.text(), "model.onnx") == card


@pytest.mark.parametrize("name", GRAPH)
def test_a_graph_that_lacks_something(name: str) -> None:
    graph = {key: value for key, value in GRAPH.items() if key != name}
    assert f"lacks the entry 'graph.{name}'" in refused(table(graph=graph))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"precision": "fp4"}, "has graph.precision = \"fp4\": input should be 'fp32', 'fp16' or 'int8'"),
        ({"size": [-64, 96]}, "has graph.size.0 = -64"),
        ({"size": [64]}, "lacks the entry 'graph.size.1'"),
        ({"size": [64, 100]}, "has a graph.size that is no multiple of graph.divisor, 32"),
        ({"stride": 0}, "has graph.stride = 0"),
        ({"divisor": 24}, "graph.size that is no multiple of graph.divisor, 24"),
        ({"divisor": 64, "size": None}, "preprocessing.divisor that is no multiple of graph.divisor, 64"),
        ({"stuff": [0, 11]}, "has the stuff labels [0, 11], which are no distinct labels"),
        ({"stuff": [1, 1]}, "has the stuff labels [1, 1]"),
        ({"stuff": ["Sky"]}, 'has graph.stuff.0 = "Sky": input should be a valid integer'),
        ({"embeds": 1}, "has graph.embeds = 1: input should be a valid boolean"),
        ({"embeds": False}, "has only one of graph.embeds and graph.previous"),
        ({"previous": None}, "has only one of graph.embeds and graph.previous"),
        ({"previous": [2, 64, 256]}, "has graph.previous.0 = 2: input should be 1"),
        ({"previous": [1, 10**9, 10**9]}, "has graph.previous.1 = 1000000000"),
        ({"colour": 1}, "has an unknown entry 'graph.colour'"),
    ],
)
def test_a_wrong_graph(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in refused(table(graph={**GRAPH, **changes}))


def test_a_merge_inside_that_cannot_be() -> None:
    inside = {**GRAPH, "merge_inside": True}
    assert "graph.merge_inside for the task panoptic and the merge sorted" in refused(
        table(graph=inside, merge="sorted")
    )
    assert "graph.merge_inside for the task instance" in refused(table("knet-r50-coco-instance", graph=inside))


def test_a_card_made_in_python_is_checked_alike() -> None:
    row, classes = entry(MODEL), load_categories("camvid")
    with pytest.raises(ConfigError, match=r"The card of .* has 3 categories, and its network 11 classes; give another"):
        describe(MODEL, {}, classes[:3], row.preprocessing, 0.3, 0.6)
    with pytest.raises(ConfigError, match=r"has an unknown entry 'arguments\.depth'"):
        describe(MODEL, {"depth": 3}, classes, row.preprocessing, 0.3, 0.6)
    with pytest.raises(ConfigError, match="std divides"):
        describe(MODEL, {}, classes, replace(row.preprocessing, std=(0, 0, 0)), 0.3, 0.6)
    with pytest.raises(ConfigError, match="has score = 3"):
        describe(MODEL, {}, classes, row.preprocessing, 3, 0.6)
    for unwritable in (object(), 10**5000):
        with pytest.raises(ConfigError, match="give another value"):
            describe(MODEL, {}, classes, row.preprocessing, 0.3, 0.6, licence=unwritable)
    with pytest.raises(ConfigError, match="did you mean 'rtknet-slim-camvid'"):
        describe("rtknet-slim-camvit", {}, classes, row.preprocessing, 0.3, 0.6)


class Files:
    """A file of weights whose card is replaced."""

    def __init__(self, source: Path, folder: Path):
        from safetensors import safe_open

        self.state, self.path = load_file(source), folder / "spoilt.safetensors"
        with safe_open(source, framework="pt") as file:
            self.card: dict[str, Any] = json.loads(file.metadata()["knet"])

    def load(self, content: Any) -> knet.Segmenter:
        text = content if isinstance(content, str) else json.dumps(content)
        save_file(self.state, self.path, {"knet": text})
        return knet.load(self.path, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def files(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tiny_weights, tmp_path_factory.mktemp("cards"))


IMAGE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def test_a_faulty_card_names_its_file(files: Files) -> None:
    assert files.load(files.card)(IMAGE).id_map.shape == (40, 60)
    for content in ("nothing", [files.card], {**files.card, "score": "high"}):
        with pytest.raises(CheckpointError, match=f"The card of '{files.path}' "):
            files.load(content)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kernels": 65536, "channels": 65536}, "do not fit this model"),  # found without taking the memory
        ({"channels": 3}, "cannot be built as the weights .* need it"),
    ],
)
def test_arguments_of_another_network(
    changes: dict[str, Any], sentence: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knet.inference.own_classes.fitting", lambda state: "")  # which builds every model there is
    with pytest.raises(CheckpointError, match=sentence) as error:
        files.load({**files.card, "arguments": {**files.card["arguments"], **changes}})
    assert str(files.path) in str(error.value)


def test_a_divisor_that_the_network_cannot_take(files: Files) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessing\.divisor that is no multiple of 32"):
        files.load({**files.card, "preprocessing": {**files.card["preprocessing"], "divisor": 8}})


def test_a_backbone_from_elsewhere_is_not_fetched(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("asked the network")

    monkeypatch.setattr("socket.socket.connect", fetched)
    card = table("knet-r50-coco-panoptic", arguments={"backbone": "timm/hf-hub:timm/resnet10t.c3_in1k"})
    with pytest.raises(CheckpointError, match="cannot be a backbone here"):
        files.load(card)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NASTY = st.sampled_from(
    [0, -1, 1, 2, 10**9, 10**30, 10**3000, 1e308, -0.0, True, "", "0", "1e999", [], {}, [[]], "knet-r50-coco-instance"]
)


@st.composite
def spoilt(draw: st.DrawFn, card: dict[str, Any]) -> str:
    """The card's JSON with up to three entries removed, replaced, added, moved or doubled; or any text."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.text() | JSON.map(json.dumps))
    content = copy.deepcopy(card)
    for _ in range(draw(st.integers(1, 3))):
        place: Any = content
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
                break
            place = place[key]
        change = draw(st.sampled_from(["remove", "replace", "nasty", "add", "double"]))
        if not isinstance(place, dict | list) or not place:
            continue
        if change == "remove":
            del place[key]
        elif change in ("replace", "nasty"):
            place[key] = copy.deepcopy(draw(JSON if change == "replace" else NASTY))  # which the next change may change
        elif isinstance(place, dict):
            place[draw(st.text(max_size=8))] = draw(JSON)
        else:
            place.insert(key, copy.deepcopy(place[key]) if change == "double" else draw(JSON))
    text = json.dumps(content)
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 19)) == 0 else text


@settings(max_examples=300, deadline=None)
@given(text=spoilt(table()) | spoilt(table(graph=GRAPH)))
def test_whatever_a_card_says_it_is_read_or_refused(text: str) -> None:
    try:
        card = Card.read(text, "model.onnx")
    except CheckpointError as error:
        assert "'model.onnx'" in str(error)
    else:
        assert Card.read(card.text(), "again").text() == card.text()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_card_that_is_read_can_be_used(data: st.DataObject, files: Files) -> None:
    text = data.draw(spoilt(files.card))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("knet.inference.own_classes.fitting", lambda state: "")
        try:
            segmenter = files.load(text)
        except CheckpointError as error:
            assert str(files.path) in str(error)
        else:
            assert segmenter(IMAGE, size=32).id_map.shape == (40, 60)
