"""VPQ equals the three programs' figures, and is what its definition promises."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from video_clips import TABLE, clip, renumbered, seeds

from knet.data.categories import load_categories
from knet.errors import DataError
from knet.evaluation import PanopticQuality, VideoPanopticQuality, mean_iou, vpq
from knet.structures import SegmentInfo

GROUPS = {"all": "All", "things": "Things", "stuff": "Stuff"}
PERCENT = {"all": "PQ", "things": "PQ_things", "stuff": "PQ_stuff"}


@pytest.mark.parametrize(
    ("case", "truth", "protocol"),
    [
        ("vpq_cityscapes_vps_a", "panoptic_gt_val_city_vps.json", "cityscapes-vps"),
        ("vpq_stq_vipseg_a", "panoptic_gt_VIPSeg_val.json", "vipseg"),
    ],
)
def test_equals_the_official_programs(goldens: Path, case: str, truth: str, protocol: str) -> None:
    folder = goldens / "metrics" / case
    expected = json.loads((folder / "expected.json").read_text())
    result = vpq(folder / truth, folder / "results/pred.json")
    assert result["protocol"] == protocol
    assert [str(frames) for frames in result["windows"]] == list(expected["vpq_per_window"])
    for frames, window in expected["vpq_per_window"].items():
        ours = result["windows"][int(frames)]
        for group, name in GROUPS.items():
            assert ours[group] == pytest.approx(window[name], abs=1e-9), (frames, group)
        for category, row in ours["classes"].items():
            theirs = window["per_class"].get(str(category), dict.fromkeys(("tp", "fp", "fn", "iou"), 0))
            assert {key: row[key] for key in ("tp", "fp", "fn", "iou")} == pytest.approx(
                {key: theirs[key] for key in ("tp", "fp", "fn", "iou")}, abs=1e-9
            )
    final = expected.get("vpq_final_percent") or expected["vpq_mean_1_2_4_6_8_percent"]
    for group, name in GROUPS.items():
        assert 100 * result[group]["vpq"] == pytest.approx(final[name], abs=1e-9)


def test_windows_of_the_papers(goldens: Path) -> None:
    folder = goldens / "metrics" / "vpq_stq_vipseg_a"
    expected = json.loads((folder / "expected.json").read_text())["vpq_mean_1_2_4_6_percent"]
    result = vpq(folder / "panoptic_gt_VIPSeg_val.json", folder / "results", windows=[1, 2, 4, 6])
    for group, name in GROUPS.items():
        assert 100 * result[group]["vpq"] == pytest.approx(expected[name], abs=1e-9)


@pytest.mark.parametrize("seed", [500, 501])
def test_equals_the_script_of_video_knet(goldens: Path, seed: int) -> None:
    folder = goldens / "video_knet" / f"metric_kitti_step_seed{seed}"
    expected = json.loads((folder / "expected.json").read_text())["vpq"]
    result = vpq(folder / "kitti-step/video_sequence/val", folder / "pred")
    assert result["protocol"] == "video-knet"
    assert list(result["windows"]) == [1, 2, 3, 4]
    for frames, window in result["windows"].items():
        theirs = expected[str(frames)]
        for group, name in PERCENT.items():
            assert 100 * window[group]["pq"] == pytest.approx(theirs[name], abs=1e-6)
        for category, row in window["classes"].items():
            for key in ("tp", "fp", "fn", "iou"):
                assert row[key] == pytest.approx(theirs[key][category], abs=1e-9)
    lines = expected["1"]["printed"]  # a line each sequence, then the total
    alone = vpq(folder / "kitti-step/video_sequence/val", folder / "pred", windows=[1])
    for name, line in zip(("000002", "000006"), lines, strict=False):
        row = alone["sequences"][name]
        assert " ".join(f"{100 * row[key]:.1f}" for key in ("vpq", "things", "stuff")) == line


def test_equals_the_script_of_video_knet_on_real_tracks(goldens: Path) -> None:
    folder = goldens / "metrics" / "stq_kitti_mots_a"
    expected = json.loads((folder / "expected.json").read_text())["videoknet_vpq"]["per_window"]
    result = vpq(folder / "gt", folder / "pred")
    for frames, theirs in expected.items():
        window = result["windows"][int(frames)]
        assert 100 * window["all"]["pq"] == pytest.approx(theirs["PQ_percent_over_all_19"], abs=1e-6)
        assert 100 * window["things"]["pq"] == pytest.approx(theirs["PQ_things_percent"], abs=1e-6)
        assert 100 * window["stuff"]["pq"] == pytest.approx(theirs["PQ_stuff_percent_over_all_17"], abs=1e-6)
        for category, row in theirs["per_class"].items():
            ours = window["classes"][int(category)]
            assert [ours[key] for key in ("tp", "fp", "fn")] == [row[key] for key in ("tp", "fp", "fn")]
            assert ours["iou"] == pytest.approx(row["iou_sum"], abs=1e-9)


def frames_of_vipseg(folder: Path, instances: bool) -> dict[str, list[tuple[Any, Any]]]:
    """The case's frames as the script for VIPSeg reads them: the objects' PNG, or once more the classes'."""
    from knet.data.files.io import read_labels
    from knet.evaluation.video_files import open_videos
    from knet.evaluation.video_labels import NUMBER_BITS

    videos: dict[str, list[tuple[Any, Any]]] = {}
    for sequence, _, *labelled in open_videos(folder / "VIPSeg", folder / "pred").frames():
        place = len(videos) - (sequence in videos)
        number = len(videos.setdefault(sequence, []))
        sides = [(labels >> NUMBER_BITS, labels & 0xFFFF) for labels in labelled]
        if not instances:
            again = read_labels(folder / f"pred/panoptic/{place}/{place:06d}_{number:06d}_cat.png")
            sides[1] = (sides[1][0], again)
        videos[sequence].append((sides[0], sides[1]))
    return videos


