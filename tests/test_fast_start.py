"""What is imported, and when: wrong paths are told, and the bundled model runs, without what is slow to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from knet.preprocess import resize_antialiased

DEMO = Path(__file__).parents[1] / "src/knet/assets/demo"
HEAVY = {"torch", "torchvision", "timm", "scipy.optimize", "scipy.special", "matplotlib", "numba", "pydantic", "sympy"}


def imported(*arguments: object) -> tuple[int, set[str], str]:
    """Exit status, which of the heavy modules `knet ...` imports, and what it says of errors."""
    code = (
        f"import sys; from knet.cli.main import main\n"
        f"try: status = main(sys.argv[1:])\n"
        f"except SystemExit as stop: status = stop.code\n"
        f"print(); print(*({HEAVY} & set(sys.modules))); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, set(done.stdout.splitlines()[-1].split()), done.stderr


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["models"], 0), (["predict", "--help"], 0)])
def test_help_and_the_list_of_models_need_nothing_heavy(arguments: list[str], status: int) -> None:
    assert imported(*arguments)[:2] == (status, set())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["predict", "rtknet-lite-street", "no/such.jpg"], "There is no 'no/such.jpg'"),
        (["predict", "rtknet-lite-strete", str(DEMO)], "did you mean 'rtknet-lite-street'"),
        (["predict", "no/weights.safetensors", str(DEMO)], "no/weights.safetensors"),
    ],
)
def test_a_wrong_path_or_name_is_told_before_torch_is_imported(wrong: list[str], said: str) -> None:
    status, modules, error = imported(*wrong)
    assert status == 2 and said in error and modules <= {"scipy.special"}


def test_a_prediction_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    options = ("--size", "64", "--formats", "json", "--output", tmp_path)
    status, modules, error = imported("predict", "rtknet-lite-street", DEMO / "city_1.jpg", *options)
    assert status == 0, error
    assert modules <= {"torch", "numba", "pydantic", "scipy.special"}


def test_resizing_is_that_of_torchvision() -> None:
    random = np.random.default_rng(0)
    for size, wanted in (((48, 64), (20, 30)), ((33, 21), (47, 64)), ((5, 4), (9, 2))):
        image = torch.from_numpy(random.integers(0, 256, (*size, 3), dtype=np.uint8)).permute(2, 0, 1)
        theirs = TF.resize(image, list(wanted), InterpolationMode.BILINEAR, antialias=True)
        assert torch.equal(resize_antialiased(image, wanted), theirs)
