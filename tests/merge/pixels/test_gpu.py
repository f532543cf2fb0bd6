"""The merge on a GPU: compared where there is one; elsewhere interpreted, and compiled without running."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

from knet.merge.pixels import plain
from knet.merge.pixels.stretch import stretch

pytest.importorskip("triton", reason="Triton is not installed")

INTERPRETED = """
import torch
from knet.merge.pixels import gpu, plain
from knet.merge.pixels.stretch import stretch
generator = torch.Generator().manual_seed(0)
cases = [
    (1, stretch((3, 4), (20, 33))),
    (5, stretch((6, 7), (40, 50))),
    (4, stretch((8, 9), (30, 60), (33, 47), crop=(28, 60))),
    (9, stretch((9, 9), (5, 4))),
]
compared = 0
for masks, to_pixels in cases:
    for logits in (True, False):
        for scale in (0, 3, 40):
            source = to_pixels.rows.index.max() + 1, to_pixels.columns.index.max() + 1
            values = torch.randn(masks, *source, generator=generator) * scale
            scores = torch.rand(masks, generator=generator).round(decimals=1)
            ours = gpu.share_pixels(values, scores, to_pixels, logits)
            expected = plain.share_pixels(values, scores, to_pixels, logits)
            for a, b in zip(ours, expected, strict=True):
                assert a.dtype == b.dtype and torch.equal(a, b), (masks, logits, scale)
                compared += 1
print(compared)
"""


@pytest.mark.large
def test_interpreted_it_equals_the_plain_way() -> None:
    command = [sys.executable, "-c", INTERPRETED]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "1"})
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "72"


def test_it_compiles_for_a_gpu() -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from knet.merge.pixels.gpu import _share

    floats, doubles, ints = (
        ("values", "scores"),
        ("row_weight", "column_weight"),
        ("asked", "row_index", "column_index"),
    )
    types = dict.fromkeys(_share.arg_names, "i32") | dict.fromkeys(floats, "*fp32")
    types |= dict.fromkeys(doubles, "*fp64") | dict.fromkeys((*ints, "owner"), "*i32") | {"large": "*i64"}
    fixed = {"LOGITS": True, "ROW_TAPS": 2, "COLUMN_TAPS": 2, "ROWS": 16, "COLUMNS": 32}
    source = ASTSource(fn=_share, signature=types | dict.fromkeys(fixed, "constexpr"), constexprs=fixed)
    built = compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    assert len(built.asm["cubin"]) > 1000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_equals_the_plain_way() -> None:
    from knet.merge.pixels import gpu

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gpu.usable()
    values = torch.nn.functional.interpolate(torch.randn(1, 60, 8, 16) * 9 - 3, (128, 256), mode="bicubic")[0]
    scores, to_pixels = torch.rand(60), stretch((128, 256), (1024, 2048))
    for logits in (True, False):
        expected = plain.share_pixels(values, scores, to_pixels, logits)
        ours = gpu.share_pixels(values.cuda(), scores.cuda(), to_pixels, logits)
        for a, b in zip(ours, expected, strict=True):
            assert torch.equal(a.cpu(), b)
