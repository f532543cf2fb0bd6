"""Which models weights fit, said without building all that there are."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import knet
from knet.models.zoo import ZOO
from knet.weights import fitting

TABLE = Path(knet.__file__).parent / "assets" / "tensors.json"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are built from here on."""
    names: list[str] = []

    def create(name: str, **arguments: Any) -> Any:
        names.append(name)
        return knet.create(name, **arguments)

    monkeypatch.setattr(fitting, "create", create)
    return names


def test_the_table_is_that_of_the_networks() -> None:
    """If this fails, run benchmarks/model_table.py."""
    stored = json.loads(TABLE.read_text())
    assert stored.keys() == ZOO.keys()
    for name in ("rtknet-lite-street", "knet-r50-coco-panoptic", "rt-video-knet-kitti-step"):
        assert stored[name] == fitting.outline(fitting.shapes_of(name))


def test_foreign_weights_build_no_model(built: list[str]) -> None:
    foreign = {f"layer.{n}.weight": torch.zeros(2, 3) for n in range(500)}
    assert fitting.fitting(foreign) == "They fit none of `knet models`."
    assert not built


def test_foreign_weights_for_a_named_model_import_no_compiler_of_torch(tmp_path: Path) -> None:
    """Which takes several seconds."""
    torch.save({f"layer.{n}.weight": torch.zeros(2, 3) for n in range(50)}, tmp_path / "foreign.pth")
    code = (
        "import sys\nimport knet\n"
        "try:\n    knet.load('rtknet-cityscapes', weights=sys.argv[1], device='cpu')\n"
        "except knet.KNetError as error:\n"
        "    print('do not fit this model' in str(error), 'torch._dynamo' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "foreign.pth")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_published_weights_build_no_model(built: list[str]) -> None:
    assert fitting.fitting(knet.create("rtknet-lite-coco").state_dict()) == "They fit: rtknet-lite-coco."
    assert not built


def test_weights_with_other_arguments_build_few_models(built: list[str]) -> None:
    state = knet.create("rtknet-lite-street", kernels=10, stages=2).state_dict()
    assert "rtknet-lite-street with kernels=10 stages=2" in fitting.fitting(state)
    assert 0 < len(built) <= 4
