"""Valid bytes and trees made wrong in a few places, as damage and malice do it."""

from __future__ import annotations

import copy
import json
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

import yaml

NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63, -(2**63), 10**30),
    *(0.5, -0.5, 1.0, 1e-9, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf, -0.0),
)
STRINGS = (
    *(
        "",
        " ",
        ".",
        "..",
        "/",
        "0",
        "-1",
        "1e999",
        "NaN",
        "null",
        "true",
        "[]",
        "{}",
        "~",
        "~x",
        "%s%n",
        "{0}",
        "*",
        "**",
    ),
    *(
        "\0",
        "a\nb",
        "\x1b[2J",
        "\ud800",
        "\u202egnp",
        "日本",
        "x" * 300,
        "x" * 100_000,
        "../../../x",
        "/dev/null",
    ),
    *("1" * 5000, "0x10", "!!python/object", "<script>", "a:b", "a=b", "a,b", "-", "--", "1;2", "http://x/y?token=z"),
)
EMPTY = (None, True, False, [], {}, [[]], [{}], {"": None}, [None], [[0, 0], [0]], {"a": {"a": {}}})
_WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1)


def some_value(rng: Random) -> Any:
    """Any value that JSON and YAML have, mostly one that nobody expects."""
    kind = rng.randrange(8)
    if kind == 0:
        return copy.deepcopy(rng.choice(EMPTY))
    if kind == 1:
        return rng.choice(STRINGS)
    if kind == 2:
        return [some_value(rng) for _ in range(rng.randrange(4))]
    if kind == 3:
        return {rng.choice(STRINGS[:20]): some_value(rng) for _ in range(rng.randrange(3))}
    return rng.choice(NUMBERS)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """All places of a tree: a table or list, and the key or index in it."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        yield tree, key
        yield from places(value)


def mutated_tree(rng: Random, tree: Any) -> Any:
    """A copy of a tree with one to four of its values, keys or rows changed."""
    holder = [copy.deepcopy(tree)]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        spots = list(places(holder))
        if not spots:  # the whole was taken away
            break
        where, key = rng.choice(spots if rng.random() < 0.9 else spots[:3])
        _change(rng, where, key, spots)
    return holder[0] if holder else None


def _change(rng: Random, where: Any, key: Any, spots: list[tuple[Any, Any]]) -> None:
    value, kind = where[key], rng.randrange(9)
    if kind == 0:
        del where[key]
    elif kind == 1 and isinstance(where, list):
        where.insert(key, copy.deepcopy(value))
    elif kind == 1:
        where[rng.choice(STRINGS[:30])] = where.pop(key)
    elif kind == 2:
        other, place = rng.choice(spots)
        if (isinstance(place, str) and place in other) or (isinstance(place, int) and place < len(other)):
            where[key] = copy.deepcopy(other[place])
    elif kind == 3 and isinstance(value, int | float) and not isinstance(value, bool):
        with_fraction = isinstance(value, float) or rng.random() < 0.2
        where[key] = rng.choice(
            (-value, value + 1, value - 1, value * 1000, value + 0.5 if with_fraction else value * 2)
        )
    elif kind == 3 and isinstance(value, str):
        cut = rng.randrange(len(value) + 1)
        where[key] = rng.choice(
            (value[:cut], value + value, value.upper(), value[:cut] + rng.choice(STRINGS) + value[cut:])
        )
    elif kind == 4:
        for _ in range(rng.choice((1, 3, 70, 300))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        where[key] = value
    elif kind == 5:
        where[key] = rng.choice(NUMBERS)
    elif kind == 6:
        where[key] = rng.choice(STRINGS)
    elif kind == 7 and isinstance(value, list):
        where[key] = rng.choice((value * 3, value[::-1], value[:1], [*value, some_value(rng)]))
    else:
        where[key] = some_value(rng)


def mutated_json(rng: Random, data: bytes) -> bytes:
    """A JSON file with another tree, or with other bytes."""
    if rng.random() < 0.15:
        return mutated_bytes(rng, data)
    text = json.dumps(mutated_tree(rng, json.loads(data)))
    return text.encode("utf-16") if rng.random() < 0.02 else text.encode()


def mutated_yaml(rng: Random, data: bytes) -> bytes:
    """A YAML file with another tree, or with other bytes."""
    with suppress(RecursionError):  # too deep to be written
        if rng.random() < 0.85:
            return yaml.safe_dump(mutated_tree(rng, yaml.safe_load(data))).encode(errors="surrogatepass")
    return mutated_bytes(rng, data)


def mutated_bytes(rng: Random, data: bytes) -> bytes:
    """Bytes with flipped bits, other numbers, parts cut out, doubled or put in, or without their end."""
    buffer = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        _damage(rng, buffer)
    return bytes(buffer)


def _damage(rng: Random, buffer: bytearray) -> None:
    length = len(buffer)
    near = rng.random()  # heads and tails say most
    end = min(length, 64) if near < 0.3 else min(length, 512) if near < 0.6 else length
    place = rng.randrange(end + 1) if near < 0.9 else length - rng.randrange(min(length, 64) + 1)
    size, kind = rng.choice((1, 1, 2, 4, 8, 64)), rng.randrange(9)
    if kind == 0 and place < length:
        buffer[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        buffer[place : place + size] = rng.randbytes(size)
    elif kind == 2:
        del buffer[place : place + size]
    elif kind == 3:
        buffer[place:place] = buffer[place : place + size]
    elif kind == 4:
        buffer[place:place] = rng.randbytes(size)
    elif kind == 5 and rng.random() < 0.5:
        del buffer[place:]
    elif kind == 6:
        buffer[place : place + size] = bytes([rng.choice((0, 0xFF, 0x80, 0x7F))]) * size
    elif kind == 7:
        other = rng.randrange(length + 1)
        buffer[place : place + size] = buffer[other : other + size]
    else:
        form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
        buffer[place : place + struct.calcsize(form)] = struct.pack(
            form, rng.choice(_WORDS) % 256 ** struct.calcsize(form)
        )


def mutated_png(rng: Random, data: bytes) -> bytes:
    """A PNG whose parts are changed, doubled, swapped or missing, with the sums that belong to them."""
    if rng.random() < 0.3:
        return mutated_bytes(rng, data)
    chunks, place = list[tuple[bytes, bytes]](), 8
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += size + 12
    for _ in range(rng.choice((1, 1, 2))):
        number = rng.randrange(len(chunks))
        name, content = chunks[number]
        kind = rng.randrange(6)
        if kind == 0:
            chunks.pop(number) if len(chunks) > 1 else None
        elif kind == 1:
            chunks.insert(rng.randrange(len(chunks) + 1), (name, content))
        elif kind == 2 and name == b"IDAT":
            with suppress(zlib.error):  # what was changed before
                chunks[number] = name, zlib.compress(mutated_bytes(rng, zlib.decompress(content)))
        elif kind == 3:
            extra = rng.choice((b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"zTXt", b"acTL", b"fcTL", b"gAMA"))
            chunks.insert(rng.randrange(len(chunks) + 1), (extra, rng.randbytes(rng.choice((0, 1, 4, 26, 300)))))
        else:
            chunks[number] = name, mutated_bytes(rng, content)
    parts = (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return data[:8] + b"".join(parts)
