"""AP of tracks equals YTVOSeval's, and treats crowds, sizes and absent frames as it does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knet.data.files.masks import mask_area, pack_mask, unpack_mask
from knet.errors import DataError
from knet.evaluation import ytvis_ap
from knet.evaluation.video_instance import join_frames

STATS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "aps": "AP_small", "apm": "AP_medium", "apl": "AP_large"}
STATS |= {"ar1": "AR_1", "ar10": "AR_10", "ar100": "AR_100", "ars": "AR_small", "arm": "AR_medium", "arl": "AR_large"}


def test_equals_ytvoseval(goldens: Path) -> None:
    folder = goldens / "metrics" / "ytvis_ap_a"
    expected = json.loads((folder / "expected.json").read_text())
    result = ytvis_ap(folder / "gt.json", folder / "pred.json")
    assert result["protocol"] == "youtube-vis"
    for ours, theirs in STATS.items():
        value = expected["stats"][theirs]
        assert result["all"][ours] == (None if value == -1 else pytest.approx(value, abs=1e-9)), ours
    for category, row in result["classes"].items():
        theirs = expected["per_category"].get(str(category))
        if theirs is None:
            assert row["ap"] is None
        else:
            assert row["ap"] == pytest.approx(theirs["AP"], abs=1e-9)
            assert row["ap50"] == pytest.approx(theirs["AP50"], abs=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_framesjoin_frames_are_the_frames(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = [None if rng.random() < 0.2 else rng.random((3, 4)) < rng.choice([0, 0.5, 1]) for _ in range(4)]
    joined = join_frames([None if frame is None else pack_mask(frame) for frame in frames], 3, 4)
    whole = np.concatenate([np.zeros((3, 4), bool) if frame is None else frame for frame in frames], axis=1)
    assert (unpack_mask(joined) == whole).all()
    assert mask_area(joined) == whole.sum()


def block(*columns: int) -> Any:
    """A mask of 8 x 40 whose columns from..to are the object; none: not there."""
    mask = np.zeros((8, 40), np.uint8)
    mask[:, slice(*columns)] = 1
    return mask


def truth(*annotations: dict[str, Any], **video: Any) -> dict[str, Any]:
    rows = [{"id": n, "video_id": 1, "category_id": 3, "iscrowd": 0, **row} for n, row in enumerate(annotations)]
    videos = [{"id": 1, "height": 8, "width": 40, "length": 2, **video}]
    return {"videos": videos, "annotations": rows, "categories": [{"id": 3, "name": "dog"}, {"id": 4, "name": "cat"}]}


def found(score: float, *masks: Any, category: int = 3) -> dict[str, Any]:
    return {"video_id": 1, "category_id": category, "score": score, "segmentations": list(masks)}


def test_iou_is_over_all_frames() -> None:
    one = truth({"segmentations": [block(0, 10), block(10, 20)]})
    assert ytvis_ap(one, [found(0.5, block(0, 10), None)])["all"]["ap"] == pytest.approx(0.1)  # IoU 0.5: at 0.5 alone
    assert ytvis_ap(one, [found(0.5, block(0, 10), block(0, 10))])["all"]["ap"] == 0  # IoU 1/3
    assert ytvis_ap(one, [found(0.5, block(0, 10), block(10, 20))])["all"]["ap"] == pytest.approx(1)


def test_any_number_of_predictions_may_lie_on_a_crowd() -> None:
    crowd = {"segmentations": [block(20, 40), block(20, 40)], "iscrowd": 1}
    both = truth({"segmentations": [block(0, 10), block(0, 10)]}, crowd)
    right = found(0.1, block(0, 10), block(0, 10))
    on_crowd = [found(0.9, block(20, 40), block(20, 40)), found(0.8, block(20, 40), block(20, 40))]
    result = ytvis_ap(both, [*on_crowd, right])
    assert result["all"]["ap"] == pytest.approx(1)
    assert result["classes"][3]["objects"] == 1
    assert result["classes"][3]["predictions"] == 3
    # Unlike COCO's, a crowd forgives by ordinary IoU: a prediction that lies in it, but covers little, is wrong.
    assert ytvis_ap(both, [found(0.9, block(20, 25), None), right])["all"]["ap"] == pytest.approx(0.5)


def test_sizes_are_by_the_mean_of_the_frames_with_the_object() -> None:
    listed = {"segmentations": [block(0, 10), None], "areas": [128.0**2 + 1, None]}
    result = ytvis_ap(truth(listed), [found(0.5, block(0, 10), None)])
    assert result["all"]["apm"] == pytest.approx(1)
    assert result["all"]["aps"] is None
    counted = ytvis_ap(truth({"segmentations": listed["segmentations"]}), [found(0.5, block(0, 10), None)])
    assert counted["all"]["aps"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("area", "sizes"),
    [(0.5, "s"), (128**2 - 1, "s"), (128**2, "sm"), (128**2 + 1, "m"), (256**2, "ml"), (256**2 + 1, "l")],
)
def test_an_area_on_the_limit_of_two_sizes_is_of_both(area: float, sizes: str) -> None:
    one = truth({"segmentations": [block(0, 10), None], "areas": [area, None]})
    result = ytvis_ap(one, [found(0.5, block(0, 10), None)])["all"]
    assert [size for size in "sml" if result[f"ap{size}"] is not None] == list(sizes)
    assert result["ap"] == pytest.approx(1)


def test_nothing_found_and_nothing_to_find() -> None:
    one = truth({"segmentations": [block(0, 10), None]})
    assert ytvis_ap(one, [])["all"]["ap"] == 0
    assert ytvis_ap(truth(), [found(0.5, block(0, 3), None)])["all"]["ap"] is None


GOOD = found(0.5, block(0, 3), None)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([found(0.5, block(0, 3))], "track 1 has 1 segmentations, its video 2 frames"),
        ([{**GOOD, "segmentations": None}], "no list of segmentations"),
        ([GOOD, {**GOOD, "video_id": 9}], "track 2 is of the video 9, which the truth does not list"),
        ([{**GOOD, "category_id": 5}], "the category 5"),
        ([{**GOOD, "score": None}], "the score None"),
        ([found(0.5, None, block(0, 3)[:4])], "track 1, frame 1: the mask must be"),
        ([7], "track 1 is 7"),
        ({}, "must hold a list of tracks"),
    ],
)
def test_refuses_tracks_that_contradict(predictions: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ytvis_ap(truth({"segmentations": [block(0, 10), None]}), predictions)


def test_refuses_a_truth_that_contradicts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lists `videos` and `annotations`"):
        ytvis_ap({"images": [], "annotations": []}, [])
    with pytest.raises(DataError, match="every video needs id, height, width and length"):
        ytvis_ap(truth(length=None), [])
    with pytest.raises(DataError, match="2\\^32 pixels"):
        ytvis_ap(truth(length=2**30), [])
    with pytest.raises(DataError, match="lists no videos"):
        ytvis_ap({**truth(), "videos": []}, [])
    with pytest.raises(DataError, match="lists the video 1 twice"):
        ytvis_ap({**truth(), "videos": truth()["videos"] * 2}, [])
    with pytest.raises(DataError, match="the areas 'big'"):
        ytvis_ap(truth({"segmentations": [None, None], "areas": "big"}), [])
    (tmp_path / "gt.json").write_text("[")
    with pytest.raises(DataError, match=r"gt\.json cannot be read"):
        ytvis_ap(tmp_path / "gt.json", [])
