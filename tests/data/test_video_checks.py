"""knet data check on video data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from knet.cli.main import main
from knet.data.clip_checks import check_clip_root
from knet.data.clip_roots import CLIP_ROOTS, open_clips
from knet.data.clips import ClipReader
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
    synthesize_clips(layout, tmp_path / "out", 1, 3, (32, 64), seed=3, progress=False)
    reports = check_clip_root(layout, tmp_path / "out", progress=False)
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
    synthesize_clips("step", root, 1, 5, (32, 64), seed=3, progress=False)
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
