"""knet: what every pixel is and which object it belongs to, with learned kernels.

    import knet
    segmenter = knet.load("rtknet-slim-camvid")
    segmentation = segmenter("street.jpg")

Everything heavy is imported on first use, so that `import knet` and `knet --help` are quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from knet.inference.load import convert, load
    from knet.inference.results.segmentation import Segmentation
    from knet.inference.segmenter import Segmenter
    from knet.models.zoo import create, models

__version__ = "0.1.0"

_HOMES = {
    "load": "knet.inference.load",
    "convert": "knet.inference.load",
    "create": "knet.models.zoo",
    "Segmenter": "knet.inference.segmenter",
    "Segmentation": "knet.inference.results.segmentation",
}

__all__ = ["Segmentation", "Segmenter", "__version__", "convert", "create", "load", "models"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "models":  # a room of the package that can be called: it lists the models
        return import_module("knet.models")
    raise AttributeError(f"module 'knet' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "models"})