@pytest.mark.parametrize(("key", "instances"), [("vpq_with_instance_files", True), ("vpq_script_as_is", False)])
def test_equals_the_script_for_vipseg_but_for_its_faults(goldens: Path, key: str, instances: bool) -> None:
    folder = goldens / "video_knet" / "metric_vipseg_seed510"
    expected = json.loads((folder / "expected.json").read_text())[key]
    videos = frames_of_vipseg(folder, instances)
    assert [len(frames) for frames in videos.values()] == [6, 5]
    for frames, theirs in expected.items():
        total = np.zeros((4, 124))
        for video, pairs in videos.items():
            window = min(int(frames), len(pairs))  # the script's fault: shorter windows where a video is short
            quality = VideoPanopticQuality(load_categories("vipseg"), windows=[window])
            for truth, found in pairs:
                quality.update(video, *truth, *found)
            total += quality.counts[video][0]
        order = sorted(range(124), key=lambda label: (quality.categories[label].thing, quality.categories[label].id))
        for row, name in enumerate(("iou", "tp", "fp", "fn")):
            values = {str(place): total[row, label] for place, label in enumerate(order) if total[row, label]}
            assert values == pytest.approx(theirs[name], abs=1e-9)
    if instances:
        result = vpq(folder / "VIPSeg", folder / "pred", windows=[1, 2, 4])
        for frames, window in result["windows"].items():
            for group, name in PERCENT.items():
                assert 100 * window[group]["pq"] == pytest.approx(expected[str(frames)][name], abs=1e-6)


