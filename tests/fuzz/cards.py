"""Files of weights: their cards, their headers, their numbers, and those of PyTorch."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch

import knet
from fuzz.mutate import mutated_bytes, mutated_tree
from fuzz.oracle import refused
from knet.weights.card import METADATA_KEY, Card
from knet.weights.load import read_checkpoint
from tiny_models import ARGUMENTS, tiny_file

_IMAGE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)


def prepare(folder: Path) -> Callable[[Random], bool]:
    """See `fuzz`."""
    files = {task: tiny_file(task, folder).read_bytes() for task in ARGUMENTS}
    pickled = io.BytesIO()
    torch.save({"state_dict": {"a.weight": torch.ones(3, 4), "b": torch.zeros(2)}, "meta": {"CLASSES": ["x"]}}, pickled)

    def case(rng: Random) -> bool:
        task = rng.choice(sorted(files))
        kind = rng.random()
        if kind < 0.1:
            path = folder / "case.pth"
            path.write_bytes(_other_pickle(rng, pickled.getvalue()))
            return refused(lambda: read_checkpoint(path))
        header, body = _parts(files[task])
        if kind < 0.75:
            card = json.dumps(mutated_tree(rng, json.loads(header["__metadata__"][METADATA_KEY])))
            if refused(lambda: Card.read(card, "case")):
                return True
            header["__metadata__"][METADATA_KEY] = card
        elif kind < 0.9:
            header = mutated_tree(rng, header)
        else:
            body = _other_numbers(rng, body)
        data = json.dumps(header).encode()
        data = struct.pack("<Q", len(data)) + data + body
        path = folder / "case.safetensors"
        path.write_bytes(mutated_bytes(rng, data) if kind > 0.97 else data)
        return refused(lambda: knet.load(path, device="cpu")(_IMAGE))

    return case


def _parts(data: bytes) -> tuple[dict, bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _other_numbers(rng: Random, body: bytes) -> bytes:
    values = np.frombuffer(body[: len(body) // 4 * 4], "<f4").copy()
    place = rng.randrange(len(values))
    values[place : place + rng.choice((1, 100, 10**6))] = rng.choice((np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-42, 0.0))
    return values.tobytes()


def _other_pickle(rng: Random, data: bytes) -> bytes:
    """The zip file of PyTorch with another pickle in it."""
    if rng.random() < 0.3:
        return mutated_bytes(rng, data)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            changed = name.endswith("data.pkl") or rng.random() < 0.1
            new.writestr(name, mutated_bytes(rng, content) if changed else content)
    return buffer.getvalue()
