"""knet: what every pixel is and which object it belongs to, with learned kernels.

    import knet
    segmenter = knet.load("rtknet-lite-street")
    segmentation = segmenter("street.jpg")

Everything heavy is imported on first use, so that `import knet` and `knet --help` are quick. Rooms and files need no
import of their own: `knet.evaluation.panoptic_quality` works after `import knet`.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from knet import evaluation
    from knet.config import read_config
    from knet.errors import KNetError
    from knet.export.write import export
    from knet.inference.load import convert, load
    from knet.inference.results.segmentation import Segmentation
    from knet.inference.segmenter import Segmenter
    from knet.models.zoo import create, models
    from knet.runs.callbacks.callback import Callback
    from knet.runs.evaluate import evaluate
    from knet.runs.train import train
    from knet.structures import Category

    def __getattr__(name: str) -> Any: ...  # the other rooms


# Threads that wait for each other sleep, unless the user said otherwise. OpenMP, which reads this when torch is
# imported, would let them spin; beside a core with other work a frame then takes many times its processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "Category",
    "KNetError",
    "Segmentation",
    "Segmenter",
    "__version__",
    "convert",
    "create",
    "evaluate",
    "evaluation",
    "export",
    "load",
    "models",
    "read_config",
    "train",
]

_HOMES = {
    "Callback": "knet.runs.callbacks.callback",
    "Category": "knet.structures",
    "KNetError": "knet.errors",
    "Segmentation": "knet.inference.results.segmentation",
    "Segmenter": "knet.inference.segmenter",
    "convert": "knet.inference.load",
    "create": "knet.models.zoo",
    "evaluate": "knet.runs.evaluate",
    "export": "knet.export.write",
    "load": "knet.inference.load",
    "models": "knet.models.zoo",
    "read_config": "knet.config",
    "train": "knet.runs.train",
}


class Room(ModuleType):
    """A package of this one, or this one itself: it imports what is asked of it, and may be a function as well.

    Python puts a package into its parent under its name once anybody imports it, over whatever else is there. So
    `knet.models` and `knet.export` are always the packages, and these answer when they are called.
    """

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and find_spec(f"{self.__name__}.{name}"):
            return import_module(f"{self.__name__}.{name}")
        if self.__name__ == "knet" and name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:  # which is how Python puts a package into its parent
        if isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}" and hasattr(value, "__path__"):
            value.__class__ = Room
        super().__setattr__(name, value)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        function = self.__name__.removeprefix("knet.")
        if function not in _HOMES:
            raise TypeError(f"the module '{self.__name__}' cannot be called")
        return getattr(import_module(_HOMES[function]), function)(*arguments, **options)

    def __dir__(self) -> list[str]:
        inside = {file.name for file in iter_modules(self.__path__)}
        return sorted({*super().__dir__(), *inside, *(__all__ if self.__name__ == "knet" else ())})


sys.modules[__name__].__class__ = Room
