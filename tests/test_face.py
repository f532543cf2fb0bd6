"""`import knet`: the same names in whatever order its rooms are imported, their types, and the page that shows them."""

import logging
import re
import subprocess
import sys
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_video import filmed
from PIL import Image

import knet

ROOT = Path(__file__).parents[1]

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
    assert knet.models("rtknet-*-camvid") == ["rtknet-slim-camvid"]
    assert "knet-r50-coco-instance" in knet.models("*instance")


def test_a_room_gives_its_files_and_nothing_else() -> None:
    assert knet.inference.results.draw.overlay is not None and "results" in dir(knet.inference)
    with pytest.raises(AttributeError, match=r"module 'knet\.inference' has no attribute 'nothing'"):
        _ = knet.inference.nothing
    with pytest.raises(TypeError, match=r"the module 'knet\.inference' cannot be called"):
        knet.inference()


SNIPPET = """
import knet
segmenter = knet.load("x")
reveal_type(segmenter)
reveal_type(segmenter("x.jpg"))
reveal_type(segmenter(b"", score=0.5).segments)
reveal_type(segmenter(["x.jpg", b""]))
knet.train(3)
"""
# Following the libraries would take a minute, and say the same.
LIBRARIES = "av faster_coco_eval matplotlib numba numpy onnx PIL pydantic safetensors scipy timm torch torchvision tqdm"


def test_editors_know_what_comes_out(tmp_path: Path) -> None:
    modules = ",".join(f"{name}.*" for name in LIBRARIES.split())
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nignore_missing_imports = true\n[mypy-{modules}]\nfollow_imports = skip\n"
        "follow_imports_for_stubs = true\n"
    )
    (tmp_path / "snippet.py").write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "snippet.py"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    result = "knet.inference.results.segmentation.Segmentation"
    assert re.findall(r'Revealed type is "(.*)"', shown) == [
        "knet.inference.segmenter.Segmenter",
        result,
        "list[knet.structures.Segment]",
        f"list[{result}]",
    ]
    assert 'Argument 1 to "train" has incompatible type "int"' in shown and "Found 1 error" in shown


def drawn_camvid(root: Path) -> None:
    """A data set of a few pictures with CamVid's classes."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (root / kind / part).mkdir(parents=True)
        for number in range(4):
            labels = np.full((64, 96), 3, np.uint8)
            labels[20 + number : 40, 10 : 50 + number] = 8
            Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)).save(root / "images" / part / f"{number}.png")
            Image.fromarray(labels).save(root / "labels" / part / f"{number}.png")
        make = knet.data.make.from_labels.labels_to_panoptic
        make(root / "images" / part, root / "labels" / part, root / part, "camvid")


@pytest.mark.large
def test_the_page_about_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With two iterations, a network of a few channels and a graph for one size, else exactly as it stands there."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 9
    monkeypatch.chdir(tmp_path)
    with resources.as_file(resources.files("knet") / "assets" / "demo") as demo:
        photo = Image.open(demo / "highway_1.jpg").resize((320, 180))
    photo.save("street.jpg")
    Path("photos").mkdir()
    photo.save("photos/street.jpg")
    filmed(Path("drive.mp4"), [np.array(photo)] * 3)
    drawn_camvid(tmp_path / "data" / "camvid")
    small: dict[str, Any] = {"arguments": {"width": 8, "head_width": 16, "channels": 16, "kernels": 6, "stages": 2}}
    small |= {"augment__short_edges": [48, 64], "augment__crop": [48, 64], "short_edge": 64, "max_edge": 96}
    small |= {"iterations": 2, "workers": 0, "losses__pixels": 64, "precision": "fp32"}
    monkeypatch.setattr(knet, "read_config", partial(knet.read_config, **small))
    monkeypatch.setattr(knet, "export", partial(knet.export, size=(64, 128)))
    monkeypatch.setattr(logging, "basicConfig", lambda **options: None)  # there is one already here
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert "There is no 'nowhere.jpg'" in capsys.readouterr().out
