"""What a command reads is not overwritten by what it writes, whatever its outputs are called."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, runner
from PIL import Image

from knet.config import RunConfig
from knet.errors import OutputError
from knet.files import atomic_path, keeping
from knet.runs import train


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "labels"):
        Path(folder).mkdir()
        for name in ("a", "a_panoptic"):
            Image.new("L" if folder == "labels" else "RGB", (64, 48)).save(f"{folder}/{name}.png")
    box = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [4, 4, 20, 20], "area": 400}
    box |= {"segmentation": [[4, 4, 24, 4, 24, 24, 4, 24]]}
    rows = [{"id": n + 1, "file_name": f"{name}.png", "height": 48, "width": 64} for n, name in enumerate(("a",))]
    Path("objects.json").write_text(
        json.dumps({"images": rows, "annotations": [box], "categories": [{"id": 1, "name": "box"}]})
    )
    return runner(capsys)


def everything(folder: str = ".") -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_results_beside_the_images(run: Run, tiny_weights: Path) -> None:
    words = ["predict", tiny_weights, "photos", "--formats", "panoptic", "--output", "photos"]
    before = everything()
    status, _, said = run(*words)
    assert status == 1 and "a_panoptic.png' is read by this command" in said
    assert before.items() <= everything().items()
    Path("photos/a_panoptic.png").unlink()
    assert [run(*words)[0], run("predict", tiny_weights, "photos/a.png", *words[3:])[0]] == [0, 0]


def test_the_truth_of_a_data_set_is_not_replaced_by_results(run: Run, tiny_weights: Path) -> None:
    words = ["predict", tiny_weights, "photos/a.png", "--formats", "panoptic", "--output", "val"]
    assert [run(*words)[0], run(*words)[0]] == [0, 0]  # results are
    document = json.loads(Path("val/panoptic.json").read_text())
    document.pop("info")
    Path("val/panoptic.json").write_text(json.dumps(document))
    before = everything()
    status, _, said = run(*words)
    assert status == 2 and "'val/panoptic.json' would be replaced by results" in said and everything() == before


def test_a_model_is_not_converted_onto_itself(run: Run, tiny_weights: Path) -> None:
    shutil.copy(tiny_weights, "x.safetensors")
    Path("y.safetensors").symlink_to("x.safetensors")
    before = everything()
    for source, target in (("x", "x"), ("y", "x"), ("x", "y")):
        names = (f"{source}.safetensors", f"{target}.safetensors")
        status, _, said = run("convert", *names, "--model", "rtknet-slim-camvid", "--half")
        assert status == 2 and "is the source itself" in said and everything() == before


@pytest.mark.parametrize("read", ["photos", "labels", "objects.json"])
def test_overwriting_goes_for_the_output_alone(run: Run, read: str) -> None:
    other = "panoptic.json" if read == "objects.json" else "panoptic"
    Path(read).rename(other)
    names = {name: other if name == read else name for name in ("photos", "labels", "objects.json")}
    before = everything()
    verbs = [
        ["from-labels", "--images", names["photos"], "--labels", names["labels"], "--classes", "camvid"],
        ["from-coco", "--images", names["photos"], "--instances", names["objects.json"]],
    ]
    for words in verbs:
        if other in words:
            status, _, said = run("data", *words, "--output", ".", "--overwrite")
            assert status == 2 and f"{other} is read, and would be overwritten" in said and everything() == before


@pytest.mark.parametrize("name", ["classes.json", "instances.json", "panoptic.json", "panoptic"])
@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_labels_replace_nothing_unasked(run: Run, tiny_weights: Path, name: str, kind: str) -> None:
    Path("out").mkdir()
    place = Path("out", name)
    place.write_text("mine") if kind == "file" else place.symlink_to("nowhere")
    status, _, said = run("data", "label", tiny_weights, "photos", "--output", "out")
    assert status == 2 and f"{place} exists already" in said and [path.name for path in Path("out").iterdir()] == [name]


def test_a_link_to_nothing_makes_way_when_asked(run: Run) -> None:
    Path("panoptic").symlink_to("nowhere")
    words = ["data", "from-labels", "--images", "photos", "--labels", "labels", "--classes", "camvid", "--output", "."]
    assert run(*words)[0] == 2 and run(*words, "--overwrite")[0] == 0
    assert np.array(Image.open("panoptic/a.png")).shape == (48, 64, 3) and not Path("nowhere").exists()


def test_a_page_of_ones_own_is_kept(run: Run, tiny_weights: Path) -> None:
    assert [run("push", tiny_weights, "made")[0] for _ in range(2)] == [0, 0]
    Path("mine").mkdir()
    Path("mine/README.md").write_text("# Mine\n")
    before = everything("mine")
    status, _, said = run("push", tiny_weights, "mine")
    assert status == 1 and "README.md' is not a page of `knet push`" in said and everything("mine") == before


def test_the_config_of_a_run_is_not_written_over_the_one_that_was_given(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starts(config: RunConfig, resume: bool) -> Path:
        with ExitStack() as claim:
            train.open_folder(config, claim)
        return config.output

    monkeypatch.setattr(train, "train", starts)
    assert run("train", "rtknet-slim-camvid", "output=run")[0] == 0
    assert run("train", "run/config.yaml")[0] == 0  # it says the same
    config = Path("run/config.yaml")
    config.write_text(f"# why I chose this\n{config.read_text()}")
    before = everything()
    status, _, said = run("train", config, "seed=7")
    assert status == 1 and "config.yaml' is read by this command" in said and everything() == before
    assert run("train", config, "seed=7", "output=other")[0] == 0


def test_names_of_what_is_read(tmp_path: Path) -> None:
    file, link, other = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"
    file.write_text("mine")
    link.symlink_to(file)
    for read in (file, link):
        with keeping([None, read, "\0"]):
            with pytest.raises(OutputError, match=r"a\.txt' is read"), atomic_path(file):
                raise AssertionError
            with atomic_path(other) as part:
                part.write_text("made")
    with keeping([file], below=tmp_path / "elsewhere"), atomic_path(file) as part:
        part.write_text("made")
    assert file.read_text() == "made"
