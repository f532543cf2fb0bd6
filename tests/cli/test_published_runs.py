"""The published configs by name, from a raw download to PQ, as docs/training.md shows."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import knet
from knet.cli.main import main
from knet.config import config_names, load_config

# The recipe with a network and sizes for a test.
SMALL = [
    "batch=2",
    "workers=0",
    "iterations=4",
    "validate_every=2",
    "save_every=2",
    "log_every=1",
    "precision=fp32",
    "arguments={width: 8, head_width: 16, channels: 16, kernels: 12, stages: 2}",
    "augment.short_edges=[64,80]",
    "augment.crop=[48,96]",
    "short_edge=64",
    "max_edge=128",
    "losses.pixels=64",
]
LAYOUTS = {"cityscapes": "rtknet-cityscapes", "mapillary": "rtknet-mapillary"}


@pytest.mark.parametrize("layout", ["cityscapes", pytest.param("mapillary", marks=pytest.mark.large)])
def test_from_the_download_to_pq(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run, config = str(tmp_path / "download"), str(tmp_path / "run"), LAYOUTS[layout]
    assert main(["data", "synth", layout, root, "--images", "4", "--size", "64x128"]) == 0
    assert main(["data", "prepare", layout, root]) == 0
    small = [option for option in SMALL if layout == "cityscapes" or "crop" not in option]
    small += [] if layout == "cityscapes" else ["augment.crop=[64,64]", "augment.pad=[64,64]"]
    assert main(["train", config, f"data.root={root}", f"output={run}", *small]) == 0
    output = capsys.readouterr().out
    assert "is meant for a batch of 32 and is scaled to 2" in output and "iteration 4  pq" in output
    assert main(["train", "--resume", run, "iterations=6"]) == 0
    for name in ("curves.png", "train.csv", "val.csv", "best.safetensors", "pictures/val_0.jpg", "config.yaml"):
        assert (Path(run) / name).is_file(), name
    with (Path(run) / "train.csv").open(newline="") as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == list("123456")
    capsys.readouterr()
    weights = ["--weights", f"{run}/last.safetensors", "--json"]
    assert main(["eval", config, f"data.root={root}", *weights]) == 0
    result = json.loads(capsys.readouterr().out)
    # The ids are those of the data set, not of the network: Cityscapes counts road as 7, Mapillary starts at 1.
    ids = sorted(map(int, result["panoptic"]["classes"]))
    assert ids == (
        [*range(7, 9), *range(11, 14), 17, *range(19, 29), 31, 32, 33] if layout == "cityscapes" else [*range(1, 66)]
    )
    assert result["panoptic"]["all"]["pq"] is not None


ABLATION = {  # Table I of RT-K-Net, from K-Net on: config and options
    "K-Net": ("knet-r50-cityscapes-panoptic", []),
    "mask normalisation": ("knet-r50-cityscapes-panoptic", ["arguments.pooling=mean"]),
    "RTFormer": ("rtknet-cityscapes", ["stuff_kernels=true", "merge=sorted"]),
    "merged kernels": ("rtknet-cityscapes", ["merge=sorted"]),
}


# The first and the last differ in all that the rows between them change one by one.
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[] if row in ("K-Net", "merged kernels") else [pytest.mark.large]) for row in ABLATION],
)
def test_two_iterations_of_every_row_of_the_ablation_give_weights_that_predict(
    row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, options = ABLATION[row]
    root, run = str(tmp_path / "download"), str(tmp_path / "run")
    assert main(["data", "synth", "cityscapes", root, "--images", "2", "--size", "64x128"]) == 0
    assert main(["data", "prepare", "cityscapes", root]) == 0
    small = [option for option in SMALL if "arguments" not in option and "iterations" not in option]
    small += ["iterations=2", "arguments.kernels=12", "arguments.channels=32", "arguments.stages=2"]
    real_time = config.startswith("rtknet")
    small += ["arguments.width=8", "arguments.head_width=16"] if real_time else ["arguments.backbone=timm/resnet10t"]
    assert main(["train", config, f"data.root={root}", f"output={run}", *small, *options]) == 0, capsys.readouterr()
    columns = (Path(run) / "train.csv").read_text().splitlines()[0].split(",")
    assert ("loss_inst_disc" in columns) == (row == "merged kernels")
    segmenter = knet.load(f"{run}/last.safetensors", device="cpu", score=0.0, overlap=0.01)
    assert list(segmenter.net.stuff) == ([] if row == "merged kernels" else list(range(11)))
    assert segmenter.net.decoder.pooling == ("sum" if row == "K-Net" else "mean") and segmenter.merge == "sorted"
    found = segmenter(np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8))
    assert found.segments and found.id_map.shape == (64, 128)


def test_every_published_config_loads_by_name() -> None:
    for name in config_names():
        assert load_config(name).output.name == name or name == "custom"


def test_all_options_can_be_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "rtknet-cityscapes", "batch=8", "--print"]) == 0
    text = capsys.readouterr().out
    path = tmp_path / "shown.yaml"
    path.write_text(text)
    assert "batch: 8" in text and load_config(path) == load_config("rtknet-cityscapes", ["batch=8"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train"], "Give a config"),
        (["train", "rtknet-cityscape"], "There is no config 'rtknet-cityscape'; did you mean 'rtknet-cityscapes'?"),
        (["train", "rtknet-cityscapes", "data.root=nowhere"], "nowhere"),
        (["train", "rtknet-cityscapes", "accumulate=0"], "accumulate"),
        (["train", "rtknet-cityscapes", "parallel=both"], "'parallel'"),
        (["train", "rtknet-cityscapes", "ema=1.5"], "'ema'"),
        (["train", "--resume", "nowhere"], "nowhere/config.yaml"),
        (["data", "prepare", "cityscapes", "nowhere", "--splits", "validation"], "no labelled split 'validation'"),
    ],
)
def test_mistakes_get_one_sentence(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
