"""Key and reference frames: which ones, with which luck, and which objects they share."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knet.data.readers.clips import Clip, make_id_map
from knet.data.samples.batches import BatchPlan, Draw, load_batches
from knet.data.samples.clips import ClipSet, collate_clips, unite_targets
from knet.data.samples.pairs import PairBatch, PairSet, collate_pairs
from knet.data.samples.transforms import Augmented, TrainAugmentation
from knet.errors import ConfigError, DataError
from knet.structures import Category, Sample, SegmentInfo, Target

CATEGORIES = (Category(1, "car", True, (1, 2, 3)), Category(2, "road", False, (4, 5, 6)))
WHOLE = TrainAugmentation([24], 1000, None, flip=False, color=False)
KITTI = TrainAugmentation([20], 40, (20, 32), color=False, ratio=(0.5, 2.0), instance_crop=False, antialias=False)
RT = TrainAugmentation([20, 24, 30], 90, (16, 20), color=True)


class TwoClips:
    """Clips of 6 and 4 frames of 24x40 pixels. Car n drives one pixel a frame; its colour is n, the road's is 0."""

    categories = CATEGORIES

    def __init__(self, cars: tuple[tuple[int, int], ...] = ((1, 3), (2, 12)), broken: tuple[int, ...] = ()):
        self.clips = (Clip("a", tuple(range(6)), tuple(range(6))), Clip("b", (6, 7, 8, 9), (0, 1, 2, 5)))
        self.cars, self.broken = cars, broken
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 10

    def name(self, index: int) -> str:
        return f"frame {index}"

    def read(self, index: int) -> Sample:
        self.asked.append(index)
        if index in self.broken:
            raise DataError(f"frame {index} is broken")
        labels, numbers = np.full((24, 40), 1), np.zeros((24, 40), int)
        labels[:4] = -1
        for number, left in self.cars:
            place = np.s_[6 + 4 * number : 9 + 4 * number, left + index : left + index + 5]
            labels[place], numbers[place] = 0, number
        id_map, segments = make_id_map(labels, numbers, CATEGORIES)
        image = np.repeat(50 * numbers[..., None], 3, 2).astype(np.uint8)
        # The order of segments differs from frame to frame, as their places in a target may.
        return Sample(self.name(index), image, id_map, segments[:: 1 if index % 2 else -1])


def draws(count: int, iteration: int = 0) -> list[Draw]:
    return [Draw(iteration, position, position % 10) for position in range(count)]


@pytest.mark.parametrize("augmentation", [WHOLE, KITTI, RT], ids=["whole", "kitti", "rt"])
def test_matches_name_the_same_object_and_the_luck_is_shared(augmentation: TrainAugmentation) -> None:
    reader = TwoClips()
    pairs = PairSet(reader, augmentation, seed=5)  # type: ignore[arg-type]
    matched = 0
    for draw in draws(40):
        item = pairs[draw]
        assert set(reader.asked[-2:]) <= set(reader.clips[item.clip].frames)
        assert item.key.image.shape == item.reference.image.shape
        assert len(item.matches) == len(item.key.target.labels) and item.matches.dtype == torch.int64
        assert (item.matches >= 0).any()
        for index, match in enumerate(item.matches.tolist()):
            label = int(item.key.target.labels[index])
            if match < 0:
                continue
            assert label == 0 == int(item.reference.target.labels[match])
            ours = item.key.target.id_map == index + 1
            theirs = item.reference.target.id_map == match + 1
            if augmentation is WHOLE:  # colours say which car it is
                (one,), (other,) = item.key.image[0][ours].unique(), item.reference.image[0][theirs].unique()
                assert one == other
                rows = [torch.nonzero(mask.any(1)).flatten().tolist() for mask in (ours, theirs)]
                assert rows[0] == rows[1]  # equal heights: the same resize and crop
            matched += 1
        for index, match in enumerate(item.matches.tolist()):  # stuff is not matched
            assert match < 0 or int(item.key.target.labels[index]) == 0
    assert matched > 40


