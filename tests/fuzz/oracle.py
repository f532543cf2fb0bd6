"""What a case may do: work, or refuse in a sentence."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from knet.cli.main import main
from knet.errors import KNetError

_LONGEST = 2200  # characters of a line
_LINES = 400  # weights that do not fit name every tensor
# A small file asks for none to speak of; a network of 65,535 channels does.
_MEMORY = re.compile("too little memory(?! for the model)|fit into memory")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # what moves a terminal's cursor


class BrokenError(Exception):
    """What the oracle does not allow."""


def refused(call: Callable[[], Any]) -> bool:
    """Whether a call ends with a `KNetError`, whose sentence is looked at. All other errors come through."""
    try:
        call()
    except KNetError as error:
        look_at(str(error))
        return True
    return False


def command(*words: object) -> bool:
    """Whether the command line, given these words, refuses them; it must do so by its exit status and a sentence."""
    out, said = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(said):
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:  # of argparse
            status = stop.code if isinstance(stop.code, int) else 0
    if status not in (0, 1, 2):
        raise BrokenError(f"the exit status {status}: {said.getvalue()[-500:]}")
    if status and not said.getvalue() and not out.getvalue():
        raise BrokenError(f"the exit status {status} without a word")
    look_at(said.getvalue() or "-")
    return status != 0


def look_at(text: str) -> None:
    """Raises `BrokenError` for a message that is empty, endless, no sentence, or takes over the terminal."""
    lines = text.strip().splitlines()
    if not lines:
        raise BrokenError("an error without a sentence")
    if "Traceback (most recent" in text:
        raise BrokenError(text[-2000:])
    if len(lines) > _LINES or max(map(len, lines)) > _LONGEST:
        raise BrokenError(f"a message of {len(lines)} lines, {max(map(len, lines))} characters: {text[:300]}")
    if _MEMORY.search(text):
        raise BrokenError(text[:500])
    if _CONTROL.search(text):
        raise BrokenError(f"control characters in {text[:300]!r}")


def no_parts(folder: Path) -> None:
    """Raises `BrokenError` if a temporary file was left."""
    left = [str(path) for path in folder.rglob(".*.part-*")]
    if left:
        raise BrokenError(f"left {left}")
