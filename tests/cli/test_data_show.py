"""knet data show as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from knet.cli.main import main
from knet.config import load_config
from knet.data.readers.open import open_data
from knet.data.samples.batches import BatchPlan, TrainingSet, load_batches
from knet.inference.results.samples import GAP
from knet.runs.samples import augmentation_of


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of eight synthetic streets for training and two for validation."""
    folder = tmp_path_factory.mktemp("show")
    root = folder / "streets"
    assert main(["data", "synth", "cityscapes", str(root), "--images", "8", "--size", "48x96", "--seed", "3"]) == 0
    assert main(["data", "prepare", "cityscapes", str(root)]) == 0
    files = {
        split: {
            "images": f"leftImg8bit/{split}",
            "json": f"gtFine/cityscapes_panoptic_{split}.json",
            "masks": f"gtFine/cityscapes_panoptic_{split}",
        }
        for split in ("train", "val")
    }
    table = {
        "model": "rtknet-slim-cityscapes",
        "data": {"root": str(root), "categories": "cityscapes", **files},
        "augment": {"short_edges": [32, 48, 64], "crop": [32, 48]},
        "batch": 2,
        "seed": 5,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(table))
    return path


def left(path: Path, width: int) -> np.ndarray:
    """The plain image of a picture of `knet data show`."""
    with Image.open(path) as file:
        assert file.size[0] == 2 * width + GAP
        return np.asarray(file)[:, :width].astype(int)


def test_the_first_samples_of_the_run(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["data", "show", str(config), "--output", str(out), "--count", "5", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) == 5
    run = load_config(config)
    reader = open_data(run.data, run.data.train)
    plan = BatchPlan(len(reader), run.batch, run.seed)
    batches = load_batches(TrainingSet(reader, augmentation_of(run), run.seed), plan)
    seen = [
        pair for _ in range(3) for batch in [next(batches)] for pair in zip(batch.images, batch.targets, strict=True)
    ]
    for row, (image, target) in zip(listed, seen, strict=False):
        assert (row["height"], row["width"]) == tuple(image.shape[1:])
        assert sum(row["classes"].values()) == len(target.labels)
        assert row["void"] == pytest.approx(float((target.id_map == 0).float().mean()))
        difference = left(out / row["file"], row["width"]) - image.permute(1, 2, 0).numpy()
        assert np.abs(difference).mean() < 6  # JPEG
    page = (out / "index.html").read_text()
    assert all(row["file"] in page and row["name"] in page for row in listed)
    assert sorted(path.name for path in out.iterdir()) == sorted([*(row["file"] for row in listed), "index.html"])


def test_seeds_and_overrides(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def show(name: str, *more: str) -> list[tuple[str, bytes]]:
        assert main(["data", "show", str(config), *more, "--output", str(tmp_path / name), "--count", "3"]) == 0
        return [(path.name, path.read_bytes()) for path in sorted((tmp_path / name).glob("*.jpg"))]

    assert show("a") == show("b") == show("c", "--seed", "5") == show("d", "seed=5")
    assert show("a2", "--seed", "6") != show("a3")
    capsys.readouterr()
    show("e", "augment.crop=[16, 24]")
    assert capsys.readouterr().out.startswith("24x16 pixels, ")


def test_validation_images_as_they_are(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["data", "show", str(config), "augment=null", "--split", "val", "--output", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^96x48 pixels, \d+\.\d% void$", printed, re.MULTILINE)
    assert re.search(r"^segments: .*\broad 2\b", printed, re.MULTILINE)
    assert printed.splitlines()[-1].startswith("2 samples of 2 images, for validation, as they are: ")
    run = load_config(config)
    reader = open_data(run.data, run.data.val)
    for number, path in enumerate(sorted(out.glob("*.jpg"))):
        assert np.abs(left(path, 96) - reader.read(number).image).mean() < 6
    assert main([*arguments, "--overwrite", "--count", "1"]) == 0
    assert (out / "index.html").read_text().count("<figure>") == 1


MISTAKES = {
    "no augment": (["augment=null"], "has no 'augment'"),
    "no training data": (["data.train=null"], "no 'data.train'"),
    "unknown option": (["augment.crops=3"], "did you mean 'crop'"),
    "nothing to show": (["--count", "0"], "--count 0 is no number of samples"),
    "negative seed": (["--seed", "-1"], "'seed'"),
    "seed of validation": (["--split", "val", "--seed", "1"], "--seed is for --split train"),
    "no data": (["data.root=nowhere"], "nowhere"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more, sentence = MISTAKES[mistake]
    assert main(["data", "show", str(config), *more, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.startswith("knet: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_not_empty_is_kept(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    for output in (tmp_path, tmp_path / "precious.txt"):
        assert main(["data", "show", str(config), "--output", str(output)]) == 2
        assert "--overwrite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_an_unknown_split(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["data", "show", str(config), "--split", "test", "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "invalid choice: 'test'" in capsys.readouterr().err
