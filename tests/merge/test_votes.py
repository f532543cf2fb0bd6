"""Votes on pixels against the same rules written pixel by pixel."""

from collections import Counter
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from knet.merge.sorted import enlarge
from knet.merge.votes import KernelView, agreed, best_of_kernels, kernel_classes
from knet.preprocess import ImageSizes

LIKELY = [0.0, 0.02, 0.05, 0.5, 0.9]  # 0.05 is the least that counts


@st.composite
def views(draw: Any) -> KernelView:
    """A view of an image of 4 x 6 pixels, which is the grid of its masks."""
    kernels, more = draw(st.integers(1, 4)), torch.Generator().manual_seed(draw(st.integers(0, 999)))
    classes = draw(st.lists(st.sampled_from(LIKELY), min_size=kernels * 3, max_size=kernels * 3))
    masks, size = torch.randn(kernels, 2, 3, generator=more) * 4, (4, 6)
    return KernelView(masks, torch.tensor(classes).view(kernels, 3), ImageSizes(size, size, size), draw(st.booleans()))


@given(st.lists(views(), min_size=1, max_size=3))
@settings(max_examples=60)
def test_each_pixel_has_the_best_class_in_the_mean_of_the_views(seen: list[KernelView]) -> None:
    maps = torch.zeros(3, 4, 6)
    for view in seen:
        held = torch.where(view.classes >= 0.05, view.classes, 0.0)
        best = (enlarge(view.mask_logits)[:, None] * held[:, :, None, None]).amax(0)
        maps += (best.flip(2) if view.flipped else best) / len(seen)
        assert view.present() == held.amax(0).nonzero()[:, 0].tolist()
        for label in range(3):
            torch.testing.assert_close(view.map_of(label), best[label].flip(1) if view.flipped else best[label])
    labels, likely = best_of_kernels(seen)
    torch.testing.assert_close(likely, maps.amax(0))
    found = torch.where(labels >= 0, maps.gather(0, labels.clamp(min=0)[None])[0], 0.0)
    torch.testing.assert_close(found, likely)  # so the label is one of the best
    assert torch.equal(labels >= 0, likely > 0) and labels.dtype == torch.int64


def test_the_grid_of_a_view_is_as_fine_as_is_said() -> None:
    sizes = ImageSizes((8, 8), (8, 8), (8, 8))
    masks = torch.randn(1, 2, 2, generator=torch.Generator().manual_seed(0))
    for times in (2, 4):
        grid = enlarge(masks, times)[0]
        wanted = grid if times == 4 else None
        found = KernelView(masks, torch.ones(1, 1), sizes, enlarged=times).map_of(0)
        assert found.shape == (8, 8) and (wanted is None or torch.allclose(found, wanted))
    plain = KernelView(masks, torch.ones(1, 1), sizes)
    assert torch.equal(plain.map_of(0), KernelView(masks, torch.ones(1, 1), sizes, False, 2).map_of(0))


ballots = st.lists(
    st.tuples(
        st.lists(st.integers(-1, 2), min_size=4, max_size=4),
        st.lists(st.sampled_from([0.2, 0.5, 0.8]), min_size=4, max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@given(ballots, st.sampled_from([0.51, 0.6, 2 / 3, 0.75, 1.0]), st.sampled_from([0.0, 0.2, 0.5, 0.65]))
@settings(max_examples=150)
def test_a_class_needs_its_share_of_the_voters_and_their_trust(
    cast: list[tuple[list[int], list[float]]], share: float, score: float
) -> None:
    votes = [(torch.tensor([labels]), torch.tensor([sure], dtype=torch.float64)) for labels, sure in cast]
    expected = []
    for pixel in range(4):
        label, count = Counter(labels[pixel] for labels, _ in cast).most_common(1)[0]
        trust = [sure[pixel] for labels, sure in cast if labels[pixel] == label]
        enough = count >= share * len(cast) - 1e-9 and sum(trust) / count >= score - 1e-12
        expected.append(label if enough else -1)
    # Sums in another order may fall on the other side of a score that is met exactly.
    found: Tensor = agreed(votes, share, score - 1e-12)
    assert found.tolist() == [expected]


def test_kernels_of_stuff_mean_their_class_and_no_other() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    likely = logits.sigmoid()
    assert torch.equal(kernel_classes(logits, ()), likely)
    assert torch.equal(kernel_classes(logits.bfloat16(), ()), logits.bfloat16().float().sigmoid())
    found, expected = kernel_classes(logits, (3, 1)), likely.clone()
    expected[:3, [1, 3]] = 0
    expected[3:] = 0
    expected[3, 3], expected[4, 1] = likely[3, 3], likely[4, 1]
    assert torch.equal(found, expected)
