"""The networks, and the zoo that knows them by name. `knet.models("*coco*")` lists the names."""

import sys
from types import ModuleType


class _Models(ModuleType):
    """Python puts a subpackage under its name into its parent, whatever else is there, once anybody imports it. So
    `knet.models` is this package wherever it comes from, and answers when it is called.
    """

    def __call__(self, pattern: str = "*") -> list[str]:
        """`knet.models.zoo.models`, which says more."""
        from knet.models.zoo import models

        return models(pattern)


sys.modules[__name__].__class__ = _Models
