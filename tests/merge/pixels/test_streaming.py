"""The fast ways to merge masks against the plain one: equal in every pixel, on every input."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import knet
from knet.merge.pixels import plain
from knet.merge.pixels.backend import backend
from knet.merge.pixels.stretch import Stretch, stretch
from knet.merge.sorted import enlarge, to_image
from knet.preprocess import ImageSizes, unpadded

streaming = pytest.importorskip("knet.merge.pixels.streaming", reason="Numba is not installed")
tile = pytest.importorskip("knet.merge.pixels.tile", reason="Numba is not installed")


@st.composite
def grids(draw: Any) -> tuple[Tensor, Tensor]:
    """Masks and scores: noise, blobs, constants, ties, copies, and logits that float32 cannot tell apart."""
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    n, h, w = draw(st.sampled_from([1, 2, 3, 9, 40])), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    masks = torch.randn(n, h, w, generator=g) * draw(st.sampled_from([0.0, 1e-36, 1e-7, 1.0, 20.0, 300.0, 1e5, 1e33]))
    masks += draw(st.sampled_from([0.0, 0.5, -30.0, 17.0]))
    if draw(st.booleans()):
        masks = masks.round()  # many equal values, and many zeros, which are half
    scores = torch.rand(n, generator=g)
    kind = draw(st.sampled_from(["any", "equal", "some are 0", "copies"]))
    if kind == "equal":
        scores[:] = scores[0]
    if kind == "some are 0":
        scores[torch.rand(n, generator=g) < 0.5] = 0
    if kind == "copies":
        masks, scores = masks[torch.arange(n) // 2], scores[torch.arange(n) // 2]
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if masks.abs().max() < 60_000:
        kinds["float16"] = torch.float16
    return masks.to(kinds[draw(st.sampled_from(list(kinds)))]), scores


@st.composite
def stretches(draw: Any, source: tuple[int, int]) -> Stretch:
    """One resize, up or down, or a chain of two with a crop between."""
    side = st.integers(1, 70)
    if draw(st.booleans()):
        return stretch(source, (draw(side), draw(side)))
    padded = draw(side), draw(side)
    crop = draw(st.integers(1, padded[0])), draw(st.integers(1, padded[1]))
    return stretch(source, padded, (draw(side), draw(side)), crop=crop)


@given(grids(), st.data(), st.booleans(), st.integers(1, 3))
@settings(max_examples=300)
def test_pixels_are_shared_as_by_the_plain_way(
    masks: tuple[Tensor, Tensor], data: Any, logits: bool, threads: int
) -> None:
    values, scores = masks
    to_pixels = data.draw(stretches((values.shape[1], values.shape[2])))
    expected = plain.share_pixels(values, scores, to_pixels, logits)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours = streaming.share_pixels(values, scores, to_pixels, logits)
    finally:
        torch.set_num_threads(before)
    for name, a, b in zip(("owner", "won", "large"), ours, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b), name


@given(grids(), st.data())
@settings(max_examples=100)
def test_masks_above_half_are_as_by_the_plain_way(masks: tuple[Tensor, Tensor], data: Any) -> None:
    probabilities = masks[0].float().sigmoid()
    to_pixels = data.draw(stretches((probabilities.shape[1], probabilities.shape[2])))
    pairs = zip(
        streaming.masks_above_half(probabilities, to_pixels),
        plain.masks_above_half(probabilities, to_pixels),
        strict=True,
    )
    assert all(torch.equal(ours, expected) for ours, expected in pairs)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.data(), st.booleans())
@settings(max_examples=150)
def test_any_bits_give_each_pixel_one_of_the_masks(n: int, h: int, w: int, data: Any, logits: bool) -> None:
    """Also NaN, infinity and what no network gives: nothing is left unwritten, and nothing outside is touched."""

    def bits(count: int) -> Tensor:
        strange = st.sampled_from([0x7FC00000, 0xFFC00000, 0x7F800000, 0xFF800000, 0x7F800001, 0x7F7FFFFF, 1, 0])
        numbers = data.draw(st.lists(strange | st.integers(0, 2**32 - 1), min_size=count, max_size=count))
        return torch.from_numpy(np.array(numbers, np.uint32).view(np.float32))

    values, scores, to_pixels = bits(n * h * w).view(n, h, w), bits(n), data.draw(stretches((h, w)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming.np, "empty", lambda shape, dtype: np.full(shape, 77, dtype))  # what memory may hold
        owner, won, large = streaming.share_pixels(values, scores, to_pixels, logits)
        masks = list(streaming.masks_above_half(values, to_pixels))
    assert owner.min() >= 0 and owner.max() < n
    assert torch.equal(won, torch.bincount(owner.flatten(), minlength=n))
    assert large.min() >= 0 and large.max() <= owner.numel()
    assert len(masks) == n and all(mask.numpy().view(np.uint8).max() <= 1 for mask in masks)


def test_no_value_is_lost_between_what_is_sure_and_what_is_computed_exactly() -> None:
    """Rounding of the limits had left some out, one pixel in a million of some masks."""
    limit = np.float32(0.5)
    for margin in np.random.default_rng(0).uniform(1e-6, 1e-3, 200).astype(np.float32):
        edge = np.float32(limit + margin)
        values = np.array([np.nextafter(edge, -1), edge, np.nextafter(edge, 1)], np.float32)
        assert sum(tile._surely_and_perhaps(values, len(values), limit, margin)) == len(values)


def test_arrays_that_do_not_fit_each_other_are_refused() -> None:
    one, to_pixels = torch.ones(1, 2, 2), stretch((2, 2), (4, 4))
    for values, scores in ((one[:0], one[0, 0, :0]), (one, one[0, 0, :0])):
        with pytest.raises(ValueError, match="share no pixels"):
            streaming.share_pixels(values, scores, to_pixels, True)
    with pytest.raises(IndexError, match="of a side of 1"):
        streaming.share_pixels(one[:, :1], one[0, 0, :1], to_pixels, True)
    with pytest.raises(IndexError, match="of a side of 1"):
        list(streaming.masks_above_half(one[:, :, :1], to_pixels))
    for wrong in (-2, 3, 2**31 - 1):
        with pytest.raises(IndexError, match="there are 3 numbers"):
            streaming.relabel(torch.tensor([[0, wrong]], dtype=torch.int32), torch.zeros(3, dtype=torch.int32))


def test_hundreds_of_masks_of_a_scene() -> None:
    g = torch.Generator().manual_seed(0)
    noise = F.interpolate(torch.randn(1, 300, 5, 9, generator=g) * 9 - 3, (24, 48), mode="bicubic")[0]
    scores = torch.rand(300, generator=g)
    to_pixels = stretch((24, 48), (192, 384))
    for ours, expected in zip(
        streaming.share_pixels(noise, scores, to_pixels, True),
        plain.share_pixels(noise, scores, to_pixels, True),
        strict=True,
    ):
        assert torch.equal(ours, expected)


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=30))
@settings(max_examples=20)
def test_relabelling(owner: list[int]) -> None:
    map_, numbers = torch.tensor([owner], dtype=torch.int32), torch.arange(10, 17, dtype=torch.int32)
    expected = numbers[map_]
    assert torch.equal(streaming.relabel(map_.clone(), numbers), expected)
    assert torch.equal(plain.relabel(map_.clone(), numbers), expected)


@pytest.fixture(params=["RT-K-Net", "K-Net"])
def merge(request: pytest.FixtureRequest) -> str:
    return {"RT-K-Net": "optimised", "K-Net": "sorted"}[request.param]


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything merges the plain way."""

    def plain_backend(_device: torch.device) -> ModuleType:
        return plain

    for module in ("knet.merge.panoptic", "knet.merge.sorted"):
        monkeypatch.setattr(f"{module}.backend", plain_backend)
    yield


