"""Every model by name: how it is built, and what its official weights need to be used rightly."""

import difflib
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from knet.errors import ConfigError
from knet.models.realtime import RTKNet
from knet.structures import Preprocessing

_SLIM = {"width": 32, "head_width": 64, "injection": (True, True)}


@dataclass(frozen=True)
class ZooEntry:
    """A model's row in the zoo.

    `build(**arguments)` makes the network · `categories` names the class table · `preprocessing`, `score` and
    `overlap` are the published test settings · `published` holds figures from the paper, as stated there ·
    `bundled` is the file of weights that comes with the package, None where there is none.
    """

    build: Callable[..., nn.Module]
    arguments: dict[str, Any]
    categories: str
    preprocessing: Preprocessing
    score: float
    overlap: float
    about: str
    published: dict[str, float] = field(default_factory=dict)
    bundled: str | None = None


ZOO: dict[str, ZooEntry] = {
    "rtknet-cityscapes": ZooEntry(
        RTKNet,
        {"classes": 19},
        "cityscapes",
        Preprocessing(short_edge=1024, max_edge=2048),
        score=0.3,
        overlap=0.6,
        about="RT-K-Net, RTFormer base: real-time panoptic segmentation of streets",
        published={"val PQ": 60.2},
    ),
    "rtknet-mapillary": ZooEntry(
        RTKNet,
        {"classes": 65},
        "mapillary",
        Preprocessing(short_edge=2048, max_edge=2048),
        score=0.0,
        overlap=0.6,
        about="RT-K-Net, RTFormer base, 65 classes of streets all over the world",
        published={"val PQ": 33.2},
    ),
    "rtknet-slim-cityscapes": ZooEntry(
        RTKNet,
        {"classes": 19, **_SLIM},
        "cityscapes",
        Preprocessing(short_edge=1024, max_edge=2048),
        score=0.3,
        overlap=0.6,
        about="RT-K-Net with RTFormer slim: half the width, for small machines",
    ),
    "rtknet-slim-camvid": ZooEntry(
        RTKNet,
        {"classes": 11, "kernels": 64, **_SLIM},
        "camvid",
        Preprocessing(short_edge=384, max_edge=768),
        score=0.3,
        overlap=0.6,
        about="small street model trained by this project on CamVid; comes with the package (non-commercial data)",
        bundled="rtknet-slim-camvid.safetensors",
    ),
}


def models(pattern: str = "*") -> list[str]:
    """The names of all models, or of those that match a pattern with * and ?."""
    return fnmatch.filter(ZOO, pattern)


def entry(name: str) -> ZooEntry:
    """The zoo's row of a model.

    Raises:
        ConfigError: no model has this name; says which is nearest.
    """
    if name not in ZOO:
        near = difflib.get_close_matches(name, ZOO, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"it is one of: {', '.join(ZOO)}."
        raise ConfigError(f"There is no model '{name}'; {hint} `knet models` lists all.")
    return ZOO[name]


def create(name: str, **arguments: Any) -> nn.Module:
    """A network with random weights, in training mode.

    Args:
        name: one of `knet.models()`.
        arguments: constructor arguments that replace the model's own, such as `classes=3` or `kernels=50`.

    Raises:
        ConfigError: unknown model, or an argument that the network does not have.
    """
    row = entry(name)
    try:
        return row.build(**{**row.arguments, **arguments})
    except TypeError as error:
        raise ConfigError(f"Model '{name}' cannot be built with {sorted(arguments)}: {error}.") from error
