"""Data sets of videos whose truth is objects' masks: YouTube-VIS and MOTS text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_clip import FRAMES, SIZE, frame_maps, save_image, write_mots

from knet.data.categories import load_categories
from knet.data.files.masks import pack_mask
from knet.data.readers.clips import Clip, split_id
from knet.data.readers.mots import Mots, MotsLine, read_mots
from knet.data.readers.youtube_vis import TrackToWrite, VideoToWrite, YoutubeVis, write_youtube_vis
from knet.errors import DataError


def write_youtube(root: Path) -> Path:
    masks: dict[int, list[np.ndarray]] = {7: [], 300: [], 2: []}
    for frame in range(FRAMES):
        numbers = frame_maps(frame)[1]
        save_image(root / f"JPEGImages/0a/{5 * frame:05d}.jpg", frame)
        for number, found in masks.items():
            found.append(numbers == number)
    masks[2][1][:] |= masks[7][1]  # overlaps the car in this frame
    packed = {number: [pack_mask(mask) if mask.any() else None for mask in found] for number, found in masks.items()}
    tracks = [TrackToWrite(category, packed[number]) for number, category in ((7, 6), (300, 6), (2, 1))]
    files = [f"0a/{5 * frame:05d}.jpg" for frame in range(FRAMES)]
    write_youtube_vis(root / "train.json", [VideoToWrite(files, SIZE, tracks)], load_categories("youtube_vis"))
    return root / "train.json"


def test_youtube_vis(tmp_path: Path) -> None:
    path = write_youtube(tmp_path)
    reader = YoutubeVis(tmp_path / "JPEGImages", path)
    assert [category.name for category in reader.categories] == [row.name for row in load_categories("youtube_vis")]
    assert reader.clips == (Clip("0a", (0, 1, 2), (0, 5, 10)),)
    sedan = 5
    for frame in range(FRAMES):
        sample = reader.read(frame)
        seen = [split_id(segment.id) for segment in sample.segments]
        assert seen == [(sedan, 1), (sedan, 2)] + ([(0, 3)] if frame == 1 else [])
        numbers = frame_maps(frame)[1]
        for segment, number in zip(sample.segments, (7, 300, 2), strict=False):
            shown = (sample.id_map == segment.id).any(0)
            expected = numbers == number
            assert np.array_equal(shown, expected | (numbers == 7) if number == 2 else expected)
        assert len(sample.id_map) == (2 if frame == 1 else 1)  # layers
    annotation = json.loads(path.read_text())["annotations"][2]
    assert annotation["segmentations"][0] is None and annotation["bboxes"][0] is None and annotation["areas"][0] is None
    assert isinstance(annotation["segmentations"][1]["counts"], list)


def test_youtube_vis_of_another_system(tmp_path: Path) -> None:
    """Windows' separators, names without an ending, numbers as text, and a byte order mark."""
    path = write_youtube(tmp_path)
    expected = YoutubeVis(tmp_path / "JPEGImages", path)
    content = json.loads(path.read_text())
    for video in content["videos"]:
        video |= {"id": str(video["id"]), "height": float(video["height"])}
        video["file_names"] = [name.replace("/", "\\").removesuffix(".jpg") for name in video["file_names"]]
    for row in content["annotations"]:
        row |= {"video_id": float(row["video_id"]), "category_id": str(row["category_id"]), "iscrowd": "0"}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    reader = YoutubeVis(tmp_path / "JPEGImages", path)
    assert reader.clips == expected.clips
    assert reader.read(1).segments == expected.read(1).segments
    assert np.array_equal(reader.read(1).image, expected.read(1).image)


def test_youtube_vis_without_annotations_and_damaged(tmp_path: Path) -> None:
    path = write_youtube(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "annotations"}))
    reader = YoutubeVis(tmp_path / "JPEGImages", path)
    assert reader.read_image(0).shape == (*SIZE, 3)
    with pytest.raises(DataError, match="has no ground truth"):
        reader.read(0)
    wrong = {**content["annotations"][0], "category_id": 41}
    path.write_text(json.dumps({**content, "annotations": [wrong]}))
    with pytest.raises(DataError, match=r"train\.json: annotation 1 has the category 41, which the class table lacks"):
        YoutubeVis(None, path)
    wrong = {**content["annotations"][0], "segmentations": [None]}
    path.write_text(json.dumps({**content, "annotations": [wrong]}))
    with pytest.raises(DataError, match="has 1 segmentations for 3 frames"):
        YoutubeVis(None, path)
    path.write_text(json.dumps(content))
    (tmp_path / "JPEGImages/0a/00005.jpg").unlink()
    with pytest.raises(DataError, match=r"no image 0a/00005\.jpg"):
        YoutubeVis(tmp_path / "JPEGImages", path)
    with pytest.raises(DataError, match="has no image; give the folder"):
        YoutubeVis(None, path).read(0)


def test_mots_text(tmp_path: Path) -> None:
    lines = []
    for frame in range(FRAMES):
        numbers = frame_maps(frame)[1]
        save_image(tmp_path / f"image_02/0001/{frame:06d}.png", frame)
        for number, category in ((7, 1), (300, 1), (2, 2)):
            if frame != 2 and (numbers == number).any():  # nothing in the last frame
                lines.append(MotsLine(frame, 1000 * category + number, category, pack_mask(numbers == number)))
    lines.append(MotsLine(0, 10000, 10, pack_mask(np.arange(SIZE[0])[:, None].repeat(SIZE[1], 1) == 11)))
    path = tmp_path / "instances_txt/0001.txt"
    write_mots(path, lines)
    assert read_mots(path) == lines
    for images in (tmp_path / "image_02", None):
        reader = Mots(images, path.parent)
        assert reader.clips[0].numbers == ((0, 1, 2) if images else (0, 1))
        for frame in range(2):
            truth = reader.read_truth(frame)
            numbers = frame_maps(frame)[1]
            found = {split_id(segment.id): truth.id_map == segment.id for segment in truth.segments}
            expected = {(0, 1007): numbers == 7, (0, 1300): numbers == 300, (1, 2002): numbers == 2}
            assert found.keys() == {key for key, mask in expected.items() if mask.any()}
            assert all(np.array_equal(mask, expected[key]) for key, mask in found.items())
            assert ((truth.id_map == 0) == (numbers == 0)).all()  # the region that does not count is void
    assert Mots(tmp_path / "image_02", path.parent).read(2).segments == []


def test_mots_refuses(tmp_path: Path) -> None:
    mask = pack_mask(np.ones(SIZE, bool))
    path = tmp_path / "0001.txt"
    with pytest.raises(DataError, match="holds no MOTS text"):
        Mots(None, tmp_path)
    path.write_text("0 1001 1 12 twenty x\n")
    with pytest.raises(DataError, match=r"0001\.txt, line 1 is .*; it must be: frame object class"):
        Mots(None, tmp_path)
    write_mots(path, [MotsLine(0, 3001, 3, mask)])
    with pytest.raises(DataError, match=r"0001\.txt has the class 3"):
        Mots(None, tmp_path)
    write_mots(path, [MotsLine(0, 1001, 1, mask), MotsLine(0, 1002, 1, mask)])
    with pytest.raises(DataError, match="objects of frame 0 that overlap"):
        Mots(None, tmp_path).read_truth(0)
    save_image(tmp_path / "image_02/0001/000001.png")
    with pytest.raises(DataError, match="no image of frame 0"):
        Mots(tmp_path / "image_02", tmp_path)
    write_mots(path, [MotsLine(0, 65536, 1, mask)])
    with pytest.raises(DataError, match="object 65536"):
        Mots(None, tmp_path)
