"""Numbers and ids as tools write them into JSON: 1, 1.0 and "1" are the same where nothing speaks against it."""

from collections.abc import Callable, Iterable
from typing import Any

_LARGEST = 2**63  # arrays hold no larger ones


def whole(value: Any) -> int | None:
    """A whole number that arrays hold, also one written as 1.0 or "1"; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        digits = value.strip().removeprefix("-")
        return whole(int(value)) if digits.isdecimal() and digits.isascii() and len(digits) < 20 else None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == value and -_LARGEST <= number < _LARGEST else None


def flag(value: Any) -> bool | None:
    """Yes or no as 1, 1.0, true or "1"; None for anything else. In Python the text "0" would be yes."""
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    number = int(value) if isinstance(value, bool) else whole(value)
    return bool(number) if number in (0, 1) else None


def id_key(ids: Iterable[Any]) -> Callable[[Any], Any]:
    """How the ids of a file are compared; `ids` are all that it defines. What is no id becomes None.

    Some tools write 7 in one list and "7" or "0007" in another. They are the same unless the file itself tells them
    apart.
    """
    distinct = {(isinstance(id_, str), id_) for id_ in ids if _exact(id_) is not None}
    return _exact if len({_loose(id_) for _, id_ in distinct}) < len(distinct) else _loose


def _exact(id_: Any) -> int | str | None:
    return id_ if isinstance(id_, str) else whole(id_)


def _loose(id_: Any) -> int | str | None:
    number = whole(id_)
    return _exact(id_) if number is None else number
