"""Several sets as one: classes by name, images by name, and how often each set is drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_panoptic import TinyPanoptic, make_tiny

from knet.config import read_config, validate_config
from knet.data.readers.mixture import Mixture, Share
from knet.data.readers.open import open_data
from knet.data.readers.reader import Reader
from knet.data.samples.batches import BatchPlan
from knet.data.samples.transforms import make_target
from knet.errors import ConfigError, KNetError
from knet.structures import SegmentInfo


@pytest.fixture
def two(tmp_path: Path) -> tuple[TinyPanoptic, TinyPanoptic]:
    """Two sets whose classes have other names: road and car; bus (of the cars' category), sky and pole."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = (make_tiny(folder) for folder in folders)
    two.content["categories"] = [
        {"id": 3, "name": "asphalt", "isthing": 0, "color": [1, 2, 3]},
        {"id": 8, "name": "bus", "isthing": 1, "color": [4, 5, 6]},
        {"id": 9, "name": "pole", "isthing": 0, "color": [7, 8, 9]},
    ]
    return one, two


def files(tiny: TinyPanoptic, **more: Any) -> dict[str, Any]:
    return {"images": str(tiny.images), "json": str(tiny.json), "masks": str(tiny.masks), **more}


def mix(*sets: dict[str, Any], val: dict[str, Any] | None = None) -> Reader:
    data = {"train": list(sets), "val": val or {"images": "unused"}}
    config = validate_config({"model": "rtknet-cityscapes", "data": data}, "the test")
    return open_data(config.data, config.data.val if val else config.data.train)


def test_classes_are_translated_by_name(two: tuple[TinyPanoptic, TinyPanoptic]) -> None:
    mixture = mix(files(two[0]), files(two[1], classes={"asphalt": "void", "bus": "car", "pole": "void"}))
    assert [category.name for category in mixture.categories] == ["road", "car"]
    assert len(mixture) == 4
    first, other = mixture.read(0), mixture.read(2)
    assert np.array_equal(first.id_map, two[0].id_map)
    assert {(segment.id, segment.label, segment.crowd) for segment in other.segments} == {
        (70000, 1, False),
        (300, 1, False),
        (9, 1, True),
    }
    assert np.array_equal(other.id_map, np.where(two[1].id_map == 5, 0, two[1].id_map))


def test_classes_that_become_one_class_of_stuff_are_one_segment(two: tuple[TinyPanoptic, TinyPanoptic]) -> None:
    other = mix(files(two[0]), files(two[1], classes={"asphalt": "road", "bus": "road", "*": "void"})).read(2)
    assert [(segment.label, segment.crowd) for segment in other.segments] == [(0, False)]
    assert np.array_equal(other.id_map > 0, two[1].id_map > 0)
    assert len(np.unique(other.id_map)) == 2


def test_stuff_that_becomes_a_thing_is_a_crowd(two: tuple[TinyPanoptic, TinyPanoptic]) -> None:
    other = mix(files(two[0]), files(two[1], classes={"asphalt": "car", "*": "void"})).read(2)
    assert [(segment.id, segment.label, segment.crowd) for segment in other.segments] == [(5, 1, True)]


def test_what_no_loss_looks_at(two: tuple[TinyPanoptic, TinyPanoptic]) -> None:
    changed = files(two[1], classes={"asphalt": "void", "*": "car"}, ignore_void=True, unlabelled=["road"])
    mixture = mix(files(two[0]), changed)
    plain, marked = (make_target_of(mixture.read(index)) for index in (0, 2))
    assert plain.id_map.min() == 0 and not plain.unlabelled
    assert np.array_equal(marked.id_map == -1, np.isin(two[1].id_map, [0, 5, 9]))
    assert marked.unlabelled == (0,)


def make_target_of(sample: Any) -> Any:
    import torch

    return make_target(torch.from_numpy(sample.id_map), sample)


def test_where_only_objects_are_labelled_the_rest_is_not_void(two: tuple[TinyPanoptic, TinyPanoptic]) -> None:
    mixture = mix(
        files(two[0]), files(two[1], classes={"bus": "void", "asphalt": "road", "*": "void"}, ignore_void=True)
    )
    assert isinstance(mixture, Mixture)
    part = replace(mixture.parts[1], only_objects=True)
    sample = part.translate(part.reader.read(0), mixture.categories)
    assert sample.ignored == {70000, 300, 9}
    assert np.array_equal(sample.id_map, two[1].id_map)
    assert SegmentInfo(300, 0, crowd=True) in sample.segments


def test_images_are_chosen_by_name(two: tuple[TinyPanoptic, TinyPanoptic]) -> None:
    mixture = mix(files(two[0], names=["1*"]), files(two[0], names=["0"]))
    assert [mixture.name(index) for index in range(len(mixture))] == ["1", "0"]
    validation = mix(files(two[0]), val=files(two[0], names=["1"]))
    assert [validation.name(index) for index in range(len(validation))] == ["1"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"classes": {"buss": "car"}}, "has no class 'buss'; did you mean 'bus'"),
        ({"classes": {"bus": "cart"}}, "cannot be 'cart'; did you mean 'car'"),
        ({"classes": {"bus": "car"}}, "The class 'asphalt' of the set"),
        ({"classes": {"*": "void"}, "unlabelled": ["rod"]}, "name 'rod'; did you mean 'road'"),
        ({"classes": {"*": "void"}, "names": ["lund_*"]}, "No image of the set"),
        ({"weight": 0}, "greater than or equal to 1"),
    ],
)
def test_what_does_not_fit_is_named(
    two: tuple[TinyPanoptic, TinyPanoptic], more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(KNetError) as error:
        mix(files(two[0]), files(two[1], **more))
    assert sentence in str(error.value)


def test_an_unknown_option_of_one_of_the_sets_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'data.train.1.weigth' .* did you mean 'weight'"):
        read_config("rtknet-lite-street", data__train=[{"images": "a"}, {"weigth": 3}])


@given(
    st.lists(st.builds(Share, st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=4),
    st.integers(1, 7),
    st.integers(0, 40),
)
@settings(max_examples=60)
def test_sets_are_drawn_by_weight_and_evenly_within(shares: list[Share], batch: int, start: int) -> None:
    epoch = sum(share.weight for share in shares)
    flat = [draw.image for draw in islice(chain.from_iterable(BatchPlan(shares, batch, 1)), 3 * epoch)]
    first = 0
    for share in shares:
        own = range(first, first + share.images)
        first += share.images
        for number in range(3):
            assert sum(image in own for image in flat[number * epoch : (number + 1) * epoch]) == share.weight
        counts = Counter(dict.fromkeys(own, 0)) + Counter(image for image in flat if image in own)
        assert max(counts.values()) - min(counts.get(image, 0) for image in own) <= 1
    later = islice(chain.from_iterable(BatchPlan(shares, batch, 1, start)), epoch)
    whole = islice(chain.from_iterable(BatchPlan(shares, batch, 1)), start * batch, start * batch + epoch)
    assert list(later) == list(whole)


def test_the_mixture_says_how_often_each_set_is_drawn(two: tuple[TinyPanoptic, TinyPanoptic]) -> None:
    mixture = mix(files(two[0], weight=6), files(two[0], paste=True))
    assert isinstance(mixture, Mixture)
    assert mixture.shares == (Share(2, 6), Share(2, 2)) and mixture.donors == [2, 3]
    assert "images', 75% of those drawn; 2 of the set" in mixture.describe()
    assert mixture.describe().endswith("images', 25% of those drawn")
