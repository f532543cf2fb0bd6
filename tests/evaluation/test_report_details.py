"""What a report shows beside the figures adds up to them, in hand-made sets and in random ones."""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from knet.data.files.masks import pack_mask
from knet.evaluation import mask_ap, mean_iou, panoptic_quality
from knet.evaluation.details import ENDS, ROWS, Details, Side
from knet.evaluation.panoptic_files import Labelled
from knet.structures import Category

TABLE = [
    Category(7, "road", False, (1, 2, 3)),
    Category(26, "car", True, (4, 5, 6)),
    Category(3, "bus", True, (7, 8, 9)),
]


def labelled(ids: np.ndarray, category: Any, **more: Any) -> Labelled:
    listed = [i for i in np.unique(ids).tolist() if i]
    return ids, [{"id": i, "category_id": category(i), **more} for i in listed]


def test_each_segment_of_a_small_set_is_where_it_belongs() -> None:
    true = np.zeros((100, 100), np.int64)
    true[50:], true[:30, :30], true[:30, 40:90], true[40:45, :10] = 1, 2, 3, 4
    found = np.zeros((100, 100), np.int64)
    found[50:], found[:30, :30], found[35:45, 60:90] = 1, 2, 3
    details = Details()
    truth = [labelled(true, {1: 7, 2: 26, 3: 26, 4: 3}.get)]  # the road, a car that is called a bus, two missed
    prediction = [labelled(found, {1: 7, 2: 3, 3: 26}.get, score=0.85)]
    result = panoptic_quality(truth, prediction, categories=TABLE, details=details)
    assert details.confusion.tolist() == [[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    # The car that is not there lies on void, so nothing is said of it; and so there is no score of it.
    assert details.scores[8].tolist() == [2, 1, pytest.approx(1.7)]
    small, medium, large = details.sizes[:, 1:].tolist()
    assert small == [[0, 0, 0], [0, 0, 1], [0, 1, 1]]
    assert medium == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert large == [[0, 0, 0]] * 3
    assert details.worst[0].counts == (1, 1, 3)
    assert details.worst[0].figure == pytest.approx(result["all"]["pq"])


maps = arrays(np.int64, (12, 16), elements=st.integers(0, 5))


@settings(max_examples=60)
@given(images=st.lists(st.tuples(maps, maps), min_size=1, max_size=4), crowd=st.booleans())
def test_the_tables_of_a_panoptic_report_add_up(images: list[tuple[np.ndarray, np.ndarray]], crowd: bool) -> None:
    def category(i: int) -> int:
        return TABLE[i % 3].id

    truth = [labelled(true.repeat(3, 0), category) for true, _ in images]
    for _, segments in truth if crowd else ():
        for segment in segments[:1]:
            segment["iscrowd"] = 1  # type: ignore[index]
    prediction = [labelled(found.repeat(3, 0), category, score=0.1) for _, found in images]
    details = Details()
    result = panoptic_quality(truth, prediction, categories=TABLE, details=details)
    assert result == panoptic_quality(truth, prediction, categories=TABLE)
    counts = np.array([[row[key] for key in ("iou", "tp", "fp", "fn")] for row in result["classes"].values()]).T
    np.testing.assert_allclose(details.sizes.sum(0), counts)
    assert (details.sizes[:, 1:].sum(0) == counts[1:]).all()
    assert (np.diagonal(details.confusion)[:-1] == counts[1]).all()
    assert (details.confusion[:-1].sum(1) == counts[1] + counts[3]).all()
    assert (details.confusion[:, :-1].sum(0) == counts[1] + counts[2]).all()
    assert details.scores[:, 0].sum() == counts[1:3].sum() and details.scores[1, 1] == counts[1].sum()
    assert np.sum([row.counts for row in details.worst], axis=0).tolist() == counts[1:].sum(1).tolist()
    assert details.images == len(images)


@settings(max_examples=30)
@given(images=st.lists(st.tuples(maps, maps), min_size=1, max_size=3), protocol=st.sampled_from(["mean", "mapillary"]))
def test_the_pixels_of_a_semantic_report_add_up(images: list[tuple[np.ndarray, np.ndarray]], protocol: str) -> None:
    details, names = Details(), {1: "road", 3: "car", 4: "bus"}
    sides = [true for true, _ in images], [found for _, found in images]
    result = mean_iou(*sides, classes=names, protocol=protocol, details=details)
    assert result == mean_iou(*sides, classes=names, protocol=protocol)
    assert details.confusion[:-1].sum(1).tolist() == [row["pixels"] for row in result["classes"].values()]
    totals = np.sum([row.counts for row in details.worst], axis=0)
    assert totals[0] == details.confusion.sum() and totals[1] == np.trace(details.confusion)
    if result["pixel_accuracy"] is not None:
        assert totals[1] / totals[0] == pytest.approx(result["pixel_accuracy"])


def test_cityscapes_counts_its_classes_alone() -> None:
    true, found = np.full((4, 4), 7), np.full((4, 4), 7)
    true[0], found[1], found[2] = 9, 8, 10  # parking is void; a sidewalk; a rail track, which is not evaluated
    details = Details()
    result = mean_iou(true, found, protocol="cityscapes", details=details)
    assert [row.name for row in details.categories][:2] == ["road", "sidewalk"]
    assert details.confusion[0, [0, 1, -1]].tolist() == [4, 4, 4]
    assert details.worst[0].figure == pytest.approx(result["miou"])


def box(*place: int) -> dict[str, Any]:
    mask = np.zeros((60, 60), bool)
    mask[place[0] : place[2], place[1] : place[3]] = True
    return pack_mask(mask)


def test_each_object_of_a_small_set_is_where_it_belongs() -> None:
    truth = {
        "images": [{"id": 5, "height": 60, "width": 60}, {"id": "b", "height": 60, "width": 60}],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}],
        "annotations": [
            {"image_id": 5, "category_id": 1, "segmentation": box(0, 0, 20, 20)},
            {"image_id": 5, "category_id": 1, "segmentation": box(30, 0, 50, 20)},
            {"image_id": 5, "category_id": 2, "segmentation": box(0, 30, 20, 50), "iscrowd": 1},
            {"image_id": 5, "category_id": 2, "segmentation": box(30, 30, 50, 50)},
        ],
    }
    found = [
        {"image_id": 5, "category_id": 1, "score": 0.9, "segmentation": box(0, 0, 20, 18)},
        {"image_id": 5, "category_id": 1, "score": 0.8, "segmentation": box(0, 0, 20, 20)},  # the same one again
        {"image_id": 5, "category_id": 2, "score": 0.7, "segmentation": box(30, 0, 50, 20)},  # a car
        {"image_id": 5, "category_id": 2, "score": 0.6, "segmentation": box(0, 32, 10, 40)},  # in the crowd
        {"image_id": 5, "category_id": 2, "score": 0.1, "segmentation": box(30, 30, 50, 50)},  # right, but not sure
        {"image_id": "b", "category_id": 1, "score": 0.5, "segmentation": box(0, 0, 9, 9)},
    ]
    details = Details()
    result = mask_ap(truth, found, details=details)
    assert result == mask_ap(truth, found)
    assert details.confusion.tolist() == [[1, 1, 0], [0, 0, 1], [2, 0, 0]]
    assert details.confusion[:-1].sum(1).tolist() == [row["objects"] for row in result["classes"].values()]
    assert details.scores[:, :2].tolist()[1] == [1, 1]  # the one that is not sure
    assert details.scores[:, 0].sum() == 5 and details.scores[:, 1].sum() == 2  # without what lies in the crowd
    rows = {row.name: row for row in details.worst}
    assert rows["5"].counts == (1, 2, 2) and rows["b"].counts == (0, 1, 0) and rows["b"].figure == 0.0
    assert [row.name for row in details.worst] == ["b", "5"]