def test_both_frames_get_one_window_flip_and_colour() -> None:
    """A frame paired with a copy of itself comes out the same twice, whatever is drawn."""

    class Still(TwoClips):
        def read(self, index: int) -> Sample:
            return super().read(0)

    pairs = PairSet(Still(), RT, seed=1)  # type: ignore[arg-type]
    images = []
    for draw in draws(20):
        item = pairs[draw]
        assert torch.equal(item.key.image, item.reference.image)
        assert torch.equal(item.key.target.id_map, item.reference.target.id_map)
        things = item.key.target.labels == 0
        assert torch.equal(item.matches, torch.where(things, torch.arange(len(things)), -1))
        images.append(item.key.image)
    assert len({image.numpy().tobytes() for image in images}) > 15


def test_one_sample_alone_comes_out_as_before() -> None:
    """`TrainAugmentation` of a sample, and of the same as the first of two, are equal: the key frame decides."""
    reader = TwoClips()
    for seed in range(10):
        one, other = reader.read(0), reader.read(3)
        image, target = RT(one, [True, False], np.random.default_rng(seed))
        both = RT.apply_to_all([one, other], [True, False], np.random.default_rng(seed))
        assert torch.equal(image, both[0].image) and torch.equal(target.id_map, both[0].target.id_map)
        for augmented in both:
            labels = [segment.label for segment in augmented.segments]
            assert labels == augmented.target.labels.tolist()


def references_of(pairs: PairSet, reader: TwoClips, iteration: int) -> dict[int, int]:
    found = {}
    for draw in draws(len(pairs), iteration):
        reader.asked.clear()
        pairs[draw]
        key, reference = reader.asked[:2]
        found[key] = reference
    return found


def test_references_are_drawn_afresh_among_those_that_exist() -> None:
    reader = TwoClips()
    pairs = PairSet(reader, WHOLE, seed=2)  # type: ignore[arg-type]
    assert len(pairs) == 9  # frame 5 of clip b stands alone behind a gap
    seen: dict[int, set[int]] = {}
    for iteration in range(60):
        for key, reference in references_of(pairs, reader, iteration).items():
            seen.setdefault(key, set()).add(reference)
    expected = {0: {1, 2}, 1: {0, 2, 3}, 2: {0, 1, 3, 4}, 3: {1, 2, 4, 5}, 4: {2, 3, 5}, 5: {3, 4}}
    assert seen == expected | {6: {7, 8}, 7: {6, 8}, 8: {6, 7}}


def test_compatible_references_stay_for_the_whole_run() -> None:
    reader = TwoClips()
    lengths, seen = Counter[int](), Counter[int]()
    for seed in range(30):
        pairs = PairSet(reader, WHOLE, seed, compatible=True)  # type: ignore[arg-type]
        first = references_of(pairs, reader, 0)
        assert first == references_of(pairs, reader, 7)
        assert len(first) == len(pairs)
        lengths[len(pairs)] += 1
        seen.update(reference - key for key, reference in first.items())
        assert all((key < 6) == (reference < 6) for key, reference in first.items())
    assert len(lengths) > 1 and max(lengths) < 10  # frames whose drawn reference does not exist are left out
    assert set(seen) == {-2, -1, 1, 2}


@given(st.integers(0, 2**30), st.integers(0, 10**6), st.integers(0, 8))
def test_luck_depends_on_seed_iteration_and_position_only(seed: int, iteration: int, image: int) -> None:
    one, other = (PairSet(TwoClips(), RT, seed) for _ in range(2))  # type: ignore[arg-type]
    other[Draw(iteration + 1, 0, 0)]
    first, second = (pairs[Draw(iteration, 3, image)] for pairs in (one, other))
    assert torch.equal(first.key.image, second.key.image)
    assert torch.equal(first.reference.target.id_map, second.reference.target.id_map)
    assert torch.equal(first.matches, second.matches)


def test_pairs_without_a_common_object_are_replaced_or_refused() -> None:
    class CarInClipA(TwoClips):
        def read(self, index: int) -> Sample:
            self.cars = ((1, 3),) if index < 6 else ()
            return super().read(index)

    reader = CarInClipA()
    pairs = PairSet(reader, WHOLE, seed=0)  # type: ignore[arg-type]
    for draw in draws(20):
        assert (pairs[draw].matches >= 0).sum() == 1
    assert any(index >= 6 for index in reader.asked)
    empty = PairSet(TwoClips(cars=()), WHOLE, seed=0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="100 times in a row near frames had no object in common, the last at frame"):
        empty[Draw(0, 0, 0)]


