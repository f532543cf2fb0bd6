from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from knet.data.samples import color, transforms
from knet.data.samples.color import adjust_color, hsv_to_rgb, random_color, rgb_to_hsv
from knet.errors import ConfigError
from knet.structures import Sample, SegmentInfo

CROP_CASES = [
    "third_window",
    "first_window",
    "visible_but_centre_outside",
    "none_accepted_uses_tenth",
    "edge_top_left_in",
    "edge_bottom_right_out",
    "half_rounds_to_even",
    "half_rounds_to_even_up",
    "crowd_id_is_no_thing",
    "centre_in_hole",
    "image_smaller_than_crop",
    "stuff_with_instance_number",
    "random",
]
COLOR_CASES = [
    "none",
    "brightness",
    "darkness",
    "contrast",
    "saturation_low",
    "saturation_high",
    "hue",
    "hue_negative",
    "all_contrast_first",
    "all_contrast_last",
]
small_maps = arrays(np.int32, st.tuples(st.integers(1, 16), st.integers(1, 16)), elements=st.integers(0, 5))


def to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def largest_difference(image: torch.Tensor, expected: torch.Tensor) -> int:
    return int((image.int() - expected.int()).abs().max())


def load(goldens: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(goldens / "rtknet" / f"{name}.npz") as file:
        return dict(file)


@pytest.mark.parametrize("case", CROP_CASES)
def test_crop_golden(goldens: Path, case: str) -> None:
    golden = load(goldens, "crop_cases")
    id_map = torch.from_numpy(golden[f"{case}/labels"])
    things = set(golden["thing_ids"].tolist())
    thing_ids = [id_ for id_ in id_map.unique().tolist() if id_ // int(golden["label_divisor"]) in things]
    height, width = golden[f"{case}/crop_size"].tolist()
    windows = [(top, left) for top, left in golden[f"{case}/windows_yx"].tolist()]
    size = (id_map.shape[0], id_map.shape[1])
    index = transforms.choose_window(id_map, size, (height, width), thing_ids, windows)
    assert index == int(golden[f"{case}/accepted_index"])
    image = torch.stack([id_map % 256] * 3).to(torch.uint8)
    window = transforms.window_at(windows[index], (height, width), size)
    cut_image, cut_ids = transforms.resize_image(image, size, window), transforms.resize_ids(id_map, size, window)
    x, y, w, h = golden[f"{case}/rect_x0y0wh"].tolist()
    assert torch.equal(cut_ids, id_map[y : y + h, x : x + w])
    assert torch.equal(cut_image, image[:, y : y + h, x : x + w])


def test_crop_goldens_are_all_tested(goldens: Path) -> None:
    assert {name.split("/")[0] for name in load(goldens, "crop_cases") if "/" in name} == set(CROP_CASES)
    assert {name.split("/")[0] for name in load(goldens, "color_cases") if "/" in name} == set(COLOR_CASES)


@given(small_maps, st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32), st.sets(st.integers(1, 5)))
@settings(max_examples=150, deadline=None)
def test_an_accepted_window_holds_a_centre(
    id_map: np.ndarray, height: int, width: int, seed: int, thing_ids: set[int]
) -> None:
    rng = np.random.default_rng(seed)
    windows = transforms.draw_windows(id_map.shape, (height, width), rng)
    index = transforms.choose_window(
        torch.from_numpy(id_map), id_map.shape, (height, width), sorted(thing_ids), windows
    )

    def holds(top: int, left: int) -> bool:
        for id_ in thing_ids & set(id_map[top : top + height, left : left + width].ravel().tolist()):
            y, x = (round(float(np.mean(axis))) for axis in np.nonzero(id_map == id_))
            if top <= y < top + height and left <= x < left + width:
                return True
        return False

    fitting = [number for number, window in enumerate(windows) if holds(*window)]
    assert index == (fitting[0] if fitting else transforms.CROP_TRIES - 1)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_windows_lie_in_the_image(height: int, width: int, crop_height: int, crop_width: int, seed: int) -> None:
    windows = transforms.draw_windows((height, width), (crop_height, crop_width), np.random.default_rng(seed))
    assert len(windows) == 10
    for top, left in windows:
        assert 0 <= top <= max(height - crop_height, 0)
        assert 0 <= left <= max(width - crop_width, 0)


def test_crop_with_large_ids_and_no_things() -> None:
    id_map = torch.zeros(8, 8, dtype=torch.int32)
    id_map[6:, 6:] = 2**24 - 1
    assert transforms.choose_window(id_map, (8, 8), (4, 4), [2**24 - 1], [(0, 0), (4, 4), (0, 0)]) == 1
    assert transforms.choose_window(id_map, (16, 16), (4, 4), [2**24 - 1], [(4, 4), (12, 12), (0, 0)]) == 1
    assert transforms.choose_window(id_map, (8, 8), (4, 4), [], [(0, 0), (4, 4), (0, 0)]) == 2


@pytest.mark.parametrize("dataset", ["Cityscapes", "Mapillary"])
def test_resized_size_golden(goldens: Path, dataset: str) -> None:
    golden = {name.removeprefix(f"{dataset}/"): value.tolist() for name, value in load(goldens, "resize_cases").items()}
    for (height, width), train, test in zip(golden["source_hw"], golden["train_hw"], golden["test_hw"], strict=True):
        for short_edge, expected in zip(golden["min_size_train"], train, strict=True):
            size = transforms.resized_size((height, width), short_edge, golden["max_size_train"])
            assert list(size) == expected
        assert list(transforms.resized_size((height, width), *golden["min_max_size_test"])) == test


@pytest.mark.parametrize("number", range(4))
def test_resize_golden(goldens: Path, number: int) -> None:
    golden = load(goldens, "resize_cases")
    height, width = golden[f"resize{number}/hw"].tolist()
    image = transforms.resize_image(to_tensor(golden["image"]), (height, width))
    assert largest_difference(image, to_tensor(golden[f"resize{number}/image"])) <= 1
    id_map = transforms.resize_ids(torch.from_numpy(golden["labels"]), (height, width))
    assert torch.equal(id_map, torch.from_numpy(golden[f"resize{number}/labels"]))


@given(small_maps)
def test_resize_to_the_same_size_changes_nothing(id_map: np.ndarray) -> None:
    ids = torch.from_numpy(id_map)
    image = torch.stack([ids] * 3).to(torch.uint8)
    size = transforms.resized_size((id_map.shape[0], id_map.shape[1]), min(id_map.shape), max(id_map.shape))
    assert torch.equal(transforms.resize_ids(ids, size), ids)
    assert torch.equal(transforms.resize_image(image, size), image)


@given(small_maps, st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_resize_invents_no_ids(id_map: np.ndarray, height: int, width: int) -> None:
    resized = transforms.resize_ids(torch.from_numpy(id_map), (height, width))
    assert resized.shape == (height, width)
    assert set(resized.unique().tolist()) <= set(np.unique(id_map).tolist())


@given(small_maps)
def test_flip_twice_is_the_identity(id_map: np.ndarray) -> None:
    ids = torch.from_numpy(id_map)
    image = torch.stack([ids] * 3)
    once = transforms.flip_horizontally(image, ids)
    assert torch.equal(once[1][:, 0], ids[:, -1])
    twice = transforms.flip_horizontally(*once)
    assert torch.equal(twice[0], image) and torch.equal(twice[1], ids)


def test_pad() -> None:
    image, ids = torch.zeros(3, 4, 9, dtype=torch.uint8), torch.ones(4, 9, dtype=torch.int32)
    padded, padded_ids = transforms.pad_to_size(image, ids, (6, 8))
    assert padded.shape == (3, 6, 9) and padded.dtype == torch.uint8
    assert (padded[:, :4] == 0).all() and (padded[:, 4:] == 128).all()
    assert padded_ids.dtype == torch.int32
    assert (padded_ids[:4] == 1).all() and (padded_ids[4:] == 0).all()


@pytest.mark.parametrize("case", COLOR_CASES)
def test_color_golden(goldens: Path, case: str) -> None:
    golden = load(goldens, "color_cases")
    values = golden[f"{case}/values"].tolist()
    bright, first, *rest = (bool(flag) for flag in golden[f"{case}/flags"])
    drawn = {"brightness": values.pop(0)} if bright else {}
    order = ("contrast", "saturation", "hue") if first else ("saturation", "hue", "contrast")
    for name, used in zip(order, rest, strict=True):
        if used:
            drawn[name] = values.pop(0)
    image = adjust_color(to_tensor(golden["image_rgb"]), contrast_first=first, **drawn)
    expected = to_tensor(golden[f"{case}/out"])
    # Contrast comes last in one case and stretches a difference of 1 from the HSV conversion before it.
    assert largest_difference(image, expected) <= (2 if case == "all_contrast_last" else 1)
    assert (image != expected).float().mean() < 0.01


@given(arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 255)))
def test_hsv_there_and_back(values: np.ndarray) -> None:
    image = torch.from_numpy(values)
    hue, saturation, value = rgb_to_hsv(image)
    assert int(hue.max()) < 180
    assert torch.equal(value, image.amax(0))
    back = hsv_to_rgb(hue, saturation, value)
    assert torch.equal(back.amax(0), value)
    assert largest_difference(back, image) <= 9  # a step of hue is two degrees: up to 255 / 30 in a channel