def test_pictures_show_the_truth_at_the_left_and_what_was_found_at_the_right() -> None:
    """Each metric gives the painter both maps, and the rows of the class table that their ids are of."""
    drawn: list[tuple[Side, Side]] = []

    def painter(truth: Side, found: Side, _categories: Sequence[Category]) -> bytes:
        drawn.append((truth, found))
        return b"jpeg"

    def shown(side: Side) -> list[list[int]]:
        ids, rows = side
        return np.vectorize(lambda id_: rows.get(int(id_), -1))(ids).tolist()

    true, found = np.array([[1, 1, 2, 0]]), np.array([[1, 2, 2, 0]])
    rows: list[dict[str, Any]] = [{"id": n, "category_id": (7, 26)[n - 1]} for n in (1, 2)]
    panoptic_quality([(true, rows)], [(found, rows)], categories=TABLE, details=Details(painter))
    mean_iou(true, found, classes={1: "road", 2: "car"}, details=Details(painter))
    for sides in drawn:
        assert [shown(side) for side in sides] == [[[0, 0, 1, -1]], [[0, 1, 1, -1]]]
    assert len(drawn) == 2
    mean_iou(np.array([[7, 8, 9]]), np.array([[8, 8, 7]]), protocol="cityscapes", details=Details(painter))
    assert [shown(side) for side in drawn[2]] == [[[0, 1, -1]], [[1, 1, 0]]]
    objects = {
        "images": [{"id": 1, "height": 60, "width": 60}],
        "categories": [{"id": 9, "name": "bus"}, {"id": 4, "name": "car"}],
        "annotations": [
            {"image_id": 1, "category_id": 9, "segmentation": box(0, 0, 2, 1)},  # behind the smaller car
            {"image_id": 1, "category_id": 4, "segmentation": box(0, 0, 1, 1)},
        ],
    }
    places = (9, 0.5, box(0, 0, 1, 2)), (4, 0.9, box(0, 0, 1, 1)), (4, 0.3, box(0, 2, 1, 3)), (4, 0.2, box(0, 0, 1, 9))
    guesses = [{"image_id": 1, "category_id": c, "score": s, "segmentation": mask} for c, s, mask in places]
    mask_ap(objects, guesses, details=Details(painter))
    maps = [np.array(shown(side)) for side in drawn[3]]
    assert maps[0][:2, :2].tolist() == [[1, -1], [0, -1]] and (maps[0] >= 0).sum() == 2
    assert maps[1][0, :4].tolist() == [1, 0, 1, -1] and (maps[1] >= 0).sum() == 3
    mask_ap(objects, guesses, kind="bbox", details=(boxes := Details(painter)))
    assert not boxes.images and len(drawn) == 4


