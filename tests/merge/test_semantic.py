"""One class for each pixel: whole images, sliding windows, several looks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from knet.errors import ConfigError
from knet.merge import semantic
from knet.merge.semantic import ViewLogits, best_classes, class_segments, look, mean_probabilities, sliding_logits


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stretched(logits: Tensor, *sizes: tuple[int, int]) -> Tensor:
    """Plainly: all classes at once. (K,h,w) -> (K,H,W)"""
    for size in sizes:
        logits = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    return logits


@pytest.fixture(params=[1, 100, 2**25])
def _few_values_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "_VALUES_AT_ONCE", request.param)


def test_one_look_is_the_largest_logit_at_the_images_own_size() -> None:
    logits = rand(7, 4, 5) * 3
    labels, probabilities = best_classes([ViewLogits(logits, (8, 10), (13, 9))])
    assert torch.equal(labels, stretched(logits, (8, 10), (13, 9)).argmax(dim=0))
    best = logits.softmax(dim=0).amax(dim=0, keepdim=True)
    assert torch.allclose(probabilities, stretched(best, (8, 10), (13, 9))[0], atol=1e-6)


@pytest.mark.usefixtures("_few_values_at_once")
def test_several_looks_are_averaged_as_probabilities() -> None:
    views = [
        ViewLogits(rand(7, 4, 5), (8, 10), (13, 9)),
        ViewLogits(rand(7, 3, 3, seed=1), (6, 6), (13, 9), flipped=True),
    ]
    plain = stretched(views[0].logits, (8, 10), (13, 9)).softmax(dim=0)
    plain = (plain + stretched(views[1].logits.flip(2), (6, 6), (13, 9)).softmax(dim=0)) / 2
    assert torch.allclose(torch.cat(list(mean_probabilities(views))), plain, atol=1e-6)
    labels, probabilities = best_classes(views)
    assert torch.equal(labels, plain.argmax(dim=0))
    assert torch.allclose(probabilities, plain.amax(dim=0), atol=1e-6)


@pytest.mark.usefixtures("_few_values_at_once")
def test_on_a_tie_the_lower_label_wins() -> None:
    same = ViewLogits(torch.zeros(5, 2, 2), (2, 2), (2, 2))
    assert best_classes([same])[0].unique().tolist() == [0]
    assert best_classes([same, same])[0].unique().tolist() == [0]


def test_a_mirror_look_of_a_network_that_knows_no_left_and_right_says_the_same() -> None:
    weight = rand(4, 3)
    plain, mirrored = look(
        lambda x: torch.einsum("kc,bchw->bkhw", weight, x), rand(1, 3, 6, 8, seed=1), (12, 16), flip=True
    )
    assert plain.resized == mirrored.resized == (6, 8)
    for ours, theirs in zip(plain.parts(), mirrored.parts(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    window=st.tuples(st.integers(1, 25), st.integers(1, 25)),
    data=st.data(),
)
@settings(max_examples=60)
def test_windows_of_a_network_that_sees_single_pixels_give_the_whole_image(
    height: int, width: int, window: tuple[int, int], data: st.DataObject
) -> None:
    stride = (data.draw(st.integers(1, window[0])), data.draw(st.integers(1, window[1])))
    sizes = set()

    def predict(x: Tensor) -> Tensor:
        sizes.add(tuple(x.shape[2:]))
        return torch.cat((x, 2 * x), dim=1)

    images = rand(2, 3, height, width)
    logits = sliding_logits(predict, images, window, stride)
    assert torch.allclose(logits, torch.cat((images, 2 * images), dim=1), atol=1e-5)
    assert sizes == {(min(window[0], height), min(window[1], width))}  # all of one size, cut to the image


def test_overlapping_windows_are_averaged() -> None:
    calls = iter(range(1, 10))
    logits = sliding_logits(
        lambda x: torch.full((1, 1, 1, 1), float(next(calls))), torch.zeros(1, 3, 4, 10), (4, 6), (4, 3)
    )
    # Windows at columns 0, 3 and 4 (moved back from 6), which say 1, 2 and 3.
    assert torch.allclose(logits[0, 0, 0], torch.tensor([1, 1, 1, 1.5, 2, 2, 2.5, 2.5, 2.5, 3]))


def test_a_window_larger_than_the_image_is_the_whole_image() -> None:
    weight = rand(5, 3, 3, 3)
    images = rand(1, 3, 9, 7, seed=1)
    views = look(lambda x: F.conv2d(x, weight, stride=2), images, (9, 7), window=(32, 32))
    whole = look(lambda x: F.conv2d(x, weight, stride=2), images, (9, 7))
    assert torch.equal(best_classes(views)[0], best_classes(whole)[0])


@pytest.mark.parametrize(("window", "stride"), [((0, 4), (1, 1)), ((4, 4), (0, 4)), ((4, 4), (4, 5))])
def test_windows_that_cannot_be(window: tuple[int, int], stride: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"sliding window .* stride between 1 and the window's size") as error:
        sliding_logits(lambda x: x, torch.zeros(1, 3, 8, 8), window, stride)
    assert "\n" not in str(error.value)


def test_segments_are_the_classes_with_their_mean_probability() -> None:
    labels = torch.tensor([[4, 4, 0], [9, 4, 0]])
    probabilities = torch.tensor([[0.5, 0.25, 1.0], [0.75, 0.75, 0.5]])
    id_map, rows = class_segments(labels, probabilities)
    assert id_map.dtype == torch.int32
    assert id_map.tolist() == [[2, 2, 1], [3, 2, 1]]
    assert rows == [(1, 0, 0.75), (2, 4, 0.5), (3, 9, 0.75)]
    id_map, rows = class_segments(labels, probabilities, score=0.6)
    assert id_map.tolist() == [[0, 0, 1], [2, 0, 1]]
    assert rows == [(1, 0, 0.75), (2, 9, 0.75)]
