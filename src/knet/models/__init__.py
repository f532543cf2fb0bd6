"""The networks, and the zoo that builds them by name. `knet.models("*coco*")` lists the names."""

import sys
from types import ModuleType


class _Models(ModuleType):
    """Makes the package callable. As soon as anybody imports `knet.models`, Python puts it into `knet` under that name,
    whatever else had it, so the function of the face has to be the package itself.
    """

    def __call__(self, pattern: str = "*") -> list[str]:
        """See `knet.models.zoo.models`."""
        from knet.models.zoo import models

        return models(pattern)


sys.modules[__name__].__class__ = _Models
