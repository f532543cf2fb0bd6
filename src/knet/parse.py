"""The one place that parses JSON and YAML of others: bounded in size, depth and aliases, with one kind of error."""

import csv
import errno
import io
import json
import os
import re
import stat
import time
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from pydantic_core import from_json

from knet.errors import shown
from knet.files import at_once

LARGEST_JSON = 2**33  # bytes; the labels of the largest public data sets have some 6 GB
LARGEST_YAML = 2**20
LARGEST_TEXT = 2**28
_LARGEST_STREAM = 2**26  # of what is no file and tells no size, such as a pipe
_TRIES, _PAUSE = 20, 0.1  # seconds, until somebody writes to a pipe
_DEEPEST = 64
_LARGEST_EXPANDED = 2**22  # characters of a YAML document with a copy in place of each alias
_DIGITS = 150  # numbers of more are none that anything computes with
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+$|[0-9_]+:)")
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
# All that parsers raise on what others wrote: constructors of PyYAML index, look up and match without looking first.
_FAULTS = (
    yaml.YAMLError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)


class ParseError(ValueError):
    """Text that is not what it should be; its message is the reason, for a sentence that names the file."""


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a file. Raises `OSError`, and `ParseError` if it has more than `most` bytes."""
    if "\0" in str(path):  # Python has another error for it than for all else that is no name
        raise OSError(errno.EINVAL, "its name holds a character that no name can have", str(path))
    with open(path, "rb", opener=at_once) as file:
        status = os.fstat(file.fileno())
        start = _first_of_pipe(file) if stat.S_ISFIFO(status.st_mode) else b""
        os.set_blocking(file.fileno(), True)
        # Python takes the memory for as many bytes as are asked for, however few there are.
        most = most if stat.S_ISREG(status.st_mode) else min(most, _LARGEST_STREAM)
        fits = status.st_size <= most
        data = start + file.read(min(most, status.st_size or _LARGEST_STREAM) + 1) if fits else b""
    if not fits or len(data) > most:
        raise ParseError(f"it has more than {most:,} bytes")
    return data


def _first_of_pipe(file: BinaryIO) -> bytes:
    """The first byte of a pipe, if there is one yet. Raises `ParseError` if nobody writes to it for two seconds."""
    for _ in range(_TRIES):
        start: bytes | None = file.read(1)
        if start != b"":
            return start or b""  # None: there is a writer, who needs time
        time.sleep(_PAUSE)
    raise ParseError("it is a pipe to which nobody writes")


def read_lines(path: Path) -> list[str]:
    """The lines of a text in UTF-8 or UTF-16, with or without a byte order mark. Raises `OSError` and `ParseError`."""
    try:
        return _utf8(read_bounded(path, LARGEST_TEXT)).decode().splitlines()
    except UnicodeDecodeError as fault:
        raise ParseError("it is no text in UTF-8 or UTF-16") from fault


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its first line. Raises `OSError` and `ParseError`."""
    text = read_bounded(path, LARGEST_TEXT).decode("utf-8-sig", "replace")
    try:
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as fault:
        raise ParseError(str(fault)) from fault


def parse_json(data: bytes | str) -> Any:
    """JSON in UTF-8 or UTF-16, with or without a byte order mark. Raises `ParseError`."""
    try:
        text = data.encode() if isinstance(data, str) else _utf8(data)
        value = _bounded_json(text)
        # No whole number that a float cannot hold comes through. Masks have as many digits, in quotes, but few do.
        blocks = (text[start : start + _DIGITS] for start in range(0, len(text), _DIGITS))
        if any(block.isdigit() and len(block) == _DIGITS for block in blocks):
            json.loads(text, parse_int=_short)
        return value
    except ParseError:
        raise
    except _FAULTS as fault:
        raise ParseError(_reason(fault)) from fault


def parse_yaml(data: bytes | str) -> Any:
    """YAML of plain values. Raises `ParseError`, also for aliases that would make it much longer than it is."""
    try:
        if len(data) > LARGEST_YAML:
            raise ParseError(f"it has more than {LARGEST_YAML:,} bytes")
        return yaml.load(data, _Loader)  # noqa: S506 - a SafeLoader
    except ParseError:
        raise
    except _FAULTS as fault:
        raise ParseError(_reason(fault)) from fault


class _Loader(yaml.SafeLoader):
    """Nothing but plain values, not too deep, and not too many of them once aliases are followed."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ParseError(f"it is nested more than {_DEEPEST} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")):
            if len(node.value) > _DIGITS:
                raise ParseError(f"it has a number of more than {_DIGITS} digits")
            if _OTHER_BASE.match(node.value):
                raise ParseError(
                    f"it has the number {node.value}, which YAML reads in base 8 or 60: write it plainly or in quotes"
                )
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := next((name for name, count in names.items() if count > 1), None):
            raise ParseError(f"it has the key {shown(twice)} twice in one table")
        return node

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None and _expanded(node, {}) > _LARGEST_EXPANDED:
            raise ParseError("its aliases (*name) repeat too much")
        return node


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """The characters of a node with a copy in place of each alias; `known` are those of nodes by `id`."""
    if isinstance(node, yaml.ScalarNode):
        return len(node.value) + 1
    if id(node) not in known:
        known[id(node)] = _LARGEST_EXPANDED  # what a node that holds itself finds
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]


def _short(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ParseError(f"it has a number of more than {_DIGITS} digits")
    return int(digits)


def _bounded_json(text: bytes) -> Any:
    """JSON by a parser that bounds the depth, which Python's does not."""
    try:
        return from_json(text)
    except ValueError:
        if not _HALF_PAIR.search(text):
            raise
        from_json(_HALF_PAIR.sub(rb"\\u00", text))
        return json.loads(text)  # which alone knows halves of pairs: names of files that are not in UTF-8


def _utf8(data: bytes) -> bytes:
    """The text as UTF-8 without a mark. JSON begins with ASCII, so zero bytes at its start tell UTF-16."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16").encode()
    if len(data) > 1 and 0 in data[:2]:
        return data.decode("utf-16-le" if data[0] else "utf-16-be").encode()
    return data.removeprefix(b"\xef\xbb\xbf")


def _reason(fault: BaseException) -> str:
    """The fault in a line; names of Python's errors mean nothing to whoever wrote the file."""
    if isinstance(fault, RecursionError):
        return "it is nested too deep"
    if isinstance(fault, MemoryError):
        return "it does not fit into memory"
    spoken = isinstance(fault, yaml.YAMLError | ValueError)
    return (
        " ".join(str(fault).split()) if spoken and str(fault) else "a value in it is not of the kind that its tag says"
    )