def test_crowds_are_no_common_objects() -> None:
    class Crowds(TwoClips):
        def read(self, index: int) -> Sample:
            self.cars = ((0, 4),)
            return super().read(index)

    with pytest.raises(DataError, match="no object in common"):
        PairSet(Crowds(), WHOLE, seed=0)[Draw(0, 0, 0)]  # type: ignore[arg-type]


def test_broken_frames_are_skipped_as_often_as_allowed() -> None:
    broken = (0, 1, 2, 3, 4, 5)
    pairs = PairSet(TwoClips(broken=broken), WHOLE, seed=0, skip=8)  # type: ignore[arg-type]
    found = [pairs[Draw(iteration, 0, 0)].key.faults for iteration in range(10)]
    assert all(faults and set(faults.values()) <= {f"frame {n} is broken" for n in broken} for faults in found)
    strict = PairSet(TwoClips(broken=broken), WHOLE, seed=0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="frame 0 is broken"):
        strict[Draw(0, 0, 0)]


def test_frames_of_different_sizes_are_refused() -> None:
    class Growing(TwoClips):
        def read(self, index: int) -> Sample:
            sample = super().read(index)
            return Sample(sample.name, sample.image[index:], sample.id_map[index:], sample.segments)

    with pytest.raises(DataError, match=r"frame 0 is 40x24 and frame \d is 40x2\d pixels; .* equal size"):
        PairSet(Growing(), WHOLE, seed=0)[Draw(0, 0, 0)]  # type: ignore[arg-type]


def test_refuses_options() -> None:
    with pytest.raises(ConfigError, match="none may be 0"):
        PairSet(TwoClips(), WHOLE, 0, offsets=(0, 1))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="No clip has a frame with 1 neighbours that are 9 frames away"):
        PairSet(TwoClips(), WHOLE, 0, offsets=(9,))  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_pairs(workers: int) -> None:
    pairs = PairSet(TwoClips(), RT, seed=3)  # type: ignore[arg-type]
    plan = BatchPlan(len(pairs), 4, 3)
    batches = load_batches(pairs, plan, workers)
    batch = next(batches)
    batches.close()
    expected = collate_pairs([pairs[draw] for draw in next(iter(plan))])
    assert isinstance(batch, PairBatch) and len(batch) == 4 and batch.positions == [0, 1, 2, 3] and batch.faults == {}
    check_equal(batch, expected)
    half = batch.part(2, 4)
    assert len(half) == 2 and half.positions == [2, 3]
    check_equal(half, collate_pairs([pairs[draw] for draw in next(iter(plan))][2:]))
    moved = batch.to("meta")
    for tensor in (*moved.key.images, *moved.matches, moved.reference.targets[0].id_map, moved.key.targets[0].labels):
        assert tensor.device.type == "meta"


def check_equal(one: PairBatch, other: PairBatch) -> None:
    for mine, theirs in ((one.key, other.key), (one.reference, other.reference)):
        assert all(torch.equal(a, b) for a, b in zip(mine.images, theirs.images, strict=True))
        assert all(torch.equal(a.id_map, b.id_map) for a, b in zip(mine.targets, theirs.targets, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one.matches, other.matches, strict=True))
    assert one.clips == other.clips


def test_a_later_start_continues_the_same_pairs() -> None:
    pairs = PairSet(TwoClips(), RT, seed=3)  # type: ignore[arg-type]
    plan = BatchPlan(len(pairs), 2, 3)
    whole = list(islice(load_batches(pairs, plan), 4))
    for one, other in zip(whole[2:], islice(load_batches(pairs, plan.starting_at(2)), 2), strict=True):
        check_equal(one, other)