def test_objects_of_classes_that_are_not_evaluated_are_not_counted() -> None:
    row = {"image_id": 1, "category_id": 1, "segmentation": box(0, 0, 9, 9)}
    truth = {
        "images": [{"id": 1, "height": 60, "width": 60}],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}],
        "annotations": [row, {**row, "category_id": 2}],
    }
    details = Details()
    mask_ap(
        truth, [{**row, "score": 0.9}, {**row, "category_id": 2, "score": 0.8}], classes={2: "bus"}, details=details
    )
    assert details.confusion.tolist() == [[1, 0], [0, 0]] and [c.name for c in details.categories] == ["bus"]


def many(names: range) -> Details:
    details = Details()
    details.open(TABLE)
    for number in names:
        counts = np.zeros((3, 4), np.int64)
        counts[0, 0], counts[0, 1] = number % 1000, 1000 - number % 1000
        details.add_pixels(f"image {number:05d}", counts, lambda number=number: b"jpeg %d" % number)
    return details


def test_memory_does_not_grow_with_the_images() -> None:
    few, more = many(range(ROWS)), many(range(3 * ROWS))
    assert more.images == 3 * ROWS
    assert len(more.worst) == ROWS and len(more.best) == ENDS and len(more.pictures) <= 2 * ENDS
    assert len(pickle.dumps(more)) < 1.1 * len(pickle.dumps(few))
    worst, best = more.ends()
    assert [row.name for row in worst] == [f"image {n:05d}" for n in (0, 1000, 2000, 3000, 4000, 5000)]
    assert {row.name for row in best} == {f"image {n:05d}" for n in (999, 1999, 2999, 3999, 4999, 5999)}
    assert more.pictures.keys() == {row.name for row in [*worst, *best]}
    assert more.pictures["image 01000"] == b"jpeg 1000"


def test_several_processes_count_what_one_counts() -> None:
    whole, half = many(range(30)), many(range(0, 30, 2))
    half.merge(pickle.loads(pickle.dumps(many(range(1, 30, 2)))))
    for key in ("kind", "images", "worst", "best", "pictures"):
        assert getattr(half, key) == getattr(whole, key)
    assert (half.confusion == whole.confusion).all()


def test_few_images_are_at_one_end_each() -> None:
    for count, ends in ((0, (0, 0)), (1, (1, 0)), (4, (2, 2)), (5, (3, 2)), (40, (6, 6))):
        worst, best = many(range(count)).ends()
        assert (len(worst), len(best)) == ends
        assert not {row.name for row in worst} & {row.name for row in best}
