"""Shared by all tests: the originals' numbers, networks with the originals' weights, and small things to work on."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

# A busy machine makes any single example slow; speed is measured in benchmarks/, never in a test.
settings.register_profile("knet", deadline=None)
settings.load_profile("knet")
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup make test` has ignored, in all processes
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as for what a script runs behind itself
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["KNET_OFFLINE"] = "1"  # no test needs the net; those of downloads talk to a server on this machine

BUNDLED = Path(__file__).parent / "goldens"


class Goldens:
    """`goldens / "rtknet"`: that folder of the whole set, which KNET_GOLDENS names, or else of the bundled subset."""

    def __truediv__(self, family: str) -> Path:
        whole = os.environ.get("KNET_GOLDENS")
        return Path(whole) / family if whole and (Path(whole) / family).is_dir() else BUNDLED / family

    def file(self, family: str, name: str) -> Path:
        """A file of the whole set. The bundled subset holds not all of them (25 MB is its limit): then the test is
        skipped, but where KNET_GOLDENS is set a missing file is a failure."""
        path = self / family / name
        if not path.is_file():
            assert "KNET_GOLDENS" not in os.environ, f"{path} is missing"
            pytest.skip(f"{name} is not in the bundled goldens; KNET_GOLDENS names the whole set")
        return path


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    return Goldens()


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """Two, or one where two test processes share the cores: threads that wait for each other spin."""
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def _fill_weights() -> Any:
    spec = importlib.util.spec_from_file_location("fill_weights", BUNDLED / "fill_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fill_torch() -> Any:
    """(state-dict names and shapes, seed, rule) -> the weights that the goldens were made with."""
    return _fill_weights().fill_torch


@pytest.fixture(scope="session")
def official_checkpoint(goldens: Goldens, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(manifest file name, seed, family) -> path of a checkpoint in the official form, made once a session.

    K-Net's are in the form of OpenMMLab's publishing tool, which writes PyTorch's old format, without a zip archive.
    """
    made: dict[tuple[str, int, str], Path] = {}

    def make(manifest: str, seed: int, family: str = "rtknet") -> Path:
        if (manifest, seed, family) not in made:
            content = json.loads((goldens / family / manifest).read_text())
            rule = "video" if family == "video_knet" else "knet"
            state = _fill_weights().fill_torch(content.get("keys", content), seed, rule)
            path = tmp_path_factory.mktemp("official") / f"{Path(manifest).stem}_{seed}.pth"
            if family == "rtknet":
                torch.save({"model": state, "iteration": 89_999}, path)
            else:
                content = {"meta": {"epoch": 12, "CLASSES": ("person", "bicycle")}, "state_dict": state}
                torch.save(content, path, _use_new_zipfile_serialization=False)
            made[manifest, seed, family] = path
        return made[manifest, seed, family]

    return make


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """A small image file."""
    path = tmp_path / "street.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((96, 64)).save(path)
    return path


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights of a very small model with CamVid's classes: quick, and wrong about everything."""
    from knet.data.categories import load_categories
    from knet.inference.load import describe
    from knet.models.zoo import create
    from knet.structures import Preprocessing
    from knet.weights.load import save_weights

    torch.manual_seed(0)
    arguments = {"width": 8, "head_width": 16, "channels": 16, "kernels": 12, "stages": 2}
    net = create("rtknet-slim-camvid", **arguments)
    with torch.no_grad():  # statistics of real activations, so that masks and classes differ over the image
        for _ in range(20):
            net(torch.nn.functional.interpolate(torch.randn(2, 3, 8, 12), (64, 96), mode="bicubic"))
        net.decoder.stages[-1].to_class[-1].weight.mul_(20)
    card = describe(
        "rtknet-slim-camvid", arguments, load_categories("camvid"), Preprocessing(short_edge=64, max_edge=128), 0.0, 0.1
    )
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_weights(path, net.state_dict(), card)
    return path
