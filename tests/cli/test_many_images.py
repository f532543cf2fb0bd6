"""Runs over many images: killed and resumed, in parts, with images that cannot be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import Run, runner
from PIL import Image

from knet.inference.results.journal import Journal
from knet.inference.results.predictions import PredictionWriter
from knet.inference.segmenter import Segmenter
from knet.inference.sources.plan import ImagePlan

FORMATS = ("--formats", "json,panoptic,cvat,labelstudio")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    Path("photos/more").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("1.png", "2.png", "3.png", "10.png", "3.jpg", "more/2.png"):
        Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(f"photos/{name}")
    return partial(runner(capsys), "predict")


def content(folder: str) -> dict[str, bytes]:
    """All results by their names: everything but the journal."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def killed_after(images: int, *arguments: object) -> None:
    """Runs `knet predict` in a process that is killed in the middle of writing the results of the next image."""
    code = (
        "import os, signal, sys\n"
        "from knet.inference.results.predictions import PredictionWriter\n"
        "from knet.inference.results import writers\n"
        "whole, written = PredictionWriter.write, 0\n"
        "def write(self, *details):\n"
        "    global written\n"
        f"    if written == {images}:\n"
        "        writers.panoptic_entries = lambda *rest: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    written += 1\n"
        "    return whole(self, *details)\n"
        "PredictionWriter.write = write\n"
        "from knet.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "predict", *map(str, arguments)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that the network sees."""
    names: list[str] = []
    whole: Callable[..., object] = Segmenter.segment

    def segment(self: Segmenter, image: object, name: str, **options: object) -> object:
        names.append(name)
        return whole(self, image, name, **options)

    monkeypatch.setattr(Segmenter, "segment", segment)
    return names


def test_a_killed_run_goes_on_where_it_was(run: Run, tiny_weights: Path, segmented: list[str]) -> None:
    what = (tiny_weights, "photos", *FORMATS)
    assert run(*what, "--output", "whole")[0] == 0
    assert not list(Path("whole").glob(".*"))  # nothing is left to do, so nothing has to be known
    segmented.clear()
    killed_after(2, *what, "--output", "out")
    journal = Path("out/.knet-predict.jsonl")
    with journal.open("ab") as file:
        file.write(b'{"at": 3, "image": "photos/3.p')  # as a kill in the middle of a line leaves it
    status, out, err = run(*what, "--output", "out", "--resume")
    assert (status, err) == (0, "") and "2 images done before, 3 left" in out
    assert sorted(segmented) == ["10", "3", "3"]
    assert content("out") == content("whole")
    segmented.clear()
    status, out, _ = run(*what, "--output", "out", "--resume")
    assert status == 0 and "5 images done before, 0 left" in out and not segmented
    assert content("out") == content("whole")


def test_what_changed_is_done_again(run: Run, tiny_weights: Path, segmented: list[str]) -> None:
    what = (tiny_weights, "photos", *FORMATS, "--output", "out", "--resume")
    assert run(*what)[0] == 0
    segmented.clear()
    Path("out/1_segments.json").unlink()
    Image.open("photos/2.png").rotate(180).save("photos/2.png")
    Image.open("photos/2.png").save("photos/0.png")
    Image.open("photos/2.png").save("photos/3.bmp")  # before 3.jpg, which therefore has another name
    assert run(*what)[0] == 0
    assert sorted(segmented) == ["0", "1", "2", "3", "3", "3"]
    done = content("out")
    assert run(tiny_weights, "photos", *FORMATS, "--output", "anew")[0] == 0
    assert done == content("anew")


def test_other_options_are_no_run_to_resume(run: Run, tiny_weights: Path) -> None:
    what = (tiny_weights, "photos/1.png", "--output", "out", "--resume")
    assert run(*what, *FORMATS)[0] == 0
    for other in (("--score", "0.9", *FORMATS), ("--formats", "json"), ("--size", "image", *FORMATS)):
        status, _, err = run(*what, *other)
        assert status == 2 and "'out' were made with" in err and "give the same options" in err
        assert other[0].lstrip("-") in err
    for other in (("--track",), ("--formats", "video"), ("--every", "2")):
        status, _, err = run(*what, *other)
        assert status == 2 and "--resume and --shard are for runs over images" in err
    with Journal("out", ImagePlan(["a.png"]), {}):
        status, _, err = run(*what, *FORMATS)
        assert status == 2 and "Another process still writes" in err
        assert run(*what[:-1], *FORMATS)[0] == 0  # one that need not be resumed does not mind


def test_parts_give_what_one_process_gives(run: Run, tiny_weights: Path) -> None:
    what = (tiny_weights, "photos", "photos/more", "--formats", "json,panoptic")
    assert run(*what, "--output", "whole")[0] == 0
    for part in ("2/3", "3/3", "1/3"):
        assert not Path("out/panoptic.json").exists()
        assert run(*what, "--output", "out", "--shard", part)[0] == 0
    assert content("out") == content("whole") and len(content("out")) == 2 * 6 + 1
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0"):
        status, _, err = run(*what, "--shard", wrong)
        assert status == 2 and "1/8" in err


def test_rows_are_put_together_in_the_order_of_the_plan(tmp_path: Path) -> None:
    plan, seen = ImagePlan(["a/x.png", "b/x.png"]), list[object]()
    with Journal(tmp_path, plan, {}) as journal:
        writer = PredictionWriter(tmp_path, ["panoptic"], (), plan=plan, journal=journal)
        writer._results.add_rows = lambda *rows: seen.append(rows)  # type: ignore[method-assign]
        journal.add(1, [], [["second", 2]])
        journal.add(0, [], [["first", 1]])
        journal.end(clean=True)
        writer.close()
    assert seen == [("first", 1), ("second", 2)] and [plan.name(place) for place in (0, 1)] == ["x", "x_2"]


def test_what_fails_is_listed_in_a_file_and_tried_again(run: Run, tiny_weights: Path, segmented: list[str]) -> None:
    broken = [f"photos/bad_{number}.png" for number in range(25)]
    for path in broken:
        Path(path).write_bytes(b"no picture")
    what = (tiny_weights, "photos", *FORMATS, "--output", "out")
    status, out, err = run(*what)
    assert status == 2 and "25 failed, see out/failed_images.txt" in out
    assert len(err.splitlines()) == 21 and "and 5 images more" in err
    listed = [line.split("\t") for line in Path("out/failed_images.txt").read_text().splitlines()]
    assert sorted(path for path, _ in listed) == sorted(broken) and "not an image" in listed[0][1]
    for path in broken:
        Path(path).unlink()
    Image.open("photos/1.png").save(broken[0])
    segmented.clear()
    status, out, err = run(*what, "--resume")
    assert (status, err, segmented) == (0, "", ["bad_0"]) and not Path("out/failed_images.txt").exists()
    assert len(json.loads(Path("out/panoptic.json").read_text())["images"]) == 6


def test_a_plan_of_many_images_is_small() -> None:
    paths = [f"/data/photos/camera_{n % 7}/image_{n:08d}.jpg" for n in range(20_000)]
    plan = ImagePlan(paths)
    assert not plan._numbered and plan.name(19_999) == "image_00019999"
    twice = ImagePlan([*paths, *(path.replace("camera", "other") for path in paths)])
    assert len(twice._numbered) == 20_000 and twice.name(20_000) == "image_00000000_2"


def test_a_stopped_run_says_that_it_can_go_on(run: Run, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, written = PredictionWriter.write, list[int]()

    def write(self: PredictionWriter, *details: object) -> None:
        whole(self, *details)  # type: ignore[arg-type]
        written.append(1)
        if len(written) == 1:
            os.kill(os.getpid(), 15)

    monkeypatch.setattr(PredictionWriter, "write", write)
    status, _, err = run(tiny_weights, "photos", *FORMATS, "--output", "out")
    assert status == 143 and "with --resume it goes on" in err and Path("out/panoptic_unfinished.json").exists()
    monkeypatch.setattr(PredictionWriter, "write", whole)
    assert run(tiny_weights, "photos", *FORMATS, "--output", "out", "--resume")[0] == 0
    assert (
        not Path("out/panoptic_unfinished.json").exists() and len(content("out")) == 2 * 5 + 4
    )  # and four about all images
