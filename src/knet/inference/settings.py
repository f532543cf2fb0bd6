"""How a model is used: the options that `knet.load` sets for good and that each call may change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, TypedDict

from knet.errors import ConfigError, did_you_mean, members, require, shown
from knet.models.zoo import Task
from knet.preprocess import Size, size_of
from knet.structures import Preprocessing

Pixels = int | tuple[int, int]
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of K-Net's ms+flip figures

_MOST_WINDOWS = 10_000  # of one image: more than the largest photos have, and hours of work

_OF_TASK = {"overlap": "panoptic", **dict.fromkeys(("scales", "flip", "window", "stride"), "semantic")}


class Options(TypedDict, total=False):
    """Keyword arguments; None, like one left out, changes nothing.

    Attributes:
        size: what the network sees: "model" for the published test size, "image" for the image as it is, a number for
            the short side in pixels, or a pair (short, long) side at most. Results have the image's own size.
        score: what is less certain is dropped, 0..1.
        overlap: of panoptic models; masks that win less than this share of their pixels are dropped, 0..1.
        scales: of semantic models; how many times `size` the network sees, one after the other.
        flip: of semantic models; sees the mirror image as well. Probabilities are averaged over all views.
        window: of semantic models; (height, width), or one number for both, of windows that slide over what the network
            sees. A window that is larger in one direction is cut there, as in mmsegmentation; in both, it is refused.
        stride: from window to window; two thirds of the window unless given.
        only: names of classes, such as ["car", "person"]; segments of others are left out, and their pixels are void.
        region: left, top, right and bottom in pixels; the network sees this part of the image alone, and results, which
            have the image's size, are void around it.
    """

    size: Size | None
    score: float | None
    overlap: float | None
    scales: Sequence[float] | None
    flip: bool | None
    window: Pixels | None
    stride: Pixels | None
    only: Sequence[str] | None
    region: tuple[int, int, int, int] | None


@dataclass(frozen=True, slots=True)
class Settings:
    """All options with their values; see `Options`."""

    size: Size = "model"
    score: float = 0.0
    overlap: float = 0.0
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    only: tuple[str, ...] | None = None
    region: tuple[int, int, int, int] | None = None

    def changed(self, task: Task, options: Options) -> Settings:
        """These settings with some replaced. ConfigError for a value out of range, or an option of other tasks."""
        refuse_unknown(options)
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        for name in given:
            if _OF_TASK.get(name, task) != task:
                flag = {"scales": " (--tta)", "flip": " (--tta)", "window": " (--window)"}.get(name, "")
                raise ConfigError(
                    f"This is a model for {task} segmentation; the option {name}{flag} is for "
                    f"{_OF_TASK[name]} models, leave it out."
                )
        for name in given.keys() & {"score", "overlap"}:
            if not _real(given[name]) or not 0 <= given[name] <= 1:
                raise ConfigError(f"The {name} threshold {shown(given[name])} is not between 0 and 1.")
            given[name] = float(given[name])  # tensors are compared with no fractions of Python's
        for name in given.keys() & {"window", "stride"}:
            given[name] = _pair(name, given[name])
        if "scales" in given:
            scales = () if isinstance(given["scales"], bytes | bytearray) else members(given["scales"]) or ()
            if not 0 < len(scales) <= 100 or not all(_real(scale) and 0 < scale < 100 for scale in scales):
                raise ConfigError(f"The scales {shown(options['scales'])} must be numbers above 0, such as (0.5, 1.0).")
            given["scales"] = tuple(map(float, scales))
        require(bool, "True or False", flip=given.get("flip", False))
        if "only" in given:
            only = given["only"]
            listed = None if isinstance(only, str) else members(only)
            given["only"] = (only,) if listed is None else listed
            for name in given["only"]:
                require(str, "names of classes", only=name)
        if "region" in given:
            given["region"] = _region(given["region"])
        changed = replace(self, **given)
        size_of((100, 100), changed.size, Preprocessing(100, 100))  # is it a size at all?
        if changed.stride is not None and changed.window is None:
            raise ConfigError("The option stride moves a sliding window; give window, its size in pixels, as well.")
        return changed

    def step(self, resized: tuple[int, int]) -> tuple[int, int] | None:
        """From window to window, down and to the right, in an image of this size. ConfigError if it is too small."""
        if self.window is None:
            return None
        height, width = self.window
        if height > resized[0] and width > resized[1]:
            raise ConfigError(
                f"The sliding window of {height}x{width} pixels is larger than the image, which the network sees at "
                f"{resized[0]}x{resized[1]}; take a smaller window (--window), or a larger size (--size)."
            )
        step = self.stride or (max(2 * height // 3, 1), max(2 * width // 3, 1))
        rows, columns = (
            1 + max(-(-(edge - side) // by), 0) for edge, side, by in zip(resized, self.window, step, strict=True)
        )
        if rows * columns > _MOST_WINDOWS:
            raise ConfigError(
                f"Windows of {height}x{width} pixels that move by {step[0]} and {step[1]} are {rows * columns:,} in "
                f"an image of {resized[0]}x{resized[1]}, and at most {_MOST_WINDOWS:,} are looked at; take a larger "
                "window (--window) or stride."
            )
        return step


def refuse_unknown(options: Mapping[str, Any], others: Iterable[str] = ()) -> None:
    """Raises `ConfigError` for an option that is neither in `Options` nor one of the `others` of a function."""
    known = [*Options.__annotations__, *others]
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known, f"there are: {', '.join(known)}.")
            raise ConfigError(f"There is no option {shown(name)}; {hint}")


def _real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < 2**31


def _pair(name: str, value: Any) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(pair) != 2 or not all(_whole(side, 1) for side in pair):
        raise ConfigError(f"The {name} {shown(value)} is not a positive number of pixels or a pair (height, width).")
    return int(pair[0]), int(pair[1])


def _region(value: Any) -> tuple[int, int, int, int]:
    edges = tuple(value) if isinstance(value, list | tuple) else ()
    if len(edges) == 4 and all(_whole(edge, 0) for edge in edges):
        left, top, right, bottom = edges
        if left < right and top < bottom:
            return int(left), int(top), int(right), int(bottom)
    raise ConfigError(
        f"The region {shown(value)} (--region) is not left, top, right and bottom in pixels, such as 0,200,1280,720."
    )
