"""Options that cannot be meant: each is one sentence before any work, from a config, the command line or Python."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import knet
from knet.cli.main import main
from knet.config import read_config
from knet.errors import ConfigError, DataError, shown
from knet.inference.identities import choose_tracker
from knet.inference.load import choose_device
from knet.inference.segmenter import Segmenter
from knet.preprocess import network_size
from knet.structures import Preprocessing
from tiny_models import tiny_file

HUGE = 10**30
NAN, INFINITE = float("nan"), float("inf")
DEEP: list[Any] = []
for _ in range(2000):
    DEEP = [DEEP]
OF_CONFIGS = [
    *[(f"losses__{name}", value) for name in ("mask", "dice", "classes", "track") for value in (-1, NAN, INFINITE)],
    *[(name, value) for name in ("short_edge", "max_edge") for value in (0, -1, HUGE, "x", NAN)],
    *[(name, value) for name in ("score", "overlap") for value in (2, -0.1, NAN, INFINITE, [])],
    *[(name, value) for name in ("augment__pad", "augment__crop") for value in ([-1, -1], [0, 5], [HUGE, 1], [1], 7)],
    ("data__offsets", []),
    ("data__offsets", [HUGE]),
    ("augment__short_edges", []),
    ("augment__short_edges", [0]),
    ("augment__ratio", [2, 1]),
    ("augment__ratio", [0, 1]),
    ("augment__largest_class", 3),
    ("augment__pad_color", [0, 0, 300]),
    *[(name, HUGE) for name in ("iterations", "batch", "workers", "validate_every", "optimizer__warmup", "seed")],
    ("optimizer__learning_rate", INFINITE),
    ("optimizer__weight_decay", NAN),
    ("optimizer__clip", INFINITE),
    ("optimizer__steps", [-1]),
    ("seed", -1),
]


@pytest.mark.parametrize(("name", "value"), OF_CONFIGS)
def test_a_config_refuses_what_cannot_be_meant(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"'{name.split('__')[0]}"):
        read_config("rtknet-cityscapes", **{name: value})


def test_only_a_config_is_one() -> None:
    for wrong in (5, None, [], {}):
        with pytest.raises(ConfigError, match="cannot be"):
            read_config(wrong)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def semantic(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return knet.load(tiny_file("semantic", tmp_path_factory.mktemp("tiny")), device="cpu")


OF_CALLS: list[dict[str, Any]] = [
    *[{"size": size} for size in (0, 100_000, HUGE, 1.5, NAN, True, "x", [], (64, 32), (1, HUGE), {})],
    *[{"score": score} for score in (2, -1, NAN, INFINITE, "0.5", [], True)],
    *[{name: side} for name in ("window", "stride") for side in (0, -1, 1.5, "x", (1,), (HUGE, 1), [])],
    *[{"scales": scales} for scales in ((), (0,), (NAN,), (INFINITE,), "ab", 5, [1.0] * 1000, (200_000,))],
    *[{"only": only} for only in (5, [5], ["no such class"])],
    *[{"region": region} for region in (5, (0, 0, HUGE, HUGE), (0.0, 0.0, 1.0, 1.0), (1, 2, 3))],
    *[{name: scalar} for name in ("only", "scales") for scalar in (np.array(1.0), torch.tensor(1.0), DEEP)],
    {"flip": "yes"},
    {"window": (1, 1)},
    {"window": 32, "stride": 1},
]


@pytest.mark.parametrize("options", OF_CALLS, ids=shown)
def test_a_call_refuses_what_cannot_be_meant(options: dict[str, Any], semantic: Segmenter) -> None:
    image = np.zeros((160, 320, 3), np.uint8)
    with pytest.raises(ConfigError):
        semantic(image, size="image", **options) if "size" not in options else semantic(image, **options)


def test_a_threshold_may_be_any_real_number(semantic: Segmenter) -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    for half in (Fraction(1, 2), np.float16(0.5), 0.5):
        semantic(image, size=32, score=half, scales=[half])
    assert not semantic(image, size=32, only=[]).segments


def test_large_images_keep_their_size() -> None:
    assert network_size((10_000, 13_000), "image", Preprocessing(800, 1333)) == (10_000, 13_000)
    assert network_size((100, 20_000), (5_000, 20_000), Preprocessing(800, 1333)) == (100, 20_000)


def test_images_in_lists_in_lists_are_none(semantic: Segmenter) -> None:
    """They were segmented, and two thousand of them round each other were a traceback."""
    deep: Any = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(DataError, match="Cannot take an image from a list"):
        semantic(deep)


def test_an_unknown_keyword_has_a_nearest_one(semantic: Segmenter) -> None:
    tries: list[tuple[Callable[[], object], str]] = [
        (lambda: semantic(np.zeros((8, 8, 3), np.uint8), scroe=0.5), "'score'"),  # type: ignore[call-overload]
        (lambda: knet.load("rtknet-lite-street", devise="cpu"), "'device'"),  # type: ignore[call-arg]
        (lambda: knet.create("rtknet-lite-street", clases=5), "'classes'"),
        (lambda: read_config("rtknet-cityscapes", los__mask=1), "'losses'"),
        (lambda: knet.export("rtknet-lite-street", formt="onnx"), "'format'"),  # type: ignore[call-arg]
        (lambda: knet.convert("a.pth", "b.safetensors", modl="x"), "'model'"),  # type: ignore[call-arg]
        (lambda: knet.evaluation.mean_iou(truths="a"), "'truth'"),  # type: ignore[call-arg]
        (lambda: semantic(np.zeros((8, 8, 3), np.uint8), size=32).to_coco(froms="rle"), "'form'"),  # type: ignore[call-arg]
        (lambda: semantic(np.zeros((8, 8, 3), np.uint8), size=32).save("x", format="json"), "'formats'"),  # type: ignore[call-arg]
    ]
    for call, meant in tries:
        with pytest.raises(ConfigError, match=f"did you mean {meant}"):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: knet.load(3),
        lambda: knet.load("rtknet-lite-street", weights=3),
        lambda: knet.load("rtknet-lite-street", precision=8),
        lambda: knet.load("rtknet-lite-street", merge=[]),
        lambda: knet.load("rtknet-lite-street", compile="no"),
        lambda: knet.load("rtknet-lite-street", threads="2"),
        lambda: knet.load("rtknet-lite-street", threads=HUGE),
        lambda: knet.create([]),
        lambda: knet.create("rtknet-lite-street", stages=0),
        lambda: knet.create("rtknet-lite-street", stages=HUGE),
        lambda: knet.create("rtknet-lite-street", kernels=object()),
        lambda: knet.models(5),
        lambda: knet.convert(5, 6, 7),
        lambda: knet.train(5),
        lambda: knet.evaluate("rtknet-lite-street", 5),
        lambda: knet.export(5),
        lambda: knet.export("rtknet-lite-street", size=5),
        lambda: knet.export("rtknet-lite-street", size=("a", 3)),
        lambda: knet.export("rtknet-lite-street", size=(HUGE, 32)),
        lambda: knet.export("rtknet-lite-street", batch="x"),
        lambda: choose_device("meta"),
        lambda: choose_device([]),
        lambda: choose_device(np.array(["cpu", "cpu"])),
        lambda: choose_device(HUGE),
        lambda: choose_tracker(np.array(["overlap", "overlap"]), "overlap", False, "m"),
        lambda: choose_tracker(DEEP, "overlap", False, "m"),
    ],
)
def test_a_wrong_type_is_an_error_of_one_sentence(call: Callable[[], object]) -> None:
    with pytest.raises(ConfigError) as error:
        call()
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.filterwarnings("ignore")  # torch does not recommend quantised tensors either
def test_tensors_without_readable_pixels_are_no_images(semantic: Segmenter) -> None:
    plain = torch.zeros(3, 8, 8)
    for image in (
        plain.to_sparse(),
        plain.to("meta"),
        torch.quantize_per_tensor(plain, 0.1, 0, torch.quint8),
        plain.bool(),
        plain.to(torch.complex64),
        torch.nested.nested_tensor([torch.zeros(2)]),
        np.zeros((8, 8, 3), object),
        np.broadcast_to(np.uint8(0), (10**5, 10**5, 3)),
    ):
        with pytest.raises(DataError, match="The image given as"):
            semantic(image)


def test_no_option_of_the_command_line_is_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(tmp_path / "a.png")
    Image.new("RGB", (64, 32)).save(photo)
    for options in (["--size", "100000"], ["--size", "9" * 30], ["--score", "nan"], ["--threads", "9" * 30]):
        assert main(["predict", "rtknet-lite-street", photo, "--output", str(tmp_path / "out"), *options]) == 2
        assert capsys.readouterr().err.startswith("knet: ")
