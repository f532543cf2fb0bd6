"""`import knet`: the same names, in whatever order its rooms are imported."""

import subprocess
import sys

import pytest

ORDERS = {
    "after the room": "import knet.models.zoo; import knet; names = knet.models()",
    "before and after": "import knet; knet.models(); import knet.models.image; names = knet.models()",
    "by name": "from knet import models; import knet.models.zoo; names = models()",
    "the room as": "import knet; knet.models; import knet.models.zoo as zoo; names = zoo.models()",
}


@pytest.mark.parametrize("code", ORDERS.values(), ids=ORDERS.keys())
def test_the_models_are_listed_in_every_order_of_imports(code: str) -> None:
    code += "; assert 'rtknet-cityscapes' in names, names; assert knet.models('*camvid') if 'knet' in dir() else True"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_pattern_chooses() -> None:
    import knet

    assert knet.models("rtknet-*-camvid") == ["rtknet-slim-camvid"]
    assert "knet-r50-coco-instance" in knet.models("*instance")
