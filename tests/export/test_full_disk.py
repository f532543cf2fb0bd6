"""A disk that is full while an export is written, which OpenVINO tells as an error of its own."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from knet.errors import OutputError
from knet.export.openvino import save_openvino


def test_openvino_files_on_a_full_disk(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    operators: Any = pytest.importorskip("openvino.opset13")
    given = operators.parameter([1, 4000], np.float32)
    numbers = np.random.default_rng(0).random((1, 4000), np.float32)
    model = openvino.Model([operators.add(given, operators.constant(numbers))], [given])
    before, card = resource.getrlimit(resource.RLIMIT_FSIZE), cast(Any, SimpleNamespace(text=lambda: "{}"))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python itself has it
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"Cannot write '.*m\.xml'"):
            save_openvino(model, card, tmp_path / "m.xml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    save_openvino(model, card, tmp_path / "m.xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
