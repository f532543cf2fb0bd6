"""Networks whose sizes alone are asked for."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_SAME = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, torch.Tensor.normal_, torch.Tensor.uniform_)
_TIMES = (torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__)
_MAKE = (torch.randn, torch.rand)


class NoNumbers(TorchFunctionMode):
    """Draws and scales no numbers: the device "meta" has none, and torch would import its compiler for them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What a function of torch gives: a tensor of the same size, of those that draw or scale numbers."""
        if func in _SAME or (func in _TIMES and not isinstance(args[1], Tensor)):
            return args[0] if args else (kwargs or {})["tensor"]
        return (torch.empty if func in _MAKE else func)(*args, **(kwargs or {}))
