"""Videos on disk: frames pair up by name in every official form, bad input is told in a sentence, `knet eval` works."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_clips import TABLE, clip

from knet.cli.main import main
from knet.errors import DataError
from knet.evaluation import report, stq, vpq
from knet.evaluation.video_files import open_videos
from knet.evaluation.video_labels import Maps

CLIPS = {"0002": clip(1), "0006": clip(2, 3)}


def write_step(folder: Path, videos: dict[str, list[Maps]], name: str = "{0}/{1:06d}.png") -> None:
    for sequence, frames in videos.items():
        for number, (classes, numbers) in enumerate(frames):
            path = folder / name.format(sequence, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            wide = numbers.astype(int)
            Image.fromarray(np.stack([classes, wide // 256, wide % 256], -1).astype(np.uint8)).save(path)


def write_pairs(folder: Path, videos: dict[str, list[Maps]]) -> None:
    """As Video K-Net: sequences without zeros, 16 bits for class and object."""
    for sequence, frames in videos.items():
        place = folder / "panoptic" / str(int(sequence))
        place.mkdir(parents=True)
        for number, maps in enumerate(frames):
            for kind, values in zip(("cat", "ins"), maps, strict=True):
                path = place / f"{int(sequence):06d}_{number:06d}_{kind}.png"
                Image.fromarray(values.astype(np.uint16)).save(path)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    write_step(tmp_path / "truth", CLIPS)
    return tmp_path / "truth"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    write_step(tmp_path / "found", {name: list(reversed(frames)) for name, frames in CLIPS.items()})
    return tmp_path / "found"


def test_all_layouts_give_what_arrays_give(truth: Path, predictions: Path, tmp_path: Path) -> None:
    found = {name: list(reversed(frames)) for name, frames in CLIPS.items()}
    write_step(tmp_path / "flat", found, "val/{0}_{1:06d}_panoptic.png")
    write_step(tmp_path / "short", {str(int(name)): frames for name, frames in found.items()}, "{0}/{1}.png")
    write_pairs(tmp_path / "pairs", found)
    Image.new("RGB", (3, 3)).save(tmp_path / "flat/val/0002_000000_leftImg8bit.png")
    for metric, expected in ((stq, stq(CLIPS, found, TABLE)), (vpq, vpq(CLIPS, found, TABLE))):
        for layout in ("found", "flat", "short", "pairs"):
            assert metric(truth, tmp_path / layout, TABLE) == expected, layout


def test_vipsegs_masks_and_step_pngs_serve_as_predictions(goldens: Path, tmp_path: Path) -> None:
    folder = goldens / "video_knet" / "metric_vipseg_seed510/VIPSeg"
    truth: dict[str, list[Maps]] = {}
    for sequence, _, true, predicted in open_videos(folder, folder / "panomasks").frames():
        assert (true == predicted).all()
        truth.setdefault(sequence, []).append((true >> 16, true & 65535))
    assert list(truth) == ["12_abc", "7_def"]  # as val.txt lists them
    write_step(tmp_path / "step", truth, "{0}/{1:07d}0.png")  # frames are called 0, 5, 10, ...
    with pytest.raises(DataError, match="step lacks"):
        stq(folder, tmp_path / "step")
    for path in sorted((tmp_path / "step").rglob("*.png")):
        path.rename(path.with_name(f"{int(path.stem) // 2:03d}.png"))
    result = stq(folder, tmp_path / "step")
    assert result["all"]["stq"] == pytest.approx(1)
    assert result["all"]["tracks"] > 5


def test_ids_of_16_bits_arrive(tmp_path: Path) -> None:
    classes = np.full((2, 4), 5, np.uint8)
    numbers = np.array([[65535, 65535, 256, 256]] * 2, np.uint16)
    write_step(tmp_path / "truth", {"a": [(classes, numbers)]})
    assert stq(tmp_path / "truth", tmp_path / "truth", TABLE)["all"]["tracks"] == 2


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def write(name: str, image: np.ndarray) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / name)

    return change


RGB = np.full((12, 16, 3), 5, np.uint8)


@pytest.mark.parametrize("metric", [stq, vpq])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("0002/000003.png"), r"found lacks the frame 0002/000003 of the truth; every frame needs a prediction"),
        (remove("0006/000000.png", "0002/000001.png"), r"lacks 2 frames \(0002/000001, 0006/000000\)"),
        (lambda folder: shutil.rmtree(folder / "0006"), r"lacks 3 frames \(0006/000000, 0006/000001, 0006/000002\)"),
        (write("0002/000005.png", RGB), "found has the frame 0002/000005, of which there is no truth"),
        (write("0009/000000.png", RGB), "has the frame 0009/000000, of which"),
        (write("0002/000001.png", RGB[:4]), r"0002/000001: the prediction has \(4, 16\) pixels .* truth \(12, 16\)"),
        (write("0002/000001.png", RGB + 1), r"0002/000001 \(prediction\) has the class 6, which the class table lacks"),
        (
            write("0002/000001.png", RGB[..., 0]),
            "000001.png is a grey .* RGB PNG, in which R is the class",
        ),
        (write("0002/3.png", RGB), "000003.png and .*3.png are the same frame"),
        (lambda folder: (folder / "0002/000000.png").write_bytes(b""), "000000.png cannot be read"),
        (write("0006/000006_000000_cat.png", RGB[..., 0]), "has no 000006_000000_ins.png beside it"),
    ],
)
def test_refuses_predictions_that_do_not_fit(
    truth: Path, predictions: Path, metric: Callable, change: Callable[[Path], None], message: str
) -> None:
    change(predictions)
    with pytest.raises(DataError, match=message) as error:
        metric(truth, predictions, TABLE)
    assert "\n" not in str(error.value)


def test_refuses_objects_over_16_bits(truth: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", CLIPS)
    Image.fromarray(np.full((12, 16), 65536, np.int32)).save(tmp_path / "pairs/panoptic/2/000002_000002_ins.tif")
    shutil.move(
        tmp_path / "pairs/panoptic/2/000002_000002_ins.tif", tmp_path / "pairs/panoptic/2/000002_000002_ins.png"
    )
    with pytest.raises(DataError, match=r"000002_000002_ins.png holds 65536; object ids must fit 16 bits"):
        stq(truth, tmp_path / "pairs", TABLE)


def test_refuses_folders_without_frames(truth: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no PNG of a frame"):
        stq(truth, tmp_path / "empty", TABLE)
    with pytest.raises(DataError, match="nothing does not exist"):
        vpq(truth, tmp_path / "nothing", TABLE)
    with pytest.raises(DataError, match="is no folder of PNGs"):
        stq(truth, truth / "0002/000000.png", TABLE)
    (tmp_path / "vipseg/panomasks").mkdir(parents=True)
    with pytest.raises(DataError, match=r"but no val\.txt"):
        stq(tmp_path / "vipseg", truth)
    (tmp_path / "vipseg/val.txt").write_text("12_abc\n")
    with pytest.raises(DataError, match=r"12_abc holds no PNG, but val\.txt lists the video"):
        stq(tmp_path / "vipseg", truth)


def test_json_predictions_that_lack_frames(goldens: Path, tmp_path: Path) -> None:
    folder = goldens / "metrics" / "vpq_stq_vipseg_a"
    content = json.loads((folder / "results/pred.json").read_text())
    del content["annotations"][1]["annotations"][2]
    (tmp_path / "pred.json").write_text(json.dumps(content))
    (tmp_path / "pan_pred").symlink_to(folder / "results/pan_pred")
    for metric in (stq, vpq):
        with pytest.raises(DataError, match=r"pred.json lacks the frame 1_synth/2 of the truth"):
            metric(folder / "panoptic_gt_VIPSeg_val.json", tmp_path)
    content["annotations"][0]["annotations"][0].pop("segments_info")
    (tmp_path / "pred.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="needs image_id, file_name and segments_info"):
        vpq(folder / "panoptic_gt_VIPSeg_val.json", tmp_path)
    (tmp_path / "pred.json").write_text('{"annotations": [{"annotations": []}]}')
    with pytest.raises(DataError, match="an annotation lacks 'video_id'"):
        vpq(folder / "panoptic_gt_VIPSeg_val.json", tmp_path)
    (tmp_path / "pred.json").write_text('{"annotations": []}')
    with pytest.raises(DataError, match="lists no frame"):
        vpq(folder / "panoptic_gt_VIPSeg_val.json", tmp_path)


def table_file(folder: Path) -> str:
    rows = [{"id": c.id, "name": c.name, "thing": c.thing} for c in TABLE]
    (folder / "classes.json").write_text(json.dumps({"categories": rows}))
    return str(folder / "classes.json")


def test_eval_prints_stq(truth: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = ["--truth", str(truth), "--predictions", str(predictions), "--classes", table_file(tmp_path)]
    assert main(["eval", "--metric", "stq", *disk, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    result, lines = stq(truth, predictions, TABLE), printed.splitlines()
    assert printed.strip() == report.table(result).strip()
    assert lines[0].split() == ["class", "STQ", "AQ", "SQ", "tracks", "frames"]
    assert [line.split()[0] for line in lines[7:9]] == ["0002", "0006"]
    assert lines[10].startswith("all (official protocol)")
    assert json.loads((tmp_path / "out/stq.json").read_text())["all"] == result["all"]
    with (tmp_path / "out/stq.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["level"] for row in rows] == ["class"] * 4 + ["sequence"] * 2 + ["all"]
    assert float(rows[-1]["stq"]) == result["all"]["stq"]


def test_eval_prints_vpq_and_json(
    truth: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = ["--truth", str(truth), "--predictions", str(predictions), "--classes", table_file(tmp_path)]
    options = ["--windows", "1,3", "--protocol", "cityscapes-vps"]
    assert main(["eval", "--metric", "vpq", *disk, *options]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].split() == ["class", "VPQ", "1", "3", "frames"]
    assert [line.split()[0] for line in lines[-3:]] == ["things", "stuff", "all"]
    assert lines[-1].startswith("all (cityscapes-vps protocol)")
    assert main(["eval", "--metric", "vpq", *disk, *options, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["vpq"]
    result = vpq(truth, predictions, TABLE, [1, 3], "cityscapes-vps")
    assert printed["all"] == result["all"]
    assert list(printed["windows"]) == ["1", "3"]


def test_eval_prints_ap_of_tracks(goldens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = goldens / "metrics" / "ytvis_ap_a"
    disk = ["--truth", str(folder / "gt.json"), "--predictions", str(folder / "pred.json")]
    assert main(["eval", "--metric", "ytvis", *disk]) == 0
    assert "mean of classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["stq", "--protocol", "vps"], "--protocol vps is none of --metric stq; use official, video-knet, vipseg"),
        (["vpq", "--protocol", "official"], "use cityscapes-vps, vipseg, video-knet"),
        (["stq", "--windows", "1"], "--windows belongs to --metric vpq, not to stq"),
        (["ytvis", "--protocol", "official"], "--protocol belongs to --metric miou or stq or vpq"),
        (["ytvis", "--classes", "camvid"], "leave --classes out"),
        (["vpq", "--windows", "1,x"], "--windows takes numbers of frames"),
        (["vpq", "--windows", "0"], "--windows takes numbers of frames"),
        (["stq", "--classes", "kitty_step"], "Did you mean 'kitti_step'"),
        (["stq"], "a/000000 (truth) has the class 25, which the class table lacks"),
    ],
)
def test_eval_refuses_with_a_sentence(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_step(tmp_path / "truth", {"a": [(RGB[..., 0] + 20, RGB[..., 1])]})
    disk = ["--truth", str(tmp_path / "truth"), "--predictions", str(tmp_path / "truth")]
    assert main(["eval", "--metric", *options, *disk]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_eval_needs_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--metric", "stq", "--truth", "a"]) == 2
    assert "--metric needs --truth and --predictions" in capsys.readouterr().err
