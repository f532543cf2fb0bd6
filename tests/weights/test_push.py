"""A model folder with its page, read back from a path and from the hub; and weights from ImageNet by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import knet
from knet.cli.main import main
from knet.errors import ConfigError, DownloadError, OutputError
from knet.inference.push import page, push
from knet.models.backbones.named import named_backbone
from knet.weights import imagenet
from knet.weights.fetch import local
from tiny_models import tiny_file


class Hub:
    """The hub as a folder."""

    root: Path
    full = False

    def create_repo(self, repository: str, exist_ok: bool) -> None:
        assert exist_ok
        (self.root / repository).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, repo_id: str, folder_path: str) -> None:
        if self.full:
            raise OSError("401 Client Error: you have to log in\nand more")
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    import huggingface_hub

    def download(repository: str, file: str, **_: Any) -> str:
        return str(Hub.root / repository / file)

    monkeypatch.setattr(Hub, "root", tmp_path / "hub", raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return Hub


def test_a_folder_goes_there_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tiny_file("panoptic", tmp_path)
    assert main(["push", str(file), "shared/yard", "--licence", "CC BY 4.0"]) == 0
    assert capsys.readouterr().out.endswith("use it with: knet predict shared/yard IMAGE\n")
    assert sorted(path.name for path in Path("shared/yard").iterdir()) == ["README.md", "model.safetensors"]
    before, after = knet.load(file, device="cpu"), knet.load("shared/yard", device="cpu")
    assert after.card == before.card and before.net is not None and after.net is not None
    assert all(torch.equal(a, b) for a, b in zip(before.net.parameters(), after.net.parameters(), strict=True))
    text = Path("shared/yard/README.md").read_text()
    assert 'license_name: "CC BY 4.0"' in text and "| 1 | Sky | stuff |" in text and "short side of 64" in text
    assert local("shared/yard") == Path("shared/yard/model.safetensors")


def test_the_hub_gives_back_what_it_was_given(hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tiny_file("panoptic", tmp_path)
    card, place = push(file, "hf:me/yard")
    assert place == "hf:me/yard" and knet.load(place, device="cpu").card == card
    monkeypatch.setattr(hub, "full", True)
    with pytest.raises(OutputError, match=r"did not take 'hf:me/yard' \(401 Client Error: you have to log in\)"):
        push(file, "hf:me/yard")
    for wrong in ("hf:alone", "hf:me/yard/model.safetensors", "https://host/folder"):
        with pytest.raises(ConfigError, match="is not of the form hf:owner/repository; give that, or a folder"):
            push(file, wrong)


def test_a_page_tells_what_is_known(tmp_path: Path) -> None:
    _, card = knet.inference.load.read_model(tiny_file("panoptic", tmp_path))
    trained = card.model_copy(update={"more": {"training": {"val": {"pq": 0.5471, "note": None}}}})
    assert "| pq | 54.7 |" in page(trained, "mine")
    assert "## Figures" not in page(card, "mine")
    push("rtknet-lite-street", tmp_path / "street")
    assert "## Licence\n\nfor non-commercial use only" in (tmp_path / "street" / "README.md").read_text()


def test_weights_from_imagenet_by_the_name_of_the_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(imagenet, "fetch", lambda url, sha: asked.append((Path(url).name, sha)) or tmp_path)
    monkeypatch.setattr(imagenet, "local", lambda place: asked.append((place, "")) or tmp_path)
    for name in ("r50", "r101", "timm/resnet10t"):
        imagenet.imagenet_file(named_backbone(name))
    with torch.device("meta"):
        imagenet.imagenet_file(named_backbone("swint"))
    names = [name for name, _ in asked]
    assert [name.partition("-")[0] for name in names[:2]] == ["resnet50", "resnet101"]
    assert all(len(sha) == 8 and sha in name for name, sha in asked[:2])
    assert names[2].startswith("hf:timm/resnet10t.") and names[3].startswith("hf:timm/swin_tiny_patch4_window7_224.")
    for backbone in (named_backbone("r50-deep"), nn.Identity()):
        with pytest.raises(ConfigError, match="no weights from ImageNet by name for this backbone; give their file"):
            imagenet.imagenet_file(backbone)


def test_weights_from_imagenet_without_the_net(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KNET_OFFLINE", "1")
    monkeypatch.setenv("KNET_HOME", str(tmp_path))
    with pytest.raises(DownloadError, match=r"resnet50-.* is not in .*KNET_OFFLINE or --offline forbids the net"):
        imagenet.imagenet_file(named_backbone("r50"))
    with pytest.raises(DownloadError, match=r"'hf:timm/resnet10t.*' is not on this machine, and KNET_OFFLINE"):
        imagenet.imagenet_file(named_backbone("timm/resnet10t"))