def test_hsv_of_plain_colours() -> None:
    colors = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [7, 7, 7], [0, 0, 0]])
    hue, saturation, value = rgb_to_hsv(colors.T[:, None].to(torch.uint8))
    assert hue[0].tolist() == [0, 60, 120, 30, 0, 0]
    assert saturation[0].tolist() == [255, 255, 255, 255, 0, 0]
    assert value[0].tolist() == [255, 255, 255, 255, 7, 0]


def test_random_color_keeps_to_its_limits() -> None:
    grey = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    results = [random_color(grey, np.random.default_rng(seed)) for seed in range(200)]
    values = [int(result[0, 0, 0]) for result in results]
    assert min(values) >= 34 and max(values) <= 198
    assert len(set(values)) > 50
    assert sum(value == 100 for value in values) > 20
    assert all((result == result[0, 0, 0]).all() for result in results)  # grey stays grey


@pytest.mark.parametrize("image", [torch.zeros(3, 4, 4), torch.zeros(4, 4, 4, dtype=torch.uint8)])
def test_colour_refuses_other_images(image: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"\(3,H,W\) uint8"):
        rgb_to_hsv(image)


@pytest.mark.parametrize("case", ["cityscapes", "cityscapes_flip", "mapillary_pad"])
def test_mapper_golden(goldens: Path, case: str) -> None:
    golden = {
        name.removeprefix(f"{case}/"): value
        for name, value in load(goldens, "mapper_cases").items()
        if name.startswith(f"{case}/")
    }
    setup = json.loads(str(golden["setup"]))
    rows = json.loads(str(golden["segments"]))
    segments = [SegmentInfo(row["id"], row["category_id"], bool(row["iscrowd"])) for row in rows]
    sample = Sample(case, golden["image"], golden["panoptic_ids"], segments)
    image, ids = to_tensor(sample.image), torch.from_numpy(sample.id_map)
    size = transforms.resized_size((ids.shape[0], ids.shape[1]), setup["short_edge"], setup["max_size"])
    window = transforms.window_at((setup["y0"], setup["x0"]), tuple(setup["crop"]), size)
    image, ids = transforms.resize_image(image, size, window), transforms.resize_ids(ids, size, window)
    if setup["flip"]:
        image, ids = transforms.flip_horizontally(image, ids)
    if setup["size_divisibility"] > 0:
        image, ids = transforms.pad_to_size(image, ids, (setup["size_divisibility"],) * 2)
    target = transforms.make_target(ids, sample)
    assert largest_difference(image, torch.from_numpy(golden["out_image"])) <= 1
    assert target.labels.dtype == torch.int64
    assert target.labels.tolist() == golden["out_classes"].tolist()
    masks = torch.stack([target.id_map == number + 1 for number in range(len(target.labels))])
    assert torch.equal(masks, torch.from_numpy(golden["out_masks"]))
    label_of = torch.cat([torch.tensor([setup["ignore_label"]]), target.labels])
    assert np.array_equal(label_of[target.id_map.long()].numpy(), golden["out_sem_seg"])


