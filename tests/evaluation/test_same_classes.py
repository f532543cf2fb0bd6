"""Results with a list of classes of their own: which category of the truth each of their ids is."""

from typing import Any

import pytest

from knet.errors import DataError
from knet.evaluation.same_classes import ids_of_truth
from knet.structures import Category

TRUTH = [Category(7, "road", False, (0, 0, 0)), Category(26, "traffic light", True, (0, 0, 0))]


def test_ids_of_a_list_become_those_of_the_truth() -> None:
    listed = [{"id": 1, "name": "Traffic-Light"}, {"id": "2", "name": "road"}, {"id": 3, "name": "tree"}]
    of_truth = ids_of_truth(listed, TRUTH, "found.json")
    assert [of_truth(own) for own in (1, 2, "1", 2.0)] == [26, 7, 26, 7]
    with pytest.raises(
        DataError,
        match=r"^found.json has something of the class 'tree' \(3\), which the truth lacks: only it has 'tree'; call",
    ):
        of_truth(3)
    for lacking in (7, "9"):
        with pytest.raises(DataError, match=f"^found.json uses the category .?{lacking}.*, which its own list"):
            of_truth(lacking)
    for strange in (None, "car", [1]):
        assert of_truth(strange) == strange  # which the metric refuses in its own words


@pytest.mark.parametrize("listed", [None, [], [{"id": 7}, {"id": 3}], [{"name": "road"}]])
def test_without_a_list_of_names_the_ids_are_those_of_the_truth(listed: Any) -> None:
    of_truth = ids_of_truth(listed, TRUTH, "found.json")
    assert of_truth(7) == 7 and of_truth("26") == 26
    if not listed or "id" in listed[0]:
        assert of_truth(3) == 3  # of a class that the truth does not have: the metric says so


@pytest.mark.parametrize("listed", [{"1": "car"}, ["car"], 7, [{"id": 1, "name": "road"}] * 2])
def test_lists_that_are_none_are_refused(listed: Any) -> None:
    with pytest.raises(DataError, match=r"found\.json has"):
        ids_of_truth(listed, TRUTH, "found.json")
