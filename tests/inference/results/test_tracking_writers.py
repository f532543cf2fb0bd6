"""Each format of tracked videos: what is written is read back equal, by the reader of its data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_video import TABLE, Painted, drive, in_folder, segmenter_of

from knet.data.files.io import areas_in, read_ids, read_labels
from knet.data.files.masks import read_mask, unpack_mask
from knet.data.readers.cityscapes_vps import CityscapesVps
from knet.data.readers.kitti_step import read_step_png
from knet.data.readers.mots import read_mots
from knet.data.readers.vipseg import VipSeg
from knet.errors import ConfigError, DataError
from knet.evaluation import vpq
from knet.inference.identities import VideoState
from knet.inference.results.formats import TRACK_FORMATS
from knet.inference.results.segmentation import Segmentation
from knet.inference.results.track_writers import TrackWriter, mots_classes
from knet.inference.results.writers import ResultWriter
from knet.inference.sources.streams import Frame, open_stream
from knet.inference.sources.videos import Item
from knet.structures import Category, Segment

VPS = (Category(0, "road", False, (1, 2, 3)), *TABLE[1:])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Frame, Segmentation]]:
    """Tracked frames 3 to 8 of the video 0007; the object 4 has no track."""
    folder = in_folder(tmp_path_factory.mktemp("clip") / "0007", drive(6), [f"{n:06d}.png" for n in range(3, 9)])
    segmenter, state, found = segmenter_of(Painted(), VPS), VideoState(), []
    for frame in open_stream(folder):
        result, state = segmenter.segment_next(frame.item.image, state, frame.time, frame.item.name)
        result.id_map[40:44, 80:90] = 9
        lost = Segment(9, 13, "car", True, 0.4, 40, (80, 40, 90, 44))
        result.id_map[:2, :30] = 0  # void
        found.append((frame, replace(result, segments=[*result.segments, lost])))
    return found


def written(folder: Path, clip: list[tuple[Frame, Segmentation]], *formats: str) -> Path:
    with TrackWriter(folder, formats, VPS) as writer:
        for frame, result in clip:
            writer.write(result, frame)
    return folder


def by_pixel(result: Segmentation, void: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """Category and track of every pixel."""
    tracks = np.zeros(result.id_map.shape, int)
    for segment in result.segments:
        tracks[result.id_map == segment.id] = segment.track or 0
    return np.where(result.id_map == 0, void, result.semantic_map()), tracks


def test_step(tmp_path: Path, clip: list[tuple[Frame, Segmentation]]) -> None:
    written(tmp_path, clip, "step")
    files = sorted((tmp_path / "panoptic").rglob("*.png"))
    assert [str(f.relative_to(tmp_path / "panoptic")) for f in files] == [f"0007/{n:06d}.png" for n in range(3, 9)]
    for path, (_, result) in zip(files, clip, strict=True):
        for found, expected in zip(read_step_png(path), by_pixel(result), strict=True):
            assert (found == expected).all()


def test_ids_over_16_bits_in_a_step_png(tmp_path: Path, clip: list[tuple[Frame, Segmentation]]) -> None:
    frame, result = clip[0]
    last = [replace(s, track=65535 if s.thing else None) for s in result.segments]
    written(tmp_path, [(frame, replace(result, segments=last))], "step", "mots")
    assert read_step_png(tmp_path / "panoptic/0007/000003.png")[1].max() == 65535
    assert {line.object for line in read_mots(tmp_path / "mots/0007.txt")} == {65535}
    for name in ("step", "mots"):
        over = [replace(s, track=65536 if s.thing else None) for s in result.segments]
        with pytest.raises(DataError, match=r"object.* 65536.*65535"):
            written(tmp_path / name, [(frame, replace(result, segments=over))], name)
    assert not (tmp_path / "step/panoptic/0007/000003.png").exists()


def consistent(truth: Iterator[np.ndarray], clip: list[tuple[Frame, Segmentation]]) -> None:
    """Objects have one number each all over the video, another one in each class, and none where they have no track."""
    number_of: dict[tuple[int, int], int] = {}
    for id_map, (_, result) in zip(truth, clip, strict=True):
        assert ((id_map == 0) == (result.id_map == 0)).all()
        for segment in result.segments:
            (value,) = np.unique(id_map[result.id_map == segment.id])
            if segment.track:
                assert number_of.setdefault((segment.category, segment.track), value) == value
    assert len(set(number_of.values())) == len(number_of) == 3


def test_vipseg(tmp_path: Path, clip: list[tuple[Frame, Segmentation]]) -> None:
    root = written(tmp_path, clip, "vipseg") / "vipseg"
    in_folder(root / "images" / "0007", [frame.item.image for frame, _ in clip], [f"{n:06d}.png" for n in range(3, 9)])
    (root / "val.txt").write_text("0007\n")
    reader = VipSeg(root, "val", VPS)
    samples = [reader.read_truth(i) for i in range(len(reader))]
    consistent((sample.id_map for sample in samples), clip)
    for sample, (_, result) in zip(samples, clip, strict=True):
        crowds = [info.id for info in sample.segments if info.crowd]
        assert (np.isin(sample.id_map, crowds) == (result.id_map == 9)).all()
        labels = {info.id: info.label for info in sample.segments}
        for segment in result.segments:
            value = sample.id_map[result.id_map == segment.id][0]
            assert VPS[labels[int(value)]].id == segment.category


def test_cityscapes_vps(tmp_path: Path, clip: list[tuple[Frame, Segmentation]]) -> None:
    folder = written(tmp_path, clip, "cityscapes-vps") / "cityscapes_vps"
    (tmp_path / "val").mkdir()
    folder.rename(tmp_path / "val" / "panoptic_inst")
    reader = CityscapesVps(tmp_path, "val", VPS)
    assert len(reader) == 6
    consistent((reader.read_truth(i).id_map for i in range(6)), clip)


@pytest.mark.parametrize("name", ["vipseg-json", "cityscapes-vps-json"])
def test_predictions_for_the_official_evaluators(
    tmp_path: Path, clip: list[tuple[Frame, Segmentation]], name: str
) -> None:
    """A track has one id all over its video, colours, rows and segments agree, and VPQ of them as truth is perfect."""
    written(tmp_path, [*clip, *clip[:2]], name)
    folder = tmp_path / name.replace("-", "_")
    document = json.loads((folder / "pred.json").read_text())
    if name == "vipseg-json":
        assert [video["video_id"] for video in document["annotations"]] == ["0007", "0007_2"]
        rows = document["annotations"][0]["annotations"]
        assert [row["image_id"] for row in rows] == [f"{n:06d}" for n in range(3, 9)]
        paths = [folder / "pan_pred/0007" / row["file_name"] for row in rows]
    else:
        rows = document["annotations"][:6]
        assert [row["image_id"] for row in document["annotations"]] == [
            *(f"0007_{n:06d}" for n in range(3, 9)),
            *(f"0007-2_{n:06d}" for n in (3, 4)),
        ]
        paths = [folder / "pan_pred" / f"{row['image_id']}.png" for row in rows]
    maps = [read_ids(path) for path in paths]
    consistent(iter(maps), clip)
    for id_map, row, (_, result) in zip(maps, rows, clip, strict=True):
        category_of = {segment["id"]: segment["category_id"] for segment in row["segments_info"]}
        assert areas_in(id_map[id_map != 0]) == {segment["id"]: segment["area"] for segment in row["segments_info"]}
        assert {segment["iscrowd"] for segment in row["segments_info"]} == {0}
        for segment in result.segments:
            (id_,) = np.unique(id_map[result.id_map == segment.id])
            assert category_of[int(id_)] == segment.category
    table = [{"id": c.id, "name": c.name, "isthing": int(c.thing)} for c in VPS]
    truth = {**document, "categories": table} | ({"videos": []} if name == "vipseg-json" else {})
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (folder / "pan_pred").rename(tmp_path / "panomasksRGB")
    (folder / "pan_pred").symlink_to(tmp_path / "panomasksRGB")
    assert vpq(tmp_path / "truth.json", folder)["all"]["vpq"] == 1


def test_predictions_of_cityscapes_vps_have_its_names(tmp_path: Path, clip: list[tuple[Frame, Segmentation]]) -> None:
    """One frame of a video has another ending, and is its frame all the same."""
    names = [f"0005_{n:04d}_frankfurt_000000_{n:06d}_newImg8bit.png" for n in (5, 10, 15, 20, 25, 30)]
    names[3] = names[3].replace("newImg", "leftImg")
    names += [f"0010_{n:04d}_lindau_000001_{n:06d}_newImg8bit.png" for n in (5, 10)]
    frames = list(open_stream(in_folder(tmp_path / "img", drive(8), names)))
    assert [(frame.sequence, frame.number) for frame in frames[2:7]] == [
        *(("0005", n) for n in (15, 20, 25, 30)),
        ("0010", 5),
    ]
    written(tmp_path, [(frame, clip[0][1]) for frame in frames], "cityscapes-vps-json")
    rows = json.loads((tmp_path / "cityscapes_vps_json/pred.json").read_text())["annotations"]
    assert [row["image_id"] for row in rows] == [name.rpartition("_")[0] for name in names]
    assert (tmp_path / "cityscapes_vps_json/pan_pred/0005_0020_frankfurt_000000_000020.png").is_file()


def test_mots(tmp_path: Path, clip: list[tuple[Frame, Segmentation]]) -> None:
    lines = read_mots(written(tmp_path, clip, "mots") / "mots" / "0007.txt")
    expected = [(frame.number, s, result) for frame, result in clip for s in result.segments if s.track]
    assert len(lines) == len(expected)
    for line, (number, segment, result) in zip(lines, expected, strict=True):
        assert (line.frame, line.object) == (number, segment.track)
        assert line.category == {11: 2, 13: 1}[segment.category]
        assert (unpack_mask(line.mask) == (result.id_map == segment.id)).all()


def test_tracks(tmp_path: Path, clip: list[tuple[Frame, Segmentation]]) -> None:
    rows = [json.loads(row) for row in (written(tmp_path, clip, "tracks") / "tracks.jsonl").read_text().splitlines()]
    assert [(row["video"], row["frame"]) for row in rows] == [("0007", n) for n in range(3, 9)]
    for row, (_, result) in zip(rows, clip, strict=True):
        plain = result.to_dict()
        masks = [entry.pop("segmentation", None) for entry in row["segments"]]
        assert {key: row[key] for key in plain} == plain
        for mask, segment in zip(masks, result.segments, strict=True):
            assert (mask is not None) == segment.thing
            if mask is not None:
                found = unpack_mask(read_mask(mask, result.id_map.shape, "row"))
                assert (found == (result.id_map == segment.id)).all()


def test_videos_of_the_same_name_do_not_mix(tmp_path: Path, clip: list[tuple[Frame, Segmentation]]) -> None:
    written(tmp_path, [*clip, *clip[:2]], *TRACK_FORMATS)
    written(tmp_path / "b", [*clip, (clip[0][0], clip[0][1])], *TRACK_FORMATS)
    assert sorted(p.name for p in (tmp_path / "mots").iterdir()) == ["0007.txt", "0007_2.txt"]
    assert sorted(p.name for p in (tmp_path / "panoptic").iterdir()) == ["0007", "0007_2"]
    assert len(list((tmp_path / "cityscapes_vps").iterdir())) == 8


def test_videos_whose_names_differ_in_an_underline_alone_do_not_mix(
    tmp_path: Path, clip: list[tuple[Frame, Segmentation]]
) -> None:
    both = [
        (replace(frame, sequence=name, first=n == 0), result)
        for name in ("cam_1", "cam-1")
        for n, (frame, result) in enumerate(clip[:2])
    ]
    written(tmp_path, both, *TRACK_FORMATS)
    assert len(list((tmp_path / "cityscapes_vps").iterdir())) == 4
    assert len(list((tmp_path / "cityscapes_vps_json/pan_pred").iterdir())) == 4
    written(tmp_path / "step", both, "step")
    assert sorted(p.name for p in (tmp_path / "step/panoptic").iterdir()) == ["cam-1", "cam_1"]


def test_what_was_written_is_whole_after_an_error(tmp_path: Path, clip: list[tuple[Frame, Segmentation]]) -> None:
    with pytest.raises(KeyError), TrackWriter(tmp_path, TRACK_FORMATS, VPS) as writer:
        for frame, result in clip[:3]:
            writer.write(result, frame)
        raise KeyError
    assert len((tmp_path / "tracks.jsonl").read_text().splitlines()) == 3
    assert len({line.frame for line in read_mots(tmp_path / "mots/0007.txt")}) == 3
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def test_class_tables_that_do_not_fit(tmp_path: Path) -> None:
    far = (Category(300, "robot", True, (0, 0, 0)),)
    for name in ("step", "vipseg", "cityscapes-vps"):
        with pytest.raises(ConfigError, match="'robot' has 300"):
            TrackWriter(tmp_path, [name], far)
    with pytest.raises(ConfigError, match="neither"):
        TrackWriter(tmp_path, ["mots"], far)
    camvid = (Category(8, "Car", True, (0, 0, 0)), Category(9, "Pedestrian", True, (0, 0, 0)))
    assert mots_classes(camvid) == {8: 1, 9: 2}
    with pytest.raises(ConfigError, match="tracked videos"):
        ResultWriter(tmp_path, ["step"], TABLE)
    with pytest.raises(ConfigError, match="did you mean 'vipseg'"):
        ResultWriter(tmp_path, ["vipsek"], TABLE)


def test_more_objects_than_a_class_has_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    id_map = np.arange(1, 103, dtype=np.int32)[None]
    segments = [Segment(i, 13, "car", True, 0.9, 1, (i - 1, 0, i, 1), i + 500) for i in range(1, 102)]
    frame = Frame(Item(np.zeros((1, 102, 3), np.uint8), "x"), "x", 0, 0, True)
    written(tmp_path, [(frame, Segmentation(id_map, segments[:100], VPS))], "vipseg")
    assert not caplog.text
    # The 101st is a region of its class, and the run goes on.
    written(tmp_path / "more", [(frame, Segmentation(id_map, segments, VPS))], "vipseg")
    assert caplog.text.count("has more than 100 objects of a class") == 1
    values = read_labels(next((tmp_path / "more").rglob("000000.png")))
    assert values[0].tolist() == [*range(1400, 1500), 14, 0]