def test_real_predictions_of_the_bundled_model(merge: str, request: pytest.FixtureRequest) -> None:
    assert backend(torch.device("cpu")) is streaming
    segmenter = knet.load("rtknet-lite-street", device="cpu", merge=merge, precision="fp32")  # type: ignore[arg-type]
    photo = Path(knet.__file__).parent / "assets" / "demo" / "city_1.jpg"
    fast = segmenter(photo, score=0.05)
    request.getfixturevalue("plainly")
    slow = segmenter(photo, score=0.05)
    assert len(slow.segments) > 5
    assert fast.segments == slow.segments
    np.testing.assert_array_equal(fast.id_map, slow.id_map)


def test_a_chain_of_resizes_is_one_table() -> None:
    """As torch resizes, one step after the other, to rounding."""
    logits = torch.randn(2, 25, 42, generator=torch.Generator().manual_seed(0)) * 5
    grid, sizes = enlarge(logits), ImageSizes((200, 336), (200, 333), (120, 161))
    one = unpadded(F.interpolate(grid[None], sizes.padded, mode="bilinear", align_corners=False), sizes)
    expected = F.interpolate(one, sizes.original, mode="bilinear", align_corners=False)[0]
    to_pixels = to_image(grid, sizes)
    assert to_pixels.size == sizes.original
    ours = torch.stack([to_pixels(map_) for map_ in grid]).float()
    torch.testing.assert_close(ours, expected, rtol=0, atol=5e-7)


@given(st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=100)
def test_positions_are_those_of_torch(source: int, size: int) -> None:
    line = torch.arange(source, dtype=torch.float32)[None, None, None]
    expected = F.interpolate(line, (1, size), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(stretch((1, source), (1, size))(line[0, 0]).float(), expected, rtol=0, atol=1e-5)


def test_estimates_are_as_close_as_is_said() -> None:
    """Those of values to a third of the error, those of probabilities to a third beside what is cut off."""
    g = torch.Generator().manual_seed(0)
    for size in ((61, 90), (20, 9), (40, 70)):
        grid, to_pixels = torch.randn(9, 11, generator=g).numpy() * 50, stretch((9, 11), (50, 60), size)
        rows, columns = streaming._tiles(to_pixels.rows, 9), streaming._tiles(to_pixels.columns, 11)
        tables = tuple(table for axis in (to_pixels.rows, to_pixels.columns) for table in (axis.index, axis.weight))
        weights, cells, values = np.zeros((64, 1024), np.float32), np.zeros(64, np.float32), np.zeros(1024, np.float32)
        expected = to_pixels(torch.from_numpy(grid)).numpy()
        for row in rows:
            for column in columns:
                there = expected[row[0] : row[1], column[0] : column[1]]
                tile.mixing_weights(row, column, tables, weights)
                largest = tile.gather(grid, row, column, cells)
                tile.estimate(cells, weights, (row[3] - row[2]) * (column[3] - column[2]), there.size, values)
                assert np.abs(values[: there.size] - there.ravel()).max() <= tile.VALUE_ERROR * largest / 3
    logits = np.linspace(-40, 40, 100_001, dtype=np.float32)
    expected, estimates = 1 / (1 + np.exp(-logits.astype(np.float64))), logits.copy()
    tile.estimate_sigmoid(estimates, len(estimates))
    assert (np.abs(estimates - expected) <= tile.SIGMOID_ERROR / 3 * expected + tile.FLOOR / 3).all()
