"""Swin: windows, shifts, other code bases' names and orders. Its numbers are checked with the K-Nets that use it."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from knet.models.backbones.swin import PatchMerging, Swin, SwinBlock, join_windows, shift_mask, split_windows
from knet.weights import swin


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(**arguments: Any) -> Swin:
    torch.manual_seed(0)
    return Swin(**{"embed_dim": 8, "depths": (2, 2, 2, 2), "heads": (1, 2, 2, 4), "window": 3, **arguments})


@given(batch=st.integers(1, 3), rows=st.integers(1, 4), columns=st.integers(1, 4), window=st.integers(1, 4))
@settings(max_examples=30)
def test_windows_are_joined_as_they_were_split(batch: int, rows: int, columns: int, window: int) -> None:
    x = rand(batch, rows * window, columns * window, 2)
    windows = split_windows(x, window)
    assert windows.shape == (batch * rows * columns, window * window, 2)
    assert torch.equal(windows[columns * (rows - 1)], x[0, -window:, :window].reshape(-1, 2))
    assert torch.equal(join_windows(windows, window, (rows * window, columns * window)), x)


def influence(block: SwinBlock, size: tuple[int, int], mask: Tensor, cell: tuple[int, int]) -> set[tuple[int, int]]:
    """The cells whose value reaches a cell of the block's result. A masked one still has a share of exp(-100)."""
    x = rand(1, *size, 8).requires_grad_()
    block(x, mask)[0, cell[0], cell[1]].sum().backward()
    return {(int(row), int(column)) for row, column in (x.grad[0].abs().amax(-1) > 1e-9).nonzero()}


@pytest.mark.parametrize(
    ("shift", "cell", "rows", "columns"),
    [
        (0, (1, 1), range(4), range(4)),
        (0, (6, 3), range(4, 7), range(4)),  # 7 rows: the last window has a row of padding
        (2, (3, 3), range(2, 6), range(2, 6)),  # a window in the middle of four others
        (2, (0, 0), range(2), range(2)),  # shares its shifted window with the opposite side, but does not see it
        (2, (6, 7), range(6, 7), range(6, 8)),
    ],
)
def test_a_cell_sees_its_window_and_nothing_else(
    shift: int, cell: tuple[int, int], rows: range, columns: range
) -> None:
    torch.manual_seed(0)
    block = SwinBlock(8, 2, 4, shift, 0.0)
    seen = influence(block, (7, 8), shift_mask(torch.zeros(1, 7, 8, 8), 4, 2), cell)
    assert seen == {(row, column) for row in rows for column in columns}


def test_patch_merging_reads_channel_by_channel() -> None:
    merging = PatchMerging(2)
    merging.norm, merging.reduce = torch.nn.Identity(), torch.nn.Identity()
    x = torch.arange(24.0).reshape(1, 3, 4, 2)  # an odd side is filled up with zeros
    assert merging(x)[0, 0, 0].tolist() == [0, 2, 8, 10, 1, 3, 9, 11]
    assert merging(x)[0, 1, 1].tolist() == [20, 22, 0, 0, 21, 23, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 96)])
def test_any_size_works_and_every_parameter_learns(size: tuple[int, int]) -> None:
    net = tiny()
    maps = net(torch.randn(2, 3, *size))
    expected = [
        (2, c, *(-(-side // stride) for side in size)) for c, stride in zip(net.channels, (4, 8, 16, 32), strict=True)
    ]
    assert [tuple(c.shape) for c in maps] == expected
    sum((c * rand(*c.shape)).sum() for c in maps).backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None]


def test_drop_path_grows_linearly_over_all_blocks() -> None:
    rates = [
        block.drop_path.probability
        for stage in tiny(drop_path=0.3, depths=(1, 2, 3, 1)).stages
        for block in stage.blocks
    ]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])


def test_half_precision_is_near() -> None:
    net, x = tiny().eval(), rand(1, 3, 40, 40)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = net(x)[-1]
    assert torch.allclose(half.float(), net(x)[-1], atol=0.1)
    assert torch.allclose(tiny().eval().bfloat16()(x.bfloat16())[-1].float(), net(x)[-1], atol=0.2)


def test_names_and_channel_order_of_the_first_swin_code(goldens: Any) -> None:
    golden = json.loads((goldens / "knet" / "swin_convert.json").read_text())
    first, openmmlab = {}, {}
    for number, (name, other) in enumerate(golden["names"]):
        other = other.removeprefix("backbone.")
        value = rand(3, 4 * golden["channels"], seed=number)
        first[name] = value[0] if "norm" in name else value
        if "downsample" in name:
            value = value[:, golden["norm_order" if "norm" in name else "reduction_columns"]]
        openmmlab[other] = value[0] if "norm" in name else value
    ours, theirs = swin.translate(first), swin.translate(openmmlab)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    assert ours.keys() - {"norm.weight"} <= tiny().state_dict().keys()  # the rest is the classifier's
