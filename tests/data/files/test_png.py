"""The package's own reader of plain PNGs: the same pixels as Pillow's, and damage is named."""

import io
import struct
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from knet.data.files import png
from knet.data.files.io import read_ids, read_image
from knet.errors import DataError

pytest.importorskip("numba")
FILE_IS_KEPT = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def head(width: int, height: int, bits: int = 8, kind: int = 2, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced))


def filtered(pixels: np.ndarray, kinds: list[int]) -> bytes:
    """The rows as a PNG holds them, each with the filter that it is given (W3C PNG, section 9.2)."""
    now = pixels.astype(np.int64)
    left, above, corner = (np.zeros_like(now) for _ in range(3))
    left[:, 1:], above[1:], corner[1:, 1:] = now[:, :-1], now[:-1], now[:-1, :-1]
    nearest = left + above - corner
    distances = np.stack([abs(nearest - other) for other in (left, above, corner)])
    paeth = np.choose(distances.argmin(axis=0), [left, above, corner])
    guesses = [np.zeros_like(now), left, above, (left + above) // 2, paeth]
    rows = [((now[y] - guesses[kind][y]) % 256).astype(np.uint8).tobytes() for y, kind in enumerate(kinds)]
    return b"".join(bytes([kind]) + row for kind, row in zip(kinds, rows, strict=True))


def whole(pixels: np.ndarray, kinds: list[int], level: int = 6, pieces: int = 1, extra: bytes = b"") -> bytes:
    """A PNG with its pixels in some chunks."""
    stream = zlib.compress(filtered(pixels, kinds), level)
    step = -(-len(stream) // pieces)
    body = b"".join(chunk(b"IDAT", stream[i : i + step]) for i in range(0, len(stream), step))
    return b"\x89PNG\r\n\x1a\n" + head(pixels.shape[1], pixels.shape[0]) + extra + body + chunk(b"IEND", b"")


def drawn(seed: int, height: int, width: int, smooth: bool) -> np.ndarray:
    """(H,W,3) uint8: noise, or a map of few ids in large regions."""
    rng = np.random.default_rng(seed)
    if not smooth:
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    ids = rng.integers(0, 256, (4, 3), np.uint8)
    return ids[np.add.outer(np.arange(height) // 7, np.arange(width) // rng.integers(1, 150)) % 4]


def check(path: Path, pixels: np.ndarray) -> None:
    """Both readers give these pixels, and not by way of Pillow."""
    np.testing.assert_array_equal(png.read_png_rgb(path), pixels)
    ids = png.read_png_ids(path)
    np.testing.assert_array_equal(ids, pixels.astype(np.int32) @ np.array([1, 256, 65536], np.int32))
    assert ids is not None and ids.dtype == np.int32 and ids.flags["C_CONTIGUOUS"] and ids.flags["WRITEABLE"]
    np.testing.assert_array_equal(read_ids(path), ids)
    np.testing.assert_array_equal(read_image(path), pixels)


@FILE_IS_KEPT
@given(st.integers(0, 2**32), st.integers(1, 9), st.one_of(st.integers(1, 5), st.integers(60, 330)), st.data())
def test_every_filter(tmp_path: Path, seed: int, height: int, width: int, data: st.DataObject) -> None:
    """Rows wider and narrower than the parts that are skipped, in one or more chunks; Pillow agrees."""
    pixels = drawn(seed, height, width, data.draw(st.booleans()))
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    path = tmp_path / "a.png"
    path.write_bytes(whole(pixels, kinds, data.draw(st.integers(0, 9)), data.draw(st.integers(1, 4))))
    with Image.open(path) as file:
        np.testing.assert_array_equal(np.asarray(file), pixels)
    check(path, pixels)


def test_the_nearest_of_left_above_and_corner() -> None:
    """As PNG defines it, by distances, for every order of the three and every tie."""
    from knet.data.files.png_rows import nearest

    for three in product(range(12), repeat=3):
        left, above, corner = three
        assert nearest(*three) == min(three, key=lambda value: abs(left + above - corner - value))


@FILE_IS_KEPT
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 200), st.integers(0, 9), st.booleans())
def test_files_of_pillow(tmp_path: Path, seed: int, height: int, width: int, level: int, smooth: bool) -> None:
    pixels = drawn(seed, height, width, smooth)
    Image.fromarray(pixels).save(tmp_path / "a.png", compress_level=level)
    check(tmp_path / "a.png", pixels)


PIXELS = drawn(5, 12, 30, smooth=False)
GOOD = whole(PIXELS, [0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 4, 4])
START = GOOD.index(b"IDAT") - 4


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 64]) + data[place + 1 :]


def rewritten(new_head: bytes | None = None, rows: bytes | None = None, stream: bytes | None = None) -> bytes:
    """The good file with another head, with other rows, or with another stream."""
    body = GOOD[START:-12]
    if rows is not None or stream is not None:
        body = chunk(b"IDAT", stream if stream is not None else zlib.compress(rows or b""))
    return GOOD[:8] + (new_head or GOOD[8:33]) + body + GOOD[-12:]