def test_clips_have_one_list_of_objects() -> None:
    class Leaving(TwoClips):
        def read(self, index: int) -> Sample:
            self.cars = ((1, 3), (2, 12)) if index % 2 else ((1, 3),)
            return super().read(index)

    reader = Leaving()
    clips = ClipSet(reader, WHOLE, seed=4)  # type: ignore[arg-type]
    assert len(clips) == 2  # of a alone, and there two frames have two on both sides
    for draw in draws(6):
        reader.asked.clear()
        items = clips[draw]
        key = reader.asked[0]
        assert sorted(reader.asked) == list(range(key - 2, key + 3)) and len(items) == 5
        labels = items[0].target.labels
        assert labels.tolist() == [0, 1, 0] or sorted(labels.tolist()) == [0, 0, 1]
        for frame, item in zip(range(key - 2, key + 3), items, strict=True):
            assert torch.equal(item.target.labels, labels)
            for value in range(1, 4):
                colors = set((item.image[0][item.target.id_map == value] // 50).tolist())
                expected = {0} if labels[value - 1] else {1, 2}
                assert colors <= expected
            cars = {1, 2} if frame % 2 else {1}
            assert set((item.image[0] // 50).unique().tolist()) - {0} == cars
    # A number means one car in all frames: colours are one for each number over the whole clip.
    items = clips[Draw(0, 0, 0)]
    for value in range(1, 4):
        colors = {int(c) for item in items for c in item.image[0][item.target.id_map == value].unique()}
        assert len(colors) == 1
    batch = collate_clips([items, clips[Draw(0, 1, 1)]])
    assert len(batch) == 10 and batch.positions == [0] * 5 + [1] * 5


def test_clips_of_fewer_frames_are_drawn_within_reach_and_in_order() -> None:
    reader = TwoClips()
    clips = ClipSet(reader, WHOLE, seed=4, frames=3)  # type: ignore[arg-type]
    assert len(clips) == 9
    seen = set()
    for draw in draws(30):
        reader.asked.clear()
        assert len(clips[draw]) == 3 == len(set(reader.asked))
        key, *others = reader.asked
        assert all(0 < abs(index - key) <= 2 for index in others)
        seen.add(tuple(others))
    assert len(seen) > 8
    with pytest.raises(ConfigError, match="Clips of 6 frames, up to 2 from a key frame: give 2 to 5"):
        ClipSet(reader, WHOLE, seed=0, frames=6)  # type: ignore[arg-type]
    batches = load_batches(clips, BatchPlan(len(clips), 2, 1))
    assert len(next(batches)) == 6
    batches.close()


def test_matches_are_those_of_video_knets_own_loader(goldens: Any, tmp_path: Any) -> None:
    """Its two annotations of a golden: each object's place in the reference frame is the one that it gives."""
    from PIL import Image

    from knet.data.readers.kitti_step import KittiStep

    golden = np.load(goldens.file("video_knet", "vk_r50_train_seed52_120x372.npz"))
    folder = tmp_path / "video_sequence/train"
    folder.mkdir(parents=True)
    for frame in range(2):
        for what, key in (("leftImg8bit", "images"), ("panoptic", "panoptic_rgb")):
            Image.fromarray(golden[key][frame]).save(folder / f"000000_{frame:06d}_{what}.png")
    reader = KittiStep(tmp_path, "train", compatible=True)
    pairs = PairSet(reader, TrainAugmentation([120], 372, None, flip=False, color=False), 0, offsets=(1,))
    item = pairs[Draw(0, 0, 0)]
    masks = {which: golden[f"{which}_masks"][:, :120, :372].astype(bool) for which in ("key", "ref")}
    for ours, theirs in enumerate(masks["key"]):
        value = int(item.key.target.id_map[torch.from_numpy(theirs)].unique())
        match = int(item.matches[value - 1])
        expected = int(golden["track_gt_match_indices"][ours])
        assert (match < 0) == (expected < 0)
        if expected >= 0:
            found = (item.reference.target.id_map == match + 1).numpy()
            assert np.array_equal(found, masks["ref"][expected])


def test_what_no_loss_looks_at_stays_so_in_a_clip() -> None:
    numbers = torch.tensor([[-1, 0, 1, 2]])
    frames = [
        Augmented(torch.zeros(3, 1, 4), Target(numbers, torch.tensor([0, 0]), (1,)), segments)
        for segments in ((SegmentInfo(7, 0), SegmentInfo(9, 0)), (SegmentInfo(9, 0), SegmentInfo(7, 0)))
    ]
    found = unite_targets(frames)
    assert [target.id_map.tolist() for target in found] == [[[-1, 0, 1, 2]], [[-1, 0, 2, 1]]]
    assert [target.unlabelled for target in found] == [(1,), (1,)]
