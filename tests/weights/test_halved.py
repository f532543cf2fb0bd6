"""Weights in half precision that do not fit into it."""

from pathlib import Path

import pytest
import torch

import knet
from knet.errors import CheckpointError
from knet.weights.load import read_checkpoint, save_weights
from tiny_models import tiny_file


@pytest.mark.parametrize("number", [1e5, -7e4])
def test_weights_too_large_for_float16_are_not_converted_to_infinity(number: float, tmp_path: Path) -> None:
    path, target = tiny_file("instance", tmp_path), tmp_path / "half.safetensors"
    checkpoint = read_checkpoint(path)
    assert checkpoint.card is not None
    key = next(key for key, tensor in checkpoint.state.items() if tensor.ndim == 4)
    state = {**checkpoint.state, key: torch.full_like(checkpoint.state[key], number)}
    save_weights(path, state, checkpoint.card)
    with pytest.raises(
        CheckpointError, match=rf"The tensor '{key}' .* too large for float16; leave half \(--half\) out"
    ):
        knet.convert(path, target, checkpoint.card.model, half=True)
    assert not target.exists()
    knet.convert(path, target, checkpoint.card.model)