STREAM = zlib.compress(filtered(PIXELS, [4] * 12))
DAMAGED = {
    "cut in the pixels": (GOOD[: len(GOOD) // 2], "image file is truncated"),
    "cut in the head": (GOOD[:20], "Truncated File Read"),
    "empty": (b"", "cannot identify|not an image|no picture"),
    "not a PNG": (b"x" + GOOD[1:], "cannot identify|not an image|no picture"),
    "checksum of the pixels": (flipped(GOOD, len(GOOD) - 13), "the checksum of its IDAT chunk at byte 33 does not fit"),
    "a pixel": (flipped(GOOD, START + 400), "the checksum of its IDAT chunk at byte 33 does not fit"),
    "a byte of the head": (flipped(GOOD, 19), "the checksum of its IHDR chunk at byte 8 does not fit"),
    "wider in the head": (rewritten(head(31, 12)), "promises 12 rows of 31 pixels, it holds 1092 of 1128 bytes"),
    "higher in the head": (rewritten(head(30, 13)), "promises 13 rows of 30 pixels, it holds 1092 of 1183 bytes"),
    "narrower in the head": (rewritten(head(29, 12)), "unrecognized data stream contents"),
    "no width": (rewritten(head(0, 12)), "cannot identify|not an image|no picture"),
    "far too large": (rewritten(head(40000, 40000)), "1600 million pixels"),
    "an unknown filter": (rewritten(rows=b"\5" + bytes(90) + filtered(PIXELS[1:], [0] * 11)), "unrecognized"),
    "the stream's own checksum": (rewritten(stream=flipped(STREAM, len(STREAM) - 1)), "broken data stream"),
    "the stream": (rewritten(stream=flipped(STREAM, 300)), "data stream"),
    "no pixels": (GOOD[:START] + GOOD[-12:], "truncated|cannot|NoneType"),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize(("read", "what"), [(read_ids, "panoptic PNG"), (read_image, "image")])
def test_damage_is_named(tmp_path: Path, case: str, read: object, what: str) -> None:
    data, message = DAMAGED[case]
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=rf"The {what} .*a\.png cannot be read(:| \().*({message})"):
        read(tmp_path / "a.png")  # type: ignore[operator]


def test_what_pillow_overlooks_is_overlooked(tmp_path: Path) -> None:
    """Bytes behind the end or behind the last row, and no end at all: the pixels are all there."""
    (tmp_path / "a.png").write_bytes(GOOD + b"more")
    check(tmp_path / "a.png", PIXELS)
    (tmp_path / "b.png").write_bytes(GOOD[:-12])
    check(tmp_path / "b.png", PIXELS)
    (tmp_path / "c.png").write_bytes(rewritten(rows=filtered(PIXELS, [2] * 12) + b"more"))
    assert png.read_png_rgb(tmp_path / "c.png") is None
    np.testing.assert_array_equal(read_image(tmp_path / "c.png"), PIXELS)


def test_other_files_are_left_to_pillow(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # on its side
    for name, picture, options in (
        ("grey", Image.fromarray(PIXELS[..., 0]), {}),
        ("alpha", Image.fromarray(PIXELS).convert("RGBA"), {}),
        ("palette", Image.fromarray(PIXELS).convert("P"), {}),
        ("turned", Image.fromarray(PIXELS), {"exif": exif}),
    ):
        picture.save(tmp_path / f"{name}.png", **options)
    Image.fromarray(PIXELS).save(tmp_path / "jpeg.png", "jpeg")
    for path in sorted(tmp_path.iterdir()):
        assert png.read_png_rgb(path) is None and png.read_png_ids(path) is None, path
    assert read_image(tmp_path / "turned.png").shape == (30, 12, 3)
    np.testing.assert_array_equal(read_ids(tmp_path / "alpha.png") & 255, PIXELS[..., 0])
    assert png.read_png_ids(tmp_path / "absent.png") is None
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "png", transparency=(1, 2, 3))  # no part of the colours
    (tmp_path / "transparent.png").write_bytes(buffer.getvalue())
    check(tmp_path / "transparent.png", PIXELS)


def test_interlaced_is_left_to_pillow(tmp_path: Path) -> None:
    """One pixel, so that there is one pass."""
    data = head(1, 1, interlaced=1) + chunk(b"IDAT", zlib.compress(b"\0\1\2\3")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert png.read_png_ids(tmp_path / "a.png") is None
    assert read_ids(tmp_path / "a.png").tolist() == [[1 + 2 * 256 + 3 * 65536]]


def test_without_numba_and_isal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(png, "inflating", zlib)
        check(tmp_path / "a.png", PIXELS)
    monkeypatch.setattr(png, "optional", lambda _: None)
    assert png.read_png_ids(tmp_path / "a.png") is None
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PIXELS)
    assert read_ids(tmp_path / "a.png")[0, 0] == PIXELS[0, 0].astype(int) @ [1, 256, 65536]
    (tmp_path / "a.png").write_bytes(DAMAGED["a pixel"][0])  # the checksum is looked at all the same
    with pytest.raises(DataError, match="the checksum of its IDAT chunk"):
        read_ids(tmp_path / "a.png")
