"""Which images are put aside for validation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from knet.data.make.split import choose_validation

CLASSES = st.lists(st.sets(st.sampled_from("abcd"), max_size=3), min_size=2, max_size=20)


@given(CLASSES, st.floats(0.05, 0.5), st.integers(0, 5))
def test_no_class_of_several_images_is_missing_in_training(classes: list[set[str]], share: float, seed: int) -> None:
    chosen = choose_validation([f"{n}.jpg" for n in range(len(classes))], classes, share, seed)
    assert 0 < len(chosen) < len(classes)
    train = set().union(*(found for number, found in enumerate(classes) if number not in chosen))
    for name in set().union(*classes):
        if sum(name in found for found in classes) > 1:
            assert name in train


def test_rare_classes_are_on_both_sides() -> None:
    classes = [{"car"}] * 18 + [{"car", "tram"}] * 2
    chosen = choose_validation([f"{n}.jpg" for n in range(20)], classes, 0.2, 0)
    assert len(chosen) == 4 and len(chosen & {18, 19}) == 1


def test_roboflows_copies_of_a_photograph_stay_together() -> None:
    names = [f"{photo}_jpg.rf.{copy}a1b2.jpg" for photo in "pqrst" for copy in range(3)]
    for seed in range(5):
        chosen = choose_validation(names, [{"car"}] * 15, 0.2, seed)
        assert {names[n][0] for n in chosen}.isdisjoint(names[n][0] for n in range(15) if n not in chosen)


def test_one_image_cannot_be_divided() -> None:
    assert choose_validation(["a.jpg"], [{"car"}], 0.2, 0) == set()