def test_equals_the_evaluation_of_cityscapes_step(goldens: Path) -> None:
    folder = goldens / "video_knet" / "metric_cityscapes_step_seed520"
    expected = json.loads((folder / "expected.json").read_text())["result"]
    table = load_categories("kitti_step")
    stuff = [category.id for category in sorted(table, key=lambda c: c.id) if not category.thing]
    quality = VideoPanopticQuality(table, "video-knet", [1])
    maps: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for path in sorted((folder / "pred").glob("*_segments.png")):
        stem = path.stem.removesuffix("_segments")
        ids = np.asarray(Image.open(path)).astype(np.int64)
        classes, numbers = np.full(ids.shape, 255), np.zeros(ids.shape, np.int64)
        for row in json.loads(path.with_suffix(".json").read_text()):
            own = ids == row["id"]
            classes[own] = (11, 13)[row["category_id"]] if row["isthing"] else stuff[row["category_id"] - 1]
            numbers[own] = row.get("instance_id", 0)
        fine = folder / "cityscapes/gtFine/val/aaa"
        truth = np.asarray(Image.open(fine / f"{stem}_gtFine_labelTrainIds.png"))
        instances = np.asarray(Image.open(fine / f"{stem}_gtFine_instanceTrainIds.png")).astype(np.int64)
        single = np.isin(instances // 1000, (11, 13))
        quality.update("aaa", truth, np.where(single, instances % 1000, 0), classes, numbers)
        maps[0].append(truth)
        maps[1].append(classes)
    result = quality.result()
    assert 100 * result["all"]["vpq"] == pytest.approx(expected["PQ"], abs=1e-6)
    assert 100 * result["things"]["vpq"] == pytest.approx(expected["Things PQ"], abs=1e-6)
    assert 100 * result["stuff"]["vpq"] == pytest.approx(expected["Stuff PQ"], abs=1e-6)
    rows = mean_iou(*maps, classes=table)["classes"].values()
    assert 100 * sum(row["iou"] or 0 for row in rows) / 19 == pytest.approx(expected["mIoU"], abs=1e-6)


@given(seeds, st.sampled_from(["cityscapes-vps", "vipseg", "video-knet"]))
def test_the_truth_against_itself_is_perfect(seed: int, protocol: str) -> None:
    truth = {"a": clip(seed, 8), "b": clip(seed + 1, 3)}
    result = vpq(truth, truth, TABLE, protocol=protocol)
    for window in result["windows"].values():
        assert all(row["pq"] in (1, None) for row in window["classes"].values())
    if protocol != "video-knet":  # whose mean is over classes that do not occur as well
        assert result["all"]["vpq"] == 1


@given(seeds, seeds, seeds, st.sampled_from(["cityscapes-vps", "video-knet"]))
def test_numbers_of_objects_do_not_matter(one: int, other: int, order: int, protocol: str) -> None:
    truth, found = {"a": clip(one)}, {"a": clip(other)}
    expected = vpq(truth, found, TABLE, protocol=protocol)
    for pair in ((truth, {"a": renumbered(found["a"], order)}), ({"a": renumbered(truth["a"], order)}, found)):
        result = vpq(*pair, TABLE, protocol=protocol)
        for frames, window in result["windows"].items():
            assert window["all"] == pytest.approx(expected["windows"][frames]["all"])


@given(seeds, seeds)
def test_sequences_add_up_to_the_whole(one: int, other: int) -> None:
    whole, first, second = (VideoPanopticQuality(TABLE) for _ in range(3))
    for name, part in (("a", first), ("b", second)):
        for truth, found in zip(clip(one), clip(other), strict=True):
            whole.update(name, *truth, *found)
            part.update(name, *truth, *found)
    merged = pickle.loads(pickle.dumps(first))
    merged.merge(second)
    assert merged.result() == whole.result()


@given(seeds, seeds, st.integers(1, 4))
def test_a_window_is_its_frames_side_by_side(one: int, other: int, window: int) -> None:
    """VPQ of a window as long as the clip is PQ of one image in which the frames lie side by side."""
    truth, found = clip(one, window), clip(other, window)
    result = vpq({"a": truth}, {"a": found}, TABLE, [window], "cityscapes-vps")
    whole = PanopticQuality(TABLE)
    sides = []
    for frames in (truth, found):
        classes, numbers = (np.concatenate(maps, axis=1).astype(np.int64) for maps in zip(*frames, strict=True))
        ids = np.where(classes == 255, 0, (classes + 1) * 65536 + np.where(np.isin(classes, (5, 9)), numbers, 0))
        labels = {category.id: label for label, category in enumerate(TABLE)}
        listed = [int(id_) for id_ in np.unique(ids) if id_]
        segments = [
            SegmentInfo(
                id_, labels[id_ // 65536 - 1], frames is truth and id_ // 65536 - 1 in (5, 9) and id_ % 65536 == 0
            )
            for id_ in listed
        ]
        sides += [ids, segments]
    whole.add(*sides)
    for id_, row in whole.result()["classes"].items():
        assert result["windows"][window]["classes"][id_] == pytest.approx(row)


def test_short_sequences_add_nothing_to_long_windows() -> None:
    truth = {"a": clip(5, 3)}
    result = vpq(truth, truth, TABLE, [1, 4], "vipseg")
    assert result["windows"][4]["all"] == {"pq": None, "sq": None, "rq": None, "n": 0}
    assert result["all"]["vpq"] == result["windows"][1]["all"]["pq"] == 1
    assert {row["vpq"] for row in result["classes"].values()} <= {1, None}
    json.dumps(result, allow_nan=False)


def test_only_the_last_window_is_kept() -> None:
    quality = VideoPanopticQuality(TABLE, windows=[1, 3])
    for truth in clip(2, 9):
        quality.update("a", *truth, *truth)
    assert len(quality._recent) == 3
    assert quality.counts["a"].shape == (2, 4, 4)


@pytest.mark.parametrize(
    ("plain", "numbered", "wrong"), [(2, 1, 0), (1, 2, 0), (3, 0, 0), (0, 3, 0), (1, 1, 1), (0, 0, 1)]
)
def test_void_of_both_kinds_forgives_together(plain: int, numbered: int, wrong: int) -> None:
    """In Video K-Net's protocol void may have numbers; a prediction of 5 pixels is forgiven from 3 of either on."""
    on_void = [(255, 0)] * plain + [(255, 7)] * numbered
    truth = np.array([*on_void, *[(2, 0)] * (9 - len(on_void))])[None]
    found = np.array([*[(5, 1)] * 5, *[(2, 0)] * 4])[None]
    result = vpq({"a": [(truth[..., 0], truth[..., 1])]}, {"a": [(found[..., 0], found[..., 1])]}, TABLE, [1])
    assert result["windows"][1]["classes"][5]["fp"] == wrong


def test_refuses_what_cannot_be_counted() -> None:
    quality, truth = VideoPanopticQuality(TABLE), clip(1)[0]
    quality.update("a", *truth, *truth)
    quality.update("b", *truth, *truth)
    with pytest.raises(DataError, match="A frame of a comes after another sequence"):
        quality.update("a", *truth, *truth)
    with pytest.raises(DataError, match=r"b/7 \(prediction\): object ids run from 65536"):
        quality.update("b", *truth, truth[0], truth[1].astype(int) * 0 + 65536, name="b/7")
    with pytest.raises(DataError, match="have frames of a"):
        quality.merge(quality)
    with pytest.raises(DataError, match="cannot be merged"):
        quality.merge(VideoPanopticQuality(TABLE, windows=[1]))
    with pytest.raises(DataError, match="no protocol 'official' for VPQ; use cityscapes-vps, vipseg, video-knet"):
        VideoPanopticQuality(TABLE, "official")
    for windows in ([0], [], [2, 2]):
        with pytest.raises(DataError, match="VPQ windows must be"):
            VideoPanopticQuality(TABLE, windows=windows)
