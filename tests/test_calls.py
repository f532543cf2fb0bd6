"""Calls from Python with values of another kind: one sentence that names the option, and whatever works is welcome."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

import knet
from knet.calls import fits, named_options
from knet.errors import ConfigError, DataError, KNetError
from knet.inference.bench import measure
from knet.inference.clip import segment_clip
from knet.inference.identities import VideoState
from knet.inference.push import push
from knet.inference.results.writers import ResultWriter
from knet.inference.segmenter import Segmenter
from knet.inference.votes import vote
from knet.runs.choose import choose
from knet.runs.label import Labeller, LabelSettings, label_images
from tiny_models import tiny_file

NAN, HUGE = float("nan"), 10**30
IMAGE = np.zeros((24, 32, 3), np.uint8)


class Odd:
    """What raises wherever it is looked at."""

    def __repr__(self) -> str:
        raise RuntimeError

    __eq__ = None  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


ODD = (NAN, -1, HUGE, "a\0b", b"abc", None, np.array(0.5), torch.zeros(3), [None], {1: 2}, Odd(), iter([1]))


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [3, np.int8(3)], [True, 3.0, "3", HUGE, np.array(3), torch.tensor(3)]),
        (float, [3, 0.5, np.float16(0.5)], [True, NAN, float("inf"), HUGE**11, "0.5", 1j]),
        (bool, [True, np.bool_(True)], [1, 0, "no", None]),
        (str, ["", "é"], [b"x", "a\0b", "\udcff", Path("x")]),
        (str | Path | None, ["x", Path("x"), None], [3, b"x"]),
        (str | PathLike[str], ["x", Path("x")], [3, b"x", 0.5]),
        (Literal["a", "b"], ["a"], ["c", ["a"], np.zeros(2)]),
        (Sequence[float], [[1, 2.0], (), range(3)], [3, "12", b"12", [None], {1.0}, iter([1.0])]),
        (tuple[int, int], [(1, 2), [1, 2]], [(1,), (1, 2, 3), 1, (1, 0.5)]),
        (tuple[int, ...], [(1, 2, 3), ()], [1, (None,)]),
        (Iterable[int], [iter([1]), {1}, [1]], [np.array(1), torch.tensor(1), 5, "1"]),
        (Mapping[str, int], [{}, {"a": 1}], [[], {1: 1}, {"a": "b"}]),
        (dict[str, Any], [{"a": object()}], [None, {1: 1}]),
        (Callable[[int], None], [len], ["len", None]),
        (np.ndarray, [IMAGE], [[], torch.zeros(3)]),
        (Any, [None, 3], []),
    ],
)
def test_what_fits_an_annotation(hint: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not fits(value, hint)] == []
    for value in bad:
        try:
            fitting = fits(value, hint)
        except (TypeError, OverflowError):  # arrays without axes, and numbers without end, say it themselves
            fitting = False
        assert not fitting, value


def test_a_value_is_looked_at_only_when_the_function_has_failed() -> None:
    @named_options
    def doubled(value: int, loud: bool = False) -> Any:
        return value * 2

    assert doubled("ab") == "abab"  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"The option value cannot be None; give a whole number"):
        doubled(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"The option loud cannot be 'no'; give True or False"):
        doubled(1, loud="no")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no option 'lout' of doubled; did you mean 'loud'"):
        doubled(1, lout=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):  # of which Python has a sentence
        doubled()  # type: ignore[call-arg]


def test_a_fault_of_our_own_stays_what_it_is() -> None:
    @named_options
    def broken(value: int) -> None:
        raise ZeroDivisionError(value)

    with pytest.raises(ZeroDivisionError):
        broken(3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return knet.load(tiny_file("panoptic", tmp_path_factory.mktemp("tiny")), device="cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return knet.load(tiny_file("clip", tmp_path_factory.mktemp("tiny")), device="cpu")


def test_no_value_of_a_documented_function_is_a_traceback(
    model: Segmenter, clips: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    labeller = Labeller([model])
    result = model.segment(IMAGE, "a")
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "segment": (model.segment, {"image": IMAGE, "name": "a"}),
        "next": (
            model.segment_next,
            {"image": IMAGE, "state": VideoState(), "number": 0, "linked": True},
        ),
        "clip": (lambda **o: segment_clip(clips, **o), {"frames": [IMAGE], "count": 2}),
        "vote": (lambda **o: vote(model, **o), {"image": IMAGE, "scales": (1.0,), "flip": False}),
        "measure": (lambda **o: measure(model, **o), {"size": (0, 32), "rounds": 1}),
        "push": (push, {"model": "nothing.safetensors", "target": "out", "licence": None}),
        "settings": (
            LabelSettings,
            {"scales": (1.0,), "flip": True, "agree": 1.0, "score": 0.4, "minimum_area": 1},
        ),
        "labeller": (Labeller, {"models": [model], "categories": None, "renames": None, "settings": None}),
        "label": (label_images, {"labeller": labeller, "images": "none", "output": "o", "overwrite": False}),
        "writer": (
            lambda **o: ResultWriter(**o).close(),
            {"folder": "w", "formats": ["json"], "categories": model.categories, "drawing": None},
        ),
        "write": (
            lambda **o: ResultWriter("w", ["json"], model.categories).write(result, IMAGE, **o),
            {"name": "a", "file_name": None},
        ),
        "choose": (choose, {"root": "nothing", "given": None}),
        "report": (lambda **o: knet.evaluate(model, "nothing", **o), {"report": None, "linked": True}),
    }
    for what, (call, whole) in calls.items():
        for name in whole:
            for value in ODD:
                try:
                    call(**{**whole, name: value})
                except KNetError as error:
                    assert len(str(error)) < 2000, (what, name)


def test_numbers_of_numpy_are_counted_on_with_in_full(model: Segmenter) -> None:
    """An 8-bit number times another one is no size."""
    tall = np.zeros((20, 24, 3), np.uint8)
    for number in (np.uint8(64), np.int8(64)):
        plain = model(tall, size=int(number), region=(0, 0, 22, 20))
        found = model(tall, size=number, region=tuple(map(np.uint8, (0, 0, 22, 20))))  # type: ignore[arg-type]
        assert (found.id_map == plain.id_map).all()


@pytest.mark.parametrize("image", [IMAGE / 255, IMAGE[..., 0], IMAGE[None], IMAGE.astype(np.int64), np.zeros(3, "u1")])
def test_pixels_of_another_kind_are_refused_where_arrays_are_meant(image: Any, model: Segmenter) -> None:
    with pytest.raises(DataError, match=r"\(height, width, 3\) numbers of uint8"):
        model.segment(image, "a")
    with pytest.raises(DataError, match=r"\(height, width, 3\) numbers of uint8"):
        vote(model, image)


def test_a_callback_that_is_no_function(model: Segmenter) -> None:
    for wrong in (np.zeros(3), "print", 5):
        with pytest.raises(ConfigError, match="on_error cannot be"):
            next(model.track([IMAGE], on_error=wrong))  # type: ignore[arg-type]


def test_labels_for_a_name_that_no_file_can_have(model: Segmenter, tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    with pytest.raises(KNetError, match="name too long"):
        label_images(Labeller([model]), tmp_path, tmp_path / ("x" * 5000))


def test_labels_of_images_whose_names_differ_by_endings_alone(model: Segmenter, tmp_path: Path) -> None:
    """Of a.png, a.jpg and a.png.png, two had the same mask and the same id."""
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "a.jpg", "a.png.png", "A.png"):
        Image.fromarray(IMAGE).save(images / name)
    made = label_images(Labeller([model]), images, tmp_path / "out")
    rows = json.loads(made.json.read_text())
    assert len({row["id"].casefold() for row in rows["images"]}) == len(rows["images"]) == 4
    assert len({row["file_name"] for row in rows["annotations"]}) == len(list(made.masks.iterdir())) == 4
