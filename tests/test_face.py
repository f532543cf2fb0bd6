"""`import knet`: the same names, in whatever order its rooms are imported."""

import subprocess
import sys

ORDERS = (
    "import knet.models.zoo; import knet; names = knet.models()",
    "import knet; knet.models(); import knet.models.image; names = knet.models()",
    "from knet import models; import knet.models.zoo; names = models()",
    "import knet; knet.models; import knet.models.zoo as zoo; names = zoo.models()",
)


SCRIPT = """
import sys
for code in {orders}:
    for name in [name for name in sys.modules if name.split(".")[0] == "knet"]:
        del sys.modules[name]
    room = {{}}
    exec(code, room)
    assert "rtknet-cityscapes" in room["names"], code
    assert "knet" not in room or room["knet"].models("*camvid"), code
"""


def test_the_models_are_listed_in_every_order_of_imports() -> None:
    """In one process, because torch takes seconds to be imported; knet is imported anew for each order."""
    script = SCRIPT.format(orders=ORDERS)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_pattern_chooses() -> None:
    import knet

    assert knet.models("rtknet-*-camvid") == ["rtknet-slim-camvid"]
    assert "knet-r50-coco-instance" in knet.models("*instance")
