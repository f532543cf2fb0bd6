"""How results are drawn: the options of `Segmentation.overlay`, and what they may be."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, TypedDict

from knet.errors import ConfigError, did_you_mean, require, shown


class Drawing(TypedDict, total=False):
    """Keyword arguments of `Segmentation.overlay`; see there."""

    alpha: float
    names: bool
    legend: bool
    scores: bool
    contours: bool | None


@dataclass(frozen=True, slots=True)
class Style:
    """All of them with their values, which are checked."""

    alpha: float = 0.5
    names: bool = True
    legend: bool = False
    scores: bool = False
    contours: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.alpha, Real) or isinstance(self.alpha, bool) or not 0 <= self.alpha <= 1:
            raise ConfigError(
                f"alpha is {shown(self.alpha)}; it is the colours' share, from 0 (image only) to 1 (colours only)."
            )
        require(bool, "True or False", names=self.names, legend=self.legend, scores=self.scores)
        require(bool | None, "True, False or None", contours=self.contours)


def style_of(options: Drawing | dict[str, Any], beside: Collection[str] = ()) -> Style:
    """The style that keyword arguments ask for. Raises `ConfigError` for one that is unknown, or a wrong value.

    Args:
        options: the arguments.
        beside: others that their function has, which an unknown one may be meant for.
    """
    known = [field.name for field in fields(Style)]
    for name in options:
        if name not in known:
            hint = did_you_mean(name, [*known, *beside], f"there are: {', '.join(known)}.")
            raise ConfigError(f"There is no option {shown(name)} of drawing; {hint}")
    return Style(**options)
