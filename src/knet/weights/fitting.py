"""Finds the models that a file of weights fits, for the error of a model that it does not fit.

What tensors each model has stands in a table that benchmarks/model_table.py makes: to build them all takes seconds.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from knet.errors import KNetError
from knet.models.zoo import ZOO, ZooEntry, create


def fitting(state: dict[str, Tensor]) -> str:
    """A sentence that names the models which weights under our names fit, as published or with other arguments."""
    shapes = {key: tensor.shape for key, tensor in state.items()}
    table: dict[str, list[str]] = json.loads((resources.files("knet") / "assets" / "tensors.json").read_text("utf-8"))
    names, exact = outline(shapes)
    published = [name for name in ZOO if table[name][1] == exact]
    if published:
        return f"They fit: {', '.join(published)}."
    # Only models whose tensors have the same names can fit with other arguments.
    implied = {name: _implied(shapes, row) for name, row in ZOO.items() if table[name][0] == names}
    close = {name: arguments for name, arguments in implied.items() if arguments and _fits(shapes, name, arguments)}
    if not close:
        return "They fit none of `knet models`."
    fewest = min(map(len, close.values()))
    listed = [
        f"{name} with {' '.join(f'{key}={value}' for key, value in arguments.items())}"
        for name, arguments in close.items()
        if len(arguments) == fewest
    ]
    return f"They fit: {', '.join(listed)}."


def outline(shapes: Mapping[str, torch.Size]) -> list[str]:
    """Two short texts that tell whether tensors have the same names, however many stages there are, and shapes."""
    names = sorted({re.sub(r"(?<=stages\.)\d+", "N", key) for key in shapes})
    rows = sorted(f"{key} {tuple(shape)}" for key, shape in shapes.items())
    return [hashlib.sha256("\n".join(lines).encode(errors="replace")).hexdigest()[:16] for lines in (names, rows)]


def shapes_of(name: str, **arguments: Any) -> dict[str, torch.Size]:
    """The shapes of a model's tensors."""
    with torch.device("meta"):  # shapes alone, no memory
        return {key: tensor.shape for key, tensor in create(name, **arguments).state_dict().items()}


def _fits(shapes: dict[str, torch.Size], name: str, arguments: dict[str, Any]) -> bool:
    if "classes" in arguments and "stuff" in ZOO[name].arguments:  # no shape shows which classes are stuff
        arguments = {**arguments, "stuff": ()}
    try:
        return shapes_of(name, **arguments) == shapes
    except (KNetError, ValueError):  # arguments that contradict each other
        return False


def _implied(shapes: dict[str, torch.Size], row: ZooEntry) -> dict[str, int]:
    """The sizes by the shapes, such as the 256 channels of K-Net's own UPerNets, where a row has other values."""
    stages = {key[1] for key in (re.match(r"(?:decoder\.)?stages\.(\d+)\.", key) for key in shapes) if key}
    found = {
        "kernels": _size(shapes, "decoder.kernels", 0),
        "channels": _size(shapes, "decoder.kernels", 1) or _size(shapes, "kernels.1.weight", 1),
        "classes": _size(shapes, "decoder.stages.0.to_class.3.bias", 0) or _size(shapes, "kernels.1.weight", 0),
        "update_channels": _size(shapes, "stages.0.update.out.bias", 0),
        "stages": len(stages),
    }
    taken = inspect.signature(row.build).parameters
    own = {name: row.arguments.get(name, parameter.default) for name, parameter in taken.items()}
    return {name: size for name, size in found.items() if size and name in own and size != own[name]}


def _size(shapes: dict[str, torch.Size], key: str, axis: int) -> int:
    """The length of a tensor's axis, 0 where there is none."""
    shape = shapes.get(key, ())
    return shape[axis] if axis < len(shape) else 0
