"""STQ equals deeplab2's and the scripts' figures, and is what its definition promises."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from video_clips import TABLE, clip, renumbered, seeds

from knet.errors import DataError
from knet.evaluation import TrackingQuality, VideoPanopticQuality, stq
from knet.structures import Category

PRINTED = {"stq": "STQ", "aq": "AQ", "sq": "IoU"}


def check(result: dict[str, Any], expected: dict[str, Any], names: list[str]) -> None:
    """All figures of the official result; `names` are our sequences in its order."""
    for ours, theirs in PRINTED.items():
        assert result["all"][ours] == pytest.approx(expected[theirs], abs=1e-9), ours
        per_sequence = [result["sequences"][name][ours] for name in names]
        assert per_sequence == pytest.approx(expected[f"{theirs}_per_seq"], abs=1e-9), ours
    assert [result["sequences"][name]["frames"] for name in names] == expected["Length_per_seq"]
    assert len(result["sequences"]) == len(names)


@pytest.mark.parametrize("case", ["stq_edge_cases", "stq_kitti_mots_a"])
@pytest.mark.parametrize(("protocol", "key"), [("official", "official"), ("video-knet", "videoknet_protocol")])
def test_equals_the_official_figures(goldens: Path, case: str, protocol: str, key: str) -> None:
    folder = goldens / "metrics" / case
    expected = json.loads((folder / "expected.json").read_text())[key]
    result = stq(folder / "gt", folder / "pred", protocol=protocol)
    check(result, expected, expected["ID_per_seq"])
    assert result["protocol"] == protocol
    things = [id_ for id_, row in result["classes"].items() if row["thing"]]
    assert sorted(things) == ([11, 13] if protocol == "official" else list(range(11, 19)))


def test_equals_the_unit_test_of_deeplab2(goldens: Path) -> None:
    folder = goldens / "metrics" / "stq_deeplab2_unit"
    expected = json.loads((folder / "expected.json").read_text())
    classes = [Category(i, f"class {i}", i in expected["settings"]["things"], (0, 0, 0)) for i in range(3)]
    check(stq(folder / "gt", folder / "pred", classes), expected["official"], ["seq"])


@pytest.mark.parametrize("seed", [500, 501])
@pytest.mark.parametrize(
    ("protocol", "key"),
    [("video-knet", "things_11_to_18 (as in tools/eval_dstq_step.py)"), ("official", "things_11_13")],
)
def test_equals_the_script_of_video_knet(goldens: Path, seed: int, protocol: str, key: str) -> None:
    folder = goldens / "video_knet" / f"metric_kitti_step_seed{seed}"
    expected = json.loads((folder / "expected.json").read_text())["stq"][key]
    result = stq(folder / "kitti-step/video_sequence/val", folder / "pred", protocol=protocol)
    check(result, expected, ["000002", "000006"])


def test_equals_the_script_for_vipseg(goldens: Path) -> None:
    folder = goldens / "video_knet" / "metric_vipseg_seed510"
    expected = json.loads((folder / "expected.json").read_text())["stq"]
    check(stq(folder / "VIPSeg", folder / "pred", protocol="video-knet"), expected, ["12_abc", "7_def"])


def test_equals_vipsegs_own_script(goldens: Path) -> None:
    folder = goldens / "metrics" / "vpq_stq_vipseg_a"
    expected = json.loads((folder / "expected.json").read_text())["stq"]
    result = stq(folder / "panoptic_gt_VIPSeg_val.json", folder / "results")
    check(result, expected, ["0_synth", "1_synth"])
    assert result["protocol"] == "vipseg"


def test_vipsegs_script_takes_a_thing_that_is_listed_first_for_a_crowd(goldens: Path, tmp_path: Path) -> None:
    folder = goldens / "metrics" / "vpq_stq_vipseg_a"
    content = json.loads((folder / "panoptic_gt_VIPSeg_val.json").read_text())
    for video in content["annotations"]:
        video["annotations"][0]["segments_info"].reverse()  # the first is a thing now
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "panomasksRGB").symlink_to(folder / "panomasksRGB")
    tracks = {
        protocol: stq(tmp_path / "truth.json", folder / "results/pred.json", protocol=protocol)["all"]["tracks"]
        for protocol in ("official", "vipseg")
    }
    assert tracks["vipseg"] == tracks["official"] - 2


def test_classes_say_their_iou_and_how_their_tracks_are_followed() -> None:
    classes = np.array([[5, 5, 5, 2]])
    truth = {"a": [(classes, np.array([[1, 1, 2, 0]]))]}
    found = {"a": [(np.array([[5, 5, 5, 5]]), np.array([[4, 4, 4, 8]]))]}
    result = stq(truth, found, TABLE)
    assert result["classes"][5] == {
        "name": "car", "thing": True, "iou": 0.75, "aq": pytest.approx((2 / 3 + 1 / 3) / 2), "tracks": 2, "pixels": 3
    }  # fmt: skip
    assert result["classes"][2]["iou"] == 0
    assert result["classes"][2]["tracks"] is None
    assert result["classes"][7]["iou"] is None
    assert result["all"] == {**result["sequences"]["a"]}
    assert result["all"]["sq"] == 0.375
    json.dumps(result, allow_nan=False)


@given(seeds, st.sampled_from(["official", "video-knet"]))
def test_the_truth_against_itself_is_perfect(seed: int, protocol: str) -> None:
    truth = {"a": clip(seed), "b": clip(seed + 1)}
    result = stq(truth, truth, TABLE, protocol)
    assert result["all"]["sq"] == 1
    if result["all"]["tracks"]:
        assert result["all"]["stq"] == pytest.approx(1)


@given(seeds, seeds, seeds)
def test_numbers_of_predicted_objects_do_not_matter(one: int, other: int, order: int) -> None:
    truth, found = {"a": clip(one)}, {"a": clip(other)}
    assert stq(truth, {"a": renumbered(found["a"], order)}, TABLE)["all"] == pytest.approx(
        stq(truth, found, TABLE)["all"]
    )
    assert stq({"a": renumbered(truth["a"], order)}, found, TABLE)["all"] == pytest.approx(
        stq(truth, found, TABLE)["all"]
    )


@given(seeds, seeds, st.sampled_from(["official", "video-knet"]))
def test_qualities_are_shares(one: int, other: int, protocol: str) -> None:
    found = stq({"a": clip(one)}, {"a": clip(other)}, TABLE, protocol)["all"]
    assert all(found[name] is None or 0 <= found[name] <= 1 for name in ("stq", "aq", "sq"))


@given(seeds, seeds, st.integers(0, 10))
def test_parts_add_up_to_the_whole(one: int, other: int, cut: int) -> None:
    frames = [(name, *pair) for name in "ab" for pair in zip(clip(one), clip(other), strict=True)]
    whole, first, second = (TrackingQuality(TABLE) for _ in range(3))
    for number, (name, truth, found) in enumerate(frames):
        whole.update(name, *truth, *found)
        (first if number < cut else second).update(name, *truth, *found)
    merged = pickle.loads(pickle.dumps(first))
    merged.merge(second)
    assert merged.tables == whole.tables
    ours, theirs = merged.result(), whole.result()
    assert ours["all"] == pytest.approx(theirs["all"])
    for name in "ab":
        assert ours["sequences"][name] == pytest.approx(theirs["sequences"][name])


def test_memory_grows_with_tracks_not_with_frames() -> None:
    quality = TrackingQuality(TABLE)
    frames = clip(3)
    for _ in range(2):
        for truth in frames:
            quality.update("a", *truth, *truth)
    entries = len(quality.tables["a"])
    for truth in frames:
        quality.update("a", *truth, *truth)
    assert len(quality.tables["a"]) == entries


def test_nothing_counted_gives_none() -> None:
    empty = TrackingQuality(TABLE).result()
    assert empty["all"] == {"stq": None, "aq": 0.0, "sq": None, "tracks": 0, "frames": 0}
    void = {"a": [(np.full((2, 2), 255), np.zeros((2, 2), int))]}
    assert stq(void, void, TABLE)["all"]["stq"] is None


ONES = np.ones((2, 3), np.int64)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ((5 * ONES, ONES, 5 * ONES, ONES << 16), r"a/3 \(prediction\): object ids run from 65536 to 65536; 0 to 65535"),
        ((5 * ONES, -ONES, 5 * ONES, ONES), r"a/3 \(truth\): object ids run from -1"),
        ((300 * ONES, ONES, 5 * ONES, ONES), "class ids run from 300"),
        ((5 * ONES, ONES, 6 * ONES, ONES), r"a/3 \(prediction\) has the class 6, .* it has 2, 5, 7, 9"),
        ((ONES, ONES, 5 * ONES, ONES), r"a/3 \(truth\) has the class 1,"),
        ((5 * ONES, ONES, 5 * ONES.T, ONES.T), r"a/3: the prediction has \(3, 2\) pixels .* the truth \(2, 3\)"),
        ((5 * ONES, ONES.T, 5 * ONES, ONES), r"classes have \(2, 3\) pixels .* object ids \(3, 2\)"),
        ((5 * ONES, ONES * 0.5, 5 * ONES, ONES), "object ids are an .* not .* float64"),
        ((5 * ONES[0], ONES[0], 5 * ONES[0], ONES[0]), r"classes are an \(H,W\) integer array"),
    ],
)
def test_refuses_maps_that_contradict(maps: tuple, message: str) -> None:
    quality = TrackingQuality(TABLE)
    with pytest.raises(DataError, match=message):
        quality.update("a", *maps, name="a/3")
    assert not quality.tables


def test_more_segments_than_numbers_are_refused() -> None:
    ids, quality = np.arange(256).reshape(16, 16), TrackingQuality(TABLE)
    for frame in range(256):
        first = 256 * frame + 1  # 0 is void
        segments = [{"id": first + number, "category_id": TABLE[0].id} for number in range(256)]
        if frame == 255:  # one less: its last pixel is void
            most = np.where(ids == 255, 0, ids + first)
            quality.update_segments("a", most, segments[:-1], most, segments[:-1])
            with pytest.raises(DataError, match="more than 65536 segments"):
                quality.update_segments("a", ids + first, segments, ids + first, segments)
        else:
            quality.update_segments("a", ids + first, segments, ids + first, segments)
    assert quality.result()["sequences"]["a"]["frames"] == 256


@pytest.mark.parametrize("kind", [TrackingQuality, VideoPanopticQuality])
def test_frames_of_segments_and_of_maps_are_called_by_their_names(kind: Any) -> None:
    one, other = [{"id": 1, "category_id": 5}], [{"id": 1, "category_id": 8}]
    for name, called in (("a/3", r"a/3 \(prediction\)"), (None, r"A frame of a \(prediction\)")):
        with pytest.raises(DataError, match=f"^{called}.* 8"):
            kind(TABLE).update_segments("a", ONES, one, ONES, other, name=name)
        with pytest.raises(DataError, match=f"^{called} has the class 6"):
            kind(TABLE).update("a", 5 * ONES, ONES, 6 * ONES, ONES, name=name)


def test_sequences_may_be_on_either_side_alone() -> None:
    for truth, found in (("ab", "a"), ("a", "ab")):
        with pytest.raises(DataError, match="same sequences; b is on one side"):
            stq(*({name: clip(1) for name in names} for names in (truth, found)), TABLE)
    for frames in (3, 6):
        with pytest.raises(DataError, match=f"a has {frames} frames of truth and 5 of predictions; give one for each"):
            stq({"a": clip(1, frames)}, {"a": clip(1)}, TABLE)
    for wrong in (({"a": clip(1)}, [clip(1)]), ([clip(1)], {"a": clip(1)}), ("truth", {"a": clip(1)})):
        with pytest.raises(DataError, match="must both be paths, or both mappings of sequences to frames"):
            stq(*wrong, TABLE)
    wrong_class = [*clip(1), (6 * ONES, ONES)], [*clip(1), (5 * ONES, ONES)]
    with pytest.raises(DataError, match=r"^a, frame 5 \(truth\) has the class 6"):
        stq({"a": wrong_class[0]}, {"a": wrong_class[1]}, TABLE)


def test_only_accumulators_of_the_same_classes_and_protocol_are_added() -> None:
    turned = [replace(category, thing=not category.thing) for category in TABLE]
    for kind in (TrackingQuality, VideoPanopticQuality):
        kind(TABLE).merge(kind(TABLE))
        kind(TABLE).merge(kind([replace(category, name="another") for category in TABLE]))
        for other in (kind(turned), kind(TABLE[::-1]), kind(TABLE, "vipseg")):
            with pytest.raises(DataError, match="with different classes or settings cannot be merged; build them"):
                kind(TABLE).merge(other)
    assert {c.id for c in TrackingQuality().categories} == set(range(19))
    for unknown in ("vps", None, ["official"]):
        with pytest.raises(DataError, match="There is no protocol"):
            TrackingQuality(TABLE, unknown)  # type: ignore[arg-type]


def test_refuses_what_cannot_be_added_up() -> None:
    quality = TrackingQuality(TABLE)
    for other in (TrackingQuality(TABLE, "video-knet"), TrackingQuality(TABLE[:3])):
        with pytest.raises(DataError, match="cannot be merged"):
            quality.merge(other)
    with pytest.raises(DataError, match="no protocol 'vps' for STQ; use official, video-knet, vipseg"):
        TrackingQuality(TABLE, "vps")
    with pytest.raises(DataError, match="ids are unique"):
        TrackingQuality([*TABLE, *TABLE])
    with pytest.raises(DataError, match="same sequences; b is on one side"):
        stq({"a": clip(1)}, {"a": clip(1), "b": clip(1)}, TABLE)
    with pytest.raises(DataError, match="a has 5 frames of truth and 4 of predictions"):
        stq({"a": clip(1)}, {"a": clip(1)[:4]}, TABLE)
    with pytest.raises(DataError, match="both be paths"):
        stq({"a": clip(1)}, "predictions", TABLE)