def make_sample(height: int = 60, width: int = 90) -> Sample:
    rng = np.random.default_rng(0)
    id_map = np.full((height, width), 7, np.int32)
    id_map[40:50, 60:75] = 70000
    return Sample(
        "s", rng.integers(0, 256, (height, width, 3), np.uint8), id_map, [SegmentInfo(70000, 1), SegmentInfo(7, 0)]
    )


def test_train_augmentation() -> None:
    augment = transforms.TrainAugmentation([40, 60, 90], 200, (32, 48))
    sample = make_sample()
    before = sample.image.copy(), sample.id_map.copy()
    seen = 0
    for seed in range(40):
        image, target = augment(sample, [False, True], np.random.default_rng(seed))
        assert image.shape == (3, 32, 48) and image.dtype == torch.uint8 and image.is_contiguous()
        assert target.id_map.shape == (32, 48) and target.id_map.dtype == torch.int32
        assert int(target.id_map.max()) == len(target.labels)
        seen += 1 in target.labels.tolist()
        again, _ = augment(sample, [False, True], np.random.default_rng(seed))
        assert torch.equal(image, again)
    assert seen > 32  # the crop looks for the car
    assert np.array_equal(sample.image, before[0]) and np.array_equal(sample.id_map, before[1])


def test_train_augmentation_pads_and_leaves_out() -> None:
    plain = transforms.TrainAugmentation([60], 200, (64, 100), flip=False, color=False, pad=(64, 100))
    sample = make_sample()
    image, target = plain(sample, [False, True], np.random.default_rng(0))
    assert image.shape == (3, 64, 100)
    assert torch.equal(image[:, :60, :90], to_tensor(sample.image))
    assert target.labels.tolist() == [1, 0]
    assert torch.equal(target.id_map[:60, :90] == 1, torch.from_numpy(sample.id_map == 70000))


