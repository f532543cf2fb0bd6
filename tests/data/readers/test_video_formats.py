"""Readers and writers of video data sets: what is written comes back, and damage is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_clip import CAR, FRAMES, PERSON, SIZE, STEP, check_frames, frame_maps, save_image, write_clip_frame

from knet.data.categories import load_categories
from knet.data.readers.cityscapes_step import CityscapesStep
from knet.data.readers.cityscapes_vps import CityscapesVps, write_vps_png
from knet.data.readers.clip_folder import ClipFolder
from knet.data.readers.clips import Clip, ClipReader, FrameFiles, last_number, look_up, make_id_map, split_id
from knet.data.readers.kitti_step import KittiStep, read_step_png, write_step_png
from knet.data.readers.vipseg import VipSeg, write_vipseg_png
from knet.data.synthetic.layouts import synthesize
from knet.errors import DataError
from knet.structures import Category, Sample


def write_step(root: Path, layout: str) -> None:
    for frame in range(FRAMES):
        image, truth = {
            "deeplab2": (f"images/train/0003/{frame:06d}.png", f"panoptic_maps/train/0003/{frame:06d}.png"),
            "flat": tuple(
                f"video_sequence/train/000003_{frame:06d}_{what}.png" for what in ("leftImg8bit", "panoptic")
            ),
            "raw": (f"training/image_02/0003/{frame:06d}.png", f"panoptic_maps/train/0003/{frame:06d}.png"),
            "kitti": (f"training/image_02/0003/{frame:06d}.png", f"training/panoptic/0003/{frame:06d}.png"),
        }[layout]
        labels, numbers = frame_maps(frame)
        save_image(root / image, frame)
        write_step_png(root / truth, np.array([row.id for row in STEP] + [255])[labels], numbers)


@pytest.mark.parametrize("layout", ["deeplab2", "flat", "raw", "kitti"])
def test_kitti_step_in_every_layout(tmp_path: Path, layout: str) -> None:
    write_step(tmp_path, layout)
    if layout in ("raw", "kitti"):  # a sequence of val lies beside it
        save_image(tmp_path / "training/image_02/0002/000000.png")
    reader = KittiStep(tmp_path, "train")
    check_frames(reader)
    assert reader.name(1) == f"{'000003' if layout == 'flat' else '0003'}/000001"
    assert reader.clips[0].numbers == (0, 1, 2) and reader.gaps() == []
    compatible = KittiStep(tmp_path, "train", compatible=True)
    assert not any(segment.crowd for segment in compatible.read(0).segments)
    assert np.array_equal(compatible.read(0).id_map, reader.read(0).id_map)


def test_objects_are_those_of_video_knets_own_loader(goldens: Any, tmp_path: Path) -> None:
    """Its annotation of a golden read in its way: the same objects with the same masks, a crowd region among them."""
    golden = np.load(goldens.file("video_knet", "vk_r50_train_seed52_120x372.npz"))
    folder = tmp_path / "video_sequence/train"
    folder.mkdir(parents=True)
    Image.fromarray(golden["panoptic_rgb"][0]).save(folder / "000000_000000_panoptic.png")
    truth = KittiStep(tmp_path, "train", compatible=True).read_truth(0)
    found = {segment.id: segment for segment in truth.segments if STEP[segment.label].thing}
    masks = golden["key_masks"][:, :120, :372].astype(bool)
    assert len(found) == len(masks) == 7
    for label, mask in zip(golden["key_labels"].tolist(), masks, strict=True):
        (id_,) = np.unique(truth.id_map[mask]).tolist()
        assert np.array_equal(truth.id_map == id_, mask)
        assert found[id_].label == label and not found[id_].crowd
    crowds = [segment for segment in KittiStep(tmp_path, "train").read_truth(0).segments if segment.crowd]
    assert [split_id(segment.id)[1] for segment in crowds] == [0]
    classes, numbers = read_step_png(folder / "000000_000000_panoptic.png")
    write_step_png(tmp_path / "again.png", classes, numbers)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "again.png")), golden["panoptic_rgb"][0])


def test_step_test_split_has_images_only(tmp_path: Path) -> None:
    for frame in range(2):
        save_image(tmp_path / f"testing/image_02/0000/{frame:06d}.png", frame)
    reader = KittiStep(tmp_path, "test")
    assert reader.read_image(1).shape == (*SIZE, 3)
    with pytest.raises(DataError, match="0000/000000 has no ground truth"):
        reader.read(0)


def test_a_gap_is_told_and_the_clip_goes_on(tmp_path: Path) -> None:
    write_step(tmp_path, "deeplab2")
    for folder in ("images", "panoptic_maps"):
        (tmp_path / folder / "train/0003/000002.png").rename(tmp_path / folder / "train/0003/000004.png")
    reader = KittiStep(tmp_path, "train")
    assert reader.clips == (Clip("0003", (0, 1, 2), (0, 1, 4)),)
    assert reader.gaps() == [
        "The clip 0003 has no frame 2, 3; frames on both sides of a gap are no neighbours.",
    ]
    assert reader.read(2).name == "0003/000004"


@given(st.sets(st.integers(0, 12), min_size=1), st.integers(1, 5), st.sampled_from([-2, -1, 1, 2]))
def test_neighbours_are_offsets_of_frame_numbers(have: set[int], step: int, offset: int) -> None:
    numbers = tuple(step * n for n in sorted(have))
    clip = Clip("c", tuple(range(10, 10 + len(numbers))), numbers)
    found = {number: clip.neighbor(position, offset) for position, number in enumerate(numbers)}
    for number, index in found.items():
        wanted = number + offset * clip.step
        assert index == (clip.frames[numbers.index(wanted)] if wanted in numbers else None)
    assert not set(clip.missing) & set(numbers)


def test_ids_over_16_bits_do_not_fit_a_step_png(tmp_path: Path) -> None:
    classes = np.full(SIZE, 13)
    write_step_png(tmp_path / "a.png", classes, np.full(SIZE, 65535))
    assert (read_step_png(tmp_path / "a.png")[1] == 65535).all()
    with pytest.raises(DataError, match=r"b\.png would need the object number 65536, but a STEP PNG holds 0 to 65535"):
        write_step_png(tmp_path / "b.png", classes, np.full(SIZE, 65536))
    with pytest.raises(DataError, match="object number -1"):
        write_step_png(tmp_path / "b.png", classes, np.full(SIZE, -1))
    assert not (tmp_path / "b.png").exists()


def test_step_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'vali'; choose from train, val, test"):
        KittiStep(tmp_path, "vali")
    with pytest.raises(DataError, match="neither video_sequence/train, images/train nor training/image_02"):
        KittiStep(tmp_path, "train")
    write_step(tmp_path, "deeplab2")
    truth = tmp_path / "panoptic_maps/train/0003/000001.png"
    write_step_png(truth, np.full(SIZE, 19), np.zeros(SIZE, int))
    with pytest.raises(DataError, match=r"000001\.png has the class value 19, which is neither a class"):
        KittiStep(tmp_path, "train").read(1)
    write_step_png(truth, np.full((4, 4), 0), np.zeros((4, 4), int))
    with pytest.raises(DataError, match=r"is 20x12 pixels but its ground truth .* is 4x4"):
        KittiStep(tmp_path, "train").read(1)
    for mode, what in (("L", "a grey picture"), ("P", "a picture with a palette"), ("LA", "grey picture with alpha")):
        Image.new(mode, SIZE[::-1]).save(truth)
        with pytest.raises(DataError, match=f"{what}; it must be an RGB PNG, in which R is the class and 256 G"):
            KittiStep(tmp_path, "train").read(1)
    blue_first = np.full((*SIZE, 3), (0, 0, 5), np.uint8)
    blue_first[:3] = 200, 0, 3
    Image.fromarray(blue_first).save(truth)
    with pytest.raises(DataError, match="the order blue, green, red"):
        KittiStep(tmp_path, "train").read(1)
    truth.write_bytes(b"")
    with pytest.raises(DataError, match=r"000001\.png cannot be read"):
        KittiStep(tmp_path, "train").read(1)
    truth.unlink()
    with pytest.raises(DataError, match=r"images/train/0003 has the frame 1, which .*panoptic_maps/train/0003 lacks"):
        KittiStep(tmp_path, "train")


def as_things(name: str) -> list[int]:
    """Labels of a table that stand for person, car and road of `frame_maps`; -1 stays void."""
    by_name = {category.name: label for label, category in enumerate(load_categories(name))}
    return [by_name["person"], by_name["car"], by_name["road"], -1]


def write_vipseg(root: Path) -> None:
    for frame in range(FRAMES):
        labels, numbers = frame_maps(frame)
        save_image(root / f"imgs/5_walk/{10 * frame:08d}.jpg", frame)
        numbers = np.where(numbers == 300, 100, numbers)
        labels = np.array(as_things("vipseg"))[labels]
        write_vipseg_png(root / f"panomasks/5_walk/{10 * frame:08d}.png", labels, numbers, load_categories("vipseg"))
    (root / "train.txt").write_text("5_walk")  # without a newline at its end, as some lists


def test_vipseg(tmp_path: Path) -> None:
    write_vipseg(tmp_path)
    reader = VipSeg(tmp_path, "train")
    assert reader.clips == (Clip("5_walk", (0, 1, 2), (0, 10, 20)),) and reader.gaps() == []
    check_vocabulary(reader, "vipseg", {300: 100})
    with Image.open(tmp_path / "panomasks/5_walk/00000000.png") as file:
        values = np.array(file)
    assert values.dtype == np.uint16 or values.max() > 255
    car = next(c.id for c in reader.categories if c.name == "car")
    assert values[3, 2] == (car + 1) * 100 + 6  # their objects count from 0


def check_vocabulary(reader: ClipReader, table: str, renamed: dict[int, int]) -> None:
    """`frame_maps` in the classes of another table."""
    for frame in range(FRAMES):
        labels, numbers = frame_maps(frame)
        for old, new in renamed.items():
            numbers = np.where(numbers == old, new, numbers)
        expected = make_id_map(np.array(as_things(table))[labels], numbers, reader.categories)
        sample = reader.read(frame)
        assert np.array_equal(sample.id_map, expected[0]) and sample.segments == expected[1]


def test_vipseg_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.txt cannot be read"):
        VipSeg(tmp_path, "train")
    write_vipseg(tmp_path)
    path = tmp_path / "panomasks/5_walk/00000010.png"
    values = np.full(SIZE, 200, np.uint16)  # the stray value is void
    Image.fromarray(values).save(path)
    assert VipSeg(tmp_path, "train").read(1).segments == []
    values[0, 0] = 12600  # category 125 does not exist
    Image.fromarray(values).save(path)
    with pytest.raises(DataError, match=r"00000010\.png has the class value 12600"):
        VipSeg(tmp_path, "train").read(1)
    with pytest.raises(DataError, match="object number 101, but a VIPSeg mask holds 0 to 100"):
        categories = load_categories("vipseg")
        write_vipseg_png(path, np.zeros(SIZE, int), np.full(SIZE, 101), categories)
    (tmp_path / "VIPSeg_720P").mkdir()
    for folder in ("imgs", "panomasks"):
        (tmp_path / folder).rename(tmp_path / "VIPSeg_720P" / folder)
    assert len(VipSeg(tmp_path / "VIPSeg_720P", "train")) == 3  # its list lies in the folder above
    for folder in ("imgs", "panomasks"):
        (tmp_path / "VIPSeg_720P" / folder).rename(tmp_path / folder)
    (tmp_path / "train.txt").write_text("5_walk\nother\n")
    with pytest.raises(DataError, match="no folder of images or masks of other"):
        VipSeg(tmp_path, "train")
    (tmp_path / "train.txt").write_text("5_walk\n")
    path.unlink()
    with pytest.raises(DataError, match=r"has the frame 10, which .* lacks"):
        VipSeg(tmp_path, "train")


def write_vps(root: Path) -> None:
    categories = load_categories("cityscapes_vps")
    for frame in range(FRAMES):
        labels, numbers = frame_maps(frame)
        stem = f"0004_{frame:04d}_town_000000_{5 * frame:06d}"
        save_image(root / f"val/img/{stem}_{'leftImg8bit' if frame == 1 else 'newImg8bit'}.png", frame)
        labels = np.array(as_things("cityscapes_vps"))[labels]
        ending = "gtFine_color" if frame == 1 else "final_mask"
        write_vps_png(root / f"val/panoptic_inst/{stem}_{ending}.png", labels, numbers, categories)


def test_cityscapes_vps(tmp_path: Path) -> None:
    write_vps(tmp_path)
    reader = CityscapesVps(tmp_path, "val")
    assert reader.clips == (Clip("0004", (0, 1, 2), (0, 1, 2)),)
    check_vocabulary(reader, "cityscapes_vps", {})
    (tmp_path / "val/img/0004_0001_town_000000_000005_leftImg8bit.png").unlink()
    with pytest.raises(DataError, match=r"has the frame 0004_0001_town_000000_000005, which .*img lacks"):
        CityscapesVps(tmp_path, "val")
    with pytest.raises(DataError, match="object number 1001"):
        write_vps_png(tmp_path / "a.png", np.zeros(SIZE, int), np.full(SIZE, 1001), reader.categories)
    Image.fromarray(np.full(SIZE, 3001, np.uint16)).save(
        tmp_path / "val/panoptic_inst/0004_0000_town_000000_000000_final_mask.png"
    )
    shutil.rmtree(tmp_path / "val/img")
    with pytest.raises(DataError, match=r"final_mask\.png has the class value 3001"):  # a wall is not counted
        CityscapesVps(tmp_path, "val").read_truth(0)


def test_own_clips_named_by_time(tmp_path: Path) -> None:
    """Nanoseconds, or seconds and their fraction, which begins anew within the clip; two frames are missing."""
    for clip, stamps in {
        "walk": ["1403636579913555584", "1403636579963555456", "1403636580013555500", "1403636580163555500"],
        "ride": ["1305031452.900", "1305031452.950", "1305031453.001", "1305031453.150"],
    }.items():
        for stamp in stamps:
            save_image(tmp_path / f"images/{clip}/{stamp}.png")
            write_clip_frame(tmp_path, f"{clip}/{stamp}", *frame_maps(0), "kitti_step")
    reader = ClipFolder(*(tmp_path / name for name in ("images", "labels", "instances")), "kitti_step")
    assert sorted((clip.name, clip.numbers) for clip in reader.clips) == [
        ("ride", (0, 1, 2, 5)),
        ("walk", (0, 1, 2, 5)),
    ]
    assert [reader.name(i).rpartition("/")[2] for i in reader.clips[0].frames] == sorted(
        reader.name(i).rpartition("/")[2] for i in reader.clips[0].frames
    )


def test_own_clips(tmp_path: Path) -> None:
    for frame in range(FRAMES):
        save_image(tmp_path / f"images/walk/frame_{frame:03d}.jpg", frame)
        write_clip_frame(tmp_path, f"walk/frame_{frame:03d}", *frame_maps(frame), "kitti_step")
    folders = [tmp_path / name for name in ("images", "labels", "instances")]
    reader = ClipFolder(*folders, "kitti_step")
    assert reader.clips == (Clip("walk", (0, 1, 2), (0, 1, 2)),)
    check_frames(reader)
    Image.new("RGB", SIZE[::-1], (1, 0, 0)).save(tmp_path / "instances/walk/frame_002.png")
    with pytest.raises(DataError, match="object number 65536"):
        reader.read(2)
    Image.fromarray(np.full(SIZE, 77, np.uint8)).save(tmp_path / "labels/walk/frame_001.png")
    with pytest.raises(DataError, match=r"frame_001\.png has the pixel value 77"):
        ClipFolder(*folders, "kitti_step").read(1)
    for folder, ending in zip(folders, ("jpg", "png", "png"), strict=True):
        (folder / f"walk/frame_001.{ending}").rename(folder / f"frame_001.{ending}")
    with pytest.raises(DataError, match=r"frame_001\.jpg is no frame of a clip"):
        ClipFolder(*folders, "kitti_step")


def test_frames_of_one_number_are_refused() -> None:
    with pytest.raises(DataError, match="here has the frame 3 of a twice"):
        ClipReader([FrameFiles("a", 3, None, None)] * 2, STEP, "here")
    with pytest.raises(DataError, match="here holds no frames"):
        ClipReader([], STEP, "here")


@given(st.integers(0, 1000), st.booleans())
def test_ids_say_class_and_object(seed: int, crowds: bool) -> None:
    rng = np.random.default_rng(seed)
    labels, numbers = rng.integers(-1, 19, SIZE), rng.choice([0, 1, 65535], SIZE)
    id_map, segments = make_id_map(labels, numbers, STEP, crowds)
    assert set(np.unique(id_map).tolist()) - {0} == {segment.id for segment in segments}
    for segment in segments:
        label, number = split_id(segment.id)
        at = id_map == segment.id
        assert (labels[at] == label).all() and label == segment.label
        assert not STEP[label].thing or (numbers[at] == number).all()
        assert segment.crowd == (crowds and STEP[label].thing and number == 0)
    assert ((id_map == 0) == (labels == -1)).all()


def test_looking_up() -> None:
    values = np.array([[3, 70000], [0, 3]])
    assert look_up(values, {0: -1, 3: 5, 70000: 1}, Path("x")).tolist() == [[5, 1], [-1, 5]]
    with pytest.raises(DataError, match=r"x\.png has the class value 3, 70000"):
        look_up(values, {0: 0}, Path("x.png"))
    assert [last_number(text) for text in ("a12_b003", "12", "frame", "007x")] == [3, 12, None, 7]


def test_cityscapes_step_from_both_kinds_of_labels(tmp_path: Path) -> None:
    synthesize("cityscapes", tmp_path, 3, (64, 128), seed=5)
    raw = CityscapesStep(tmp_path, "train")
    before = [raw.read(index) for index in range(3)]
    to_train_id = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10}
    to_train_id |= dict(zip((24, 25, 26, 27, 28, 31, 32, 33), range(11, 19), strict=True))
    for path in sorted((tmp_path / "gtFine/train").rglob("*_instanceIds.png")):
        with Image.open(path) as file:
            values = np.array(file).astype(int)
        classes = np.where(values < 1000, values, values // 1000)
        train = np.vectorize(lambda value: to_train_id.get(value, 255))(classes)
        train = np.where((values >= 1000) & (train < 255), train * 1000 + values % 1000, train)
        Image.fromarray(train.astype(np.uint16)).save(str(path).replace("instanceIds", "instanceTrainIds"))
    after = CityscapesStep(tmp_path, "train")
    assert len(raw) == len(after) == 3
    for index, one in enumerate(before):
        other = after.read(index)
        assert one.name == other.name and one.image.shape == (64, 128, 3)
        assert np.array_equal(one.id_map, other.id_map) and one.segments == other.segments
    assert {label for sample in before for label in things_with_numbers(sample, raw.categories)} == {PERSON, CAR}
    (tmp_path / "leftImg8bit/train/knetburg/knetburg_000000_000019_leftImg8bit.png").unlink()
    with pytest.raises(DataError, match="no image of knetburg/knetburg_000000_000019"):
        CityscapesStep(tmp_path, "train")


def things_with_numbers(sample: Sample, categories: tuple[Category, ...]) -> set[int]:
    for segment in sample.segments:
        assert segment.crowd == (categories[segment.label].thing and split_id(segment.id)[1] == 0)
    return {segment.label for segment in sample.segments if split_id(segment.id)[1]}


@pytest.mark.parametrize(
    ("table", "things", "stuff"),
    [
        ("kitti_step", 2, 17),
        ("vipseg", 58, 66),
        ("cityscapes_vps", 8, 11),
        ("youtube_vis", 40, 0),
        ("kitti_mots", 2, 0),
    ],
)
def test_tables_of_video_data_have_things_first(table: str, things: int, stuff: int) -> None:
    assert [category.thing for category in load_categories(table)] == [True] * things + [False] * stuff


def test_class_order_of_video_knet() -> None:
    step, vipseg = load_categories("kitti_step"), load_categories("vipseg")
    assert [category.id for category in step] == [11, 13, *range(11), 12, *range(14, 19)]
    for part in (vipseg[:58], vipseg[58:]):
        assert [category.id for category in part] == sorted(category.id for category in part)
