"""The script for a day with a GPU, as far as it goes without one: every part to its end, and the report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def day(report: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, object]]:
    """The script with tiny sizes on the CPU, and what it reports."""
    script = [str(ROOT / "benchmarks/gpu_day.sh"), "--cpu", "--quick", *options, str(report)]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(["sh", *script], env=environment, capture_output=True, text=True, check=False)
    return done, json.loads(report.read_text()) if report.is_file() else {}


@pytest.mark.heavy
def test_every_part_comes_to_its_end_without_a_gpu(tmp_path: Path) -> None:
    models = "rtknet-lite-street,rt-video-knet-lite-kitti-step"
    done, report = day(tmp_path / "report.json", "--models", models, "--budget", "3000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["device"] == "CPU"
    parts = report["parts"]
    assert isinstance(parts, dict) and list(parts) == ["merges", "models", "steps", "speed", "training"]
    assert all(row["ok"] for rows in parts.values() for row in rows)
    assert [row["model"] for row in parts["models"]] == [row["model"] for row in parts["steps"]] == models.split(",")
    assert any("to a Segmentation" in line for line in parts["speed"][0]["lines"])
    assert [row["iteration"] for row in parts["training"]] == ["1", "2"]
    assert all(f"{part} " in done.stdout for part in parts)


@pytest.mark.heavy
def test_a_part_that_fails_is_told_and_costs_the_others_nothing(tmp_path: Path) -> None:
    done, report = day(tmp_path / "report.json", "--only", "models,merges", "--models", "no-such-model")
    parts = report["parts"]
    assert isinstance(parts, dict)
    assert done.returncode == 1 and "no-such-model" in parts["models"][0]["why"]
    assert len(parts["merges"]) > 5 and all(row["ok"] for row in parts["merges"])
