"""What commands say: whole addresses, one image, help that lists what it points at, documents that are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import knet
from knet.cli.main import build_parser, main
from knet.data.categories import category_tables
from knet.errors import ConfigError, KNetError, counted
from knet.inference.load import choose_device

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("address", ["https://host/...", "rtsp://host", "s3://bucket/..."])
def test_an_address_that_was_taken_for_a_path_keeps_its_slashes(address: str) -> None:
    place = Path(address.replace("...", "model.safetensors"))
    assert address in str(KNetError(f"There is no file '{place}'."))
    assert str(KNetError("C:/data, file:/a/b and images:/a")) == "C:/data, file:/a/b and images:/a"


def test_the_address_of_an_exported_file_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNET_OFFLINE", "1")
    monkeypatch.chdir(ROOT)
    for arguments in (
        ["predict", "https://host/m.onnx", "docs/street.jpg"],
        ["bench", "https://host/m.onnx?download=1"],
    ):
        assert main(arguments) == 1
    with pytest.raises(KNetError, match=r"'[0-9a-f]{8}-m\.onnx' is not in"):
        knet.load("https://host/m.onnx")
    with pytest.raises(ConfigError, match=r"format openvino is more than one file, .*'https://host/.*an \.onnx file"):
        knet.load("https://host/m.xml")


@pytest.mark.parametrize("device", ["mps", "privateuseone", "xpu", "hpu", "nonsense"])
def test_a_device_that_is_not_here_is_one_sentence(device: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used here \(.+\); try 'auto' or 'cpu'") as error:
        choose_device(device)
    assert len(str(error.value)) < 300


def test_the_help_of_data_lists_the_class_tables(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["data", "--help"])
    listed = re.search(r"class tables:\s+(.*?)\n\n", capsys.readouterr().out, re.DOTALL)
    assert listed and re.findall(r"\w+", listed[1]) == category_tables()


def test_one_thing_has_no_plural() -> None:
    assert [counted(count, "image") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    said = [path for path in (ROOT / "src" / "knet").rglob("*.py") if re.search(PLURAL, path.read_text())]
    assert not said


PLURAL = r"print\(.*\{[^{}\"]*(?:count|images|done|rounds)\} images"


def test_the_models_of_the_readme_are_those_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    printed = capsys.readouterr().out.splitlines()
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        shown = re.findall(r"^[\w-]+ +\w+ +[\d.]+ M +[\d.]+ +\d+x.*", document.read_text(), re.MULTILINE)
        assert not [line for line in shown if line not in printed], document
        assert shown or document.name != "README.md"