def test_an_image_without_segments_has_an_empty_target() -> None:
    sample = Sample("s", np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.int32), [])
    augment = transforms.TrainAugmentation([8], 8, (8, 8))
    _, target = augment(sample, [], np.random.default_rng(0))
    assert target.labels.shape == (0,) and target.labels.dtype == torch.int64
    assert not target.id_map.any()


def test_one_pixel_and_crowds_are_void() -> None:
    id_map = torch.tensor([[3, 4, 4], [5, 5, 0]], dtype=torch.int32)
    segments = [SegmentInfo(5, 0, crowd=True), SegmentInfo(9, 2), SegmentInfo(4, 1), SegmentInfo(3, 2)]
    target = transforms.make_target(id_map, Sample("s", np.zeros((2, 3, 3), np.uint8), id_map.numpy(), segments))
    assert target.labels.tolist() == [1]
    assert target.id_map.tolist() == [[0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("options", [([], 8, (8, 8)), ([0], 8, (8, 8)), ([8], 0, (8, 8)), ([8], 8, (8, 0))])
def test_bad_augmentation(options: tuple[list[int], int, tuple[int, int]]) -> None:
    with pytest.raises(ConfigError, match="must be 1 pixel or more"):
        transforms.TrainAugmentation(*options)


def test_random_colours_are_drawn_from_all_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr(color, "adjust_color", lambda image, **options: drawn.append(options) or image)
    for seed in range(2000):
        color.random_color(torch.zeros(3, 1, 1, dtype=torch.uint8), np.random.default_rng(seed))
    for name, low, high, near in (
        ("hue", -18, 18, 0),
        ("brightness", -32, 32, 1),
        ("contrast", 0.5, 1.5, 0.02),
        ("saturation", 0.5, 1.5, 0.02),
    ):
        values = [options[name] for options in drawn if options[name] is not None]
        assert low <= min(values) <= low + near and high - near <= max(values) <= high, name
        assert 900 < len(values) < 1100
    assert 900 < sum(options["contrast_first"] for options in drawn) < 1100


TURNED = {0: (255, 0, 0), 15: (255, 128, 0), -15: (255, 0, 128), 60: (0, 255, 0), -60: (0, 0, 255), 90: (0, 255, 255)}


@pytest.mark.parametrize(("steps", "expected"), TURNED.items())
def test_hue_turns_red_around_the_circle(steps: int, expected: tuple[int, int, int]) -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    turned = adjust_color(red, hue=steps).flatten().tolist()
    assert max(abs(a - b) for a, b in zip(turned, expected, strict=True)) <= 1
