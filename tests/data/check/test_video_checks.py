"""knet data check on video data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_clip import write_clip_frame, write_mots

from knet.cli.main import main
from knet.data.categories import load_table
from knet.data.check.clips import check_clip_root
from knet.data.files.masks import pack_mask
from knet.data.readers.clips import ClipReader
from knet.data.readers.mots import MotsLine
from knet.data.readers.open import CLIP_ROOTS, open_clips
from knet.data.synthetic.clip_layouts import CLIP_LAYOUTS, synthesize_clips
from knet.errors import ConfigError


def test_every_layout_that_is_drawn_can_be_opened() -> None:
    assert set(CLIP_LAYOUTS) == set(CLIP_ROOTS)
    with pytest.raises(ConfigError, match="no layout 'mots' of clips; choose from step"):
        open_clips("mots", "x", "train")
    with pytest.raises(ConfigError, match="no layout 'mots' of clips to check"):
        check_clip_root("mots", "x")


@pytest.mark.parametrize("layout", CLIP_LAYOUTS)
def test_counts_are_those_of_the_frames(tmp_path: Path, layout: str) -> None:
    synthesize_clips(layout, tmp_path / "out", 1, 3, (32, 64), seed=3)
    reports = check_clip_root(layout, tmp_path / "out")
    assert [report.name for report in reports] == [f"{tmp_path}/out {split} (1 clips)" for split in CLIP_ROOTS[layout]]
    for report, split in zip(reports, CLIP_ROOTS[layout], strict=True):
        reader: ClipReader = open_clips(layout, tmp_path / "out", split)
        assert report.images == 3 and report.errors == 0 and report.sizes == ((32, 64), (32, 64))
        segments = [segment for index in range(3) for segment in reader.read(index).segments]
        for label, row in enumerate(report.classes):
            assert row.segments + row.crowds == sum(segment.label == label for segment in segments)
            assert row.crowds == sum(segment.label == label and segment.crowd for segment in segments)
        assert sum(row.share for row in report.classes) == pytest.approx(1)


def test_gaps_and_broken_frames_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "out"
    synthesize_clips("step", root, 1, 5, (32, 64), seed=3)
    assert main(["data", "check", "step", str(root)]) == 0
    for folder in ("images", "panoptic_maps"):
        (root / folder / "train/0000/000002.png").unlink()
    assert main(["data", "check", "step", str(root), "--splits", "train"]) == 0
    assert (
        "warning: frames are missing in the middle of clips (1): The clip 0000 has no frame 2;"
        in capsys.readouterr().out
    )
    (root / "images/train/0000/000001.png").write_bytes(b"half")
    assert main(["data", "check", "step", str(root)]) == 2
    assert "error: frames cannot be used (1): The image " in capsys.readouterr().out
    assert main(["data", "check", "step", str(root), "--splits", "trian"]) == 2
    assert "no split 'trian'" in capsys.readouterr().err


def draw_frames(folder: Path, count: int) -> None:
    for n in range(count):
        (folder / "walk").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (n, 0, 0)).save(folder / f"walk/{n:06d}.png")


def test_clips_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_frames(tmp_path / "images", 3)
    names = [category.name for category in load_table("kitti_step").categories]
    labels = np.full((10, 20), names.index("road"))
    labels[2:5, 3:7] = names.index("car")
    for n in range(3):
        write_clip_frame(tmp_path, f"walk/{n:06d}", labels, np.where(labels == labels[2, 3], 4, 0), "kitti_step")
    given = [f"--{kind}={tmp_path / kind}" for kind in ("images", "labels", "instances")]
    assert main(["data", "check", *given, "--classes", "kitti_step"]) == 0
    out = capsys.readouterr().out
    assert "(1 clips): 3 images, 20x10 pixels, 0.0% void" in out
    car = next(line.split() for line in out.splitlines() if line.startswith("car "))
    assert car[2:] == ["thing", "3", "3", "0", "6.00%"]
    assert main(["data", "check", *given]) == 2
    assert "--classes is missing" in capsys.readouterr().err
    (tmp_path / "labels/walk/000001.png").write_bytes(b"half")
    assert main(["data", "check", *given, "--classes", "kitti_step"]) == 2
    assert "error: frames cannot be used (1): The label PNG " in capsys.readouterr().out


def test_mots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_frames(tmp_path / "images", 3)
    mask = np.zeros((10, 20), bool)
    mask[2:5, 3:7] = True
    (tmp_path / "texts").mkdir()
    write_mots(tmp_path / "texts/walk.txt", [MotsLine(n, 5, 1, pack_mask(mask)) for n in (0, 2)])
    command = ["data", "check", "--images", str(tmp_path / "images"), "--mots", str(tmp_path / "texts")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "texts (1 clips): 3 images, 20x10 pixels, 96.0% void" in out
    car = next(line.split() for line in out.splitlines() if line.startswith("car "))
    assert car[2:] == ["thing", "2", "2", "0", "100.00%"]
    for more in (["--labels", "x"], ["--masks", "x"]):
        assert main([*command, *more]) == 2
        assert "Give a data set and its ROOT, or all of --images" in capsys.readouterr().err
    write_mots(tmp_path / "texts/walk.txt", [MotsLine(7, 5, 1, pack_mask(mask))])
    assert main(command) == 2
    assert "walk has no image of frame 7" in capsys.readouterr().err
