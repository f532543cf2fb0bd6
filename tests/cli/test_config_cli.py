"""knet config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from knet.cli.main import main
from knet.config import RunConfig, config_names, read_config


def test_a_published_config_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "rtknet-lite-street"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("#") and yaml.safe_load(text)["model"] == "rtknet-lite-street"
    assert main(["config"]) == 0
    assert capsys.readouterr().out.split() == config_names()


def test_an_unknown_name_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "rtknet-lite-stret"]) == 2
    assert "did you mean 'rtknet-lite-street'?" in capsys.readouterr().err


def test_the_schema_knows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--schema"]) == 0
    assert set(json.loads(capsys.readouterr().out)["properties"]) == set(RunConfig.model_fields)


def test_paths_of_the_documents_work_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_config("configs/rtknet-cityscapes.yaml").model == "rtknet-cityscapes"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "rtknet-cityscapes.yaml").write_text(
        "model: rtknet-mapillary\ndata: {val: {json: x.json}}\n"
    )
    assert read_config("configs/rtknet-cityscapes.yaml").model == "rtknet-mapillary"
