"""Calls from Python: a wrong name or a value of another kind is an error of one sentence, as on the command line."""

import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np

from knet.errors import ConfigError, KNetError, did_you_mean, shown

_P = ParamSpec("_P")
_R = TypeVar("_R")

_LARGEST = 2**63  # what compiled code can count to
_WORDS = {str: "a text", Path: "a path", bool: "True or False", int: "a whole number", float: "a number"}
_WORDS |= {np.ndarray: "an array", PathLike: "a path"}


def named_options(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, which raises `ConfigError` for an unknown option, with the nearest name, and for a wrong value.

    Values are compared with the annotations, once the function has failed: whatever it can work with is welcome. A
    switch is looked at before, as everything is true or false.
    """

    @wraps(function)
    def named(*args: _P.args, **options: _P.kwargs) -> _R:
        for name, hint in _switches(function).items():
            if name in options and (wrong := _wrong(name, options[name], hint)):
                raise wrong
        try:
            return function(*args, **options)
        except (KNetError, OSError):
            raise
        except Exception as error:
            fault = _fault(function, args, options)
            if fault is None:
                raise
            raise fault from error

    return named


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind that an annotation says; True for annotations that say nothing of it."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inside)
    if origin is Literal:
        return isinstance(value, str | int | None) and value in inside
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) < _LARGEST
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if hint is str:
        return isinstance(value, str) and "\0" not in value and not any("\ud800" <= sign <= "\udfff" for sign in value)
    if hint is Path:
        return isinstance(value, PathLike)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(one, hint) for row in value.items() for one, hint in zip(row, inside or (Any, Any), strict=True)
        )
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return _fits_all(value, origin, inside)
    if hint is Callable or origin is Callable:
        return callable(value)
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def _fits_all(value: Any, origin: type, inside: tuple[Any, ...]) -> bool:
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        return False
    iter(value)  # raises a TypeError for arrays without axes, which say that they had some
    if not isinstance(value, Sequence):  # nothing is taken from what gives its parts once
        return not issubclass(origin, Sequence)
    if origin is tuple and inside and inside[-1] is not ...:
        return len(value) == len(inside) and all(map(fits, value, inside))
    return all(fits(one, inside[0]) for one in value) if inside else True


@cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function's options; without those that only type checkers can follow."""
    module, hints = vars(sys.modules[function.__module__]), dict[str, Any]()
    for name, parameter in inspect.signature(function).parameters.items():
        hint = parameter.annotation
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or hint is parameter.empty:
            continue
        try:
            hints[name] = eval(hint, module) if isinstance(hint, str) else hint  # noqa: S307 - our own text
        except NameError:
            continue
    return hints


@cache
def _switches(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: hint for name, hint in _hints(function).items() if hint is bool or hint == bool | None}


def _fault(function: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]) -> ConfigError | None:
    """The error for the first option that the function does not have, or the first value of another kind."""
    signature, hints = inspect.signature(function), _hints(function)
    known = [name for name in signature.parameters if name != "self"]
    try:
        given = signature.bind(*args, **options).arguments
    except TypeError:
        unknown = next((name for name in options if name not in known), None)
        if unknown is None:  # too few or too many, of which Python has a sentence
            return None
        hint = did_you_mean(unknown, known, f"there are: {', '.join(known)}." if known else "it has none.")
        return ConfigError(f"There is no option {shown(unknown)} of {function.__name__}; {hint}")
    wrong = (_wrong(name, value, hints[name]) for name, value in given.items() if name in hints)
    return next(filter(None, wrong), None)


def _wrong(name: str, value: Any, hint: Any) -> ConfigError | None:
    try:
        good = fits(value, hint)
    except Exception:  # what values of others do when they are looked at has no end
        good = False
    return None if good else ConfigError(f"The option {name} cannot be {shown(value)}; give {_words(hint)}.")


def _words(hint: Any) -> str:
    """An annotation in words."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(one) for one in inside if one is not type(None))
    if origin is Literal:
        return "one of: " + ", ".join(map(str, inside))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        kinds = dict.fromkeys(_words(one) for one in inside if one is not ...)
        return f"a list of {' and '.join(kinds)}" if kinds else "a list"
    return _WORDS.get(origin or hint, f"a {getattr(hint, '__name__', 'value that fits')}")
