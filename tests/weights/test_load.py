"""Weights files: every form that is read, every way that one can be wrong."""

import functools
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import knet
from knet.cli.main import main
from knet.errors import CheckpointError, ConfigError, OutputError
from knet.inference.load import load
from knet.weights.load import read_checkpoint, save_weights

MODEL = "rtknet-slim-cityscapes"
SLIM = "manifest_cityscapes_slim.json"


@pytest.fixture
def official(official_checkpoint: Any) -> Path:
    return official_checkpoint(SLIM, 3)


def test_convert_keeps_the_function_and_says_what_it_is(official: Path, tmp_path: Path, street: Path) -> None:
    target = tmp_path / "slim.safetensors"
    card = knet.convert(official, target, MODEL)
    assert card.model == MODEL
    assert [category.name for category in card.categories][:2] == ["road", "sidewalk"]
    assert read_checkpoint(target).card == card and card.preprocessing.short_edge == 1024
    direct, converted = load(MODEL, weights=official), load(target)
    assert (direct(street, size=64).id_map == converted(street, size=64).id_map).all()
    assert converted.name == MODEL
    assert converted.categories == direct.categories


@pytest.mark.parametrize("wrap", ["plain", "model", "trainer"])
def test_forms_of_a_pickled_checkpoint(wrap: str, official: Path, tmp_path: Path) -> None:
    state = torch.load(official, weights_only=True)["model"]
    content: Any = {"plain": state, "model": {"model": state}}.get(wrap)
    if wrap == "trainer":  # what detectron2's trainer adds: optimiser state and loss scale
        net = torch.nn.Linear(2, 2)
        trainer = {"optimizer": torch.optim.AdamW(net.parameters()).state_dict(), "grad_scaler": {"scale": 65536.0}}
        content = {"model": state, "trainer": {"iteration": 89999, "_trainer": trainer}, "iteration": 89999}
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    assert load(MODEL, weights=path).name == MODEL


def test_openmmlab_checkpoints_in_the_old_and_the_new_format(official_checkpoint: Any, tmp_path: Path) -> None:
    old = official_checkpoint("manifest_det_ins_r50.json", 18, "knet")  # as mmdet's publishing tool writes them
    assert not zipfile.is_zipfile(old)
    new, training = tmp_path / "new.pth", tmp_path / "training.pth"
    content = torch.load(old, weights_only=True)
    torch.save(content, new)
    parameters = [torch.nn.Parameter(torch.zeros(2))]
    torch.save({**content, "optimizer": torch.optim.AdamW(parameters).state_dict()}, training)
    states = [read_checkpoint(path).state for path in (old, new, training)]
    assert states[0].keys() == knet.create("knet-r50-coco-instance").state_dict().keys()
    for state in states[1:]:
        assert all(torch.equal(tensor, states[0][key]) for key, tensor in state.items())
    knet.convert(old, tmp_path / "knet.safetensors", "knet-r50-coco-instance")
    converted = read_checkpoint(tmp_path / "knet.safetensors")
    assert converted.state.keys() == states[0].keys()
    assert converted.card is not None and len(converted.card.categories) == 80


def test_weights_of_another_task_are_refused(official_checkpoint: Any) -> None:
    instance = official_checkpoint("manifest_det_ins_r50.json", 18, "knet")
    with pytest.raises(CheckpointError, match=r"They fit: knet-r50-coco-instance\.") as error:
        load("knet-r50-coco-panoptic", weights=instance)
    assert "shape: semantic.bias is 80, the model needs 133" in str(error.value)


def test_weights_of_narrow_networks_say_which_model_they_fit_and_are_converted(
    official_checkpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = official_checkpoint("manifest_seg_upernet_swint_c256.json", 5, "knet")  # as K-Net's repository makes them
    target = str(tmp_path / "narrow.safetensors")
    command = ["convert", str(narrow), target, "--model", "knet-upernet-swint-ade20k"]
    assert main(command) == 2
    assert "They fit: knet-upernet-swint-ade20k with channels=256." in capsys.readouterr().err
    assert main([*command, "channels=256"]) == 0
    assert load(target).net.neck.fuse[0].out_channels == 256
    assert main(["convert", target, str(tmp_path / "again.safetensors"), *command[3:], "channels=256"]) == 2
    assert "say themselves how their model was made; leave channels out" in capsys.readouterr().err
    assert main([*command, "classes=3"]) == 2
    assert "leave classes and stuff out" in capsys.readouterr().err
    assert main([*command, "channels=one"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_both_namings_of_a_swin_backbone_are_the_same_weights(official_checkpoint: Any, tmp_path: Path) -> None:
    openmmlab = official_checkpoint("manifest_seg_upernet_swint_c256.json", 5, "knet")
    first = {}  # as K-Net's semantic training code would have saved it, with the backbone of the first Swin code
    for key, tensor in torch.load(openmmlab, weights_only=True)["state_dict"].items():
        if ".downsample." in key:  # four cells of C channels: from C, row, column to column, row, C
            tensor = tensor.unflatten(-1, (-1, 2, 2)).transpose(-1, -3).flatten(-3)
        if key.startswith("backbone."):
            for old, new in ((".stages.", ".layers."), (".w_msa.", "."), (".ffn.layers.0.0.", ".mlp.fc1.")):
                key = key.replace(old, new)
            key = key.replace(".ffn.layers.1.", ".mlp.fc2.").replace(".projection.", ".proj.")
        first[key] = tensor
    torch.save({"state_dict": first}, tmp_path / "first.pth")
    ours, theirs = read_checkpoint(tmp_path / "first.pth").state, read_checkpoint(openmmlab).state
    assert ours.keys() == theirs.keys() and first.keys() != theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_weights_of_other_classes_say_which_models_they_fit(tmp_path: Path) -> None:
    state = knet.create("knet-r50-coco-instance", classes=3, kernels=20, stages=1).state_dict()
    path = tmp_path / "own.pth"
    torch.save(state, path)
    fits = r"They fit: knet-r50-cityscapes-panoptic with kernels=20 classes=3 stages=1, .*knet-r50-coco-instance with"
    with pytest.raises(CheckpointError, match=fits):
        load("knet-r50-coco-instance", weights=path)


def test_every_tensor_that_does_not_fit_is_listed(official: Path, tmp_path: Path) -> None:
    content = torch.load(official, weights_only=True)
    state = content["model"]
    del state["backbone.conv1.0.bias"]
    state["backbone.extra.weight"] = torch.zeros(1)
    state["sem_seg_head.heads.0.fc_cls.3.bias"] = torch.zeros(7)
    path = tmp_path / "broken.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError) as error:
        load(MODEL, weights=path)
    text = str(error.value)
    assert str(path) in text
    assert "1 tensors missing, 1 unexpected, 1 of another shape. They fit none of `knet models`." in text
    assert "missing: backbone.stem.0.bias" in text
    assert "unexpected: backbone.extra.weight" in text
    assert "shape: decoder.stages.0.to_class.3.bias is 7, the model needs 19" in text


def test_weights_of_another_model_are_refused(official: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"do not fit this model.* They fit: {MODEL}"):
        load("rtknet-cityscapes", weights=official)
    knet.convert(official, tmp_path / "slim.safetensors", MODEL)
    with pytest.raises(CheckpointError, match=f"made for '{MODEL}', not for 'rtknet-cityscapes'"):
        load("rtknet-cityscapes", weights=tmp_path / "slim.safetensors")


class _Attack:
    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.proof}",)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "was_run"
    writers = (
        torch.save,
        functools.partial(torch.save, _use_new_zipfile_serialization=False),
        lambda content, path: path.write_bytes(pickle.dumps(content, 2)),
    )
    for number, save in enumerate(writers):
        path = tmp_path / f"attack{number}.pth"
        save({"model": _Attack(proof)}, path)
        with pytest.raises(CheckpointError, match="could run code") as error:
            load(MODEL, weights=path)
        assert str(path) in str(error.value)
        assert "weights_only" not in str(error.value)  # no advice to switch the safety off
    assert not proof.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("kind", ["pth", "old pth", "safetensors"])
def test_truncated_and_empty_files(share: float, kind: str, official: Path, tmp_path: Path) -> None:
    whole, ending = official, kind.split()[-1]
    if kind == "old pth":
        whole = tmp_path / "whole.pth"
        torch.save(torch.load(official, weights_only=True), whole, _use_new_zipfile_serialization=False)
    if kind == "safetensors":
        whole = tmp_path / "whole.safetensors"
        knet.convert(official, whole, MODEL)
    data = whole.read_bytes()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=r"cut\.") as error:
        load(MODEL, weights=path)
    assert "\n" not in str(error.value)


def test_garbage_and_things_that_are_no_state_dict(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"this is not a checkpoint" * 100)
    text = tmp_path / "text.safetensors"
    text.write_text("neither is this")
    numbers = tmp_path / "numbers.pth"
    torch.save({"epoch": 3}, numbers)
    listed = tmp_path / "list.pth"
    torch.save([torch.zeros(2)], listed)
    for path in (garbage, text, numbers, listed):
        with pytest.raises(CheckpointError, match=path.stem):
            load(MODEL, weights=path)


@pytest.mark.filterwarnings("ignore")  # of PyTorch's about nested tensors
def test_tables_of_other_keys_or_values_are_no_state_dict(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    one = torch.zeros(1)
    for number, state in enumerate([{1: one}, {b"a": one}, {("a", 1): one}, {"a": nested}]):
        torch.save(state, tmp_path / f"{number}.pth")
        with pytest.raises(CheckpointError, match="holds no state dict"):
            load(MODEL, weights=tmp_path / f"{number}.pth")
    torch.save({"\ud800": one}, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match="They fit none"):
        load(MODEL, weights=tmp_path / "half.pth")


def test_a_message_does_not_list_tensors_without_end(tmp_path: Path) -> None:
    torch.save({f"x{n}": torch.zeros(1) for n in range(5000)}, tmp_path / "many.pth")
    with pytest.raises(CheckpointError, match="unexpected: and 3,000 more") as error:
        load(MODEL, weights=tmp_path / "many.pth")
    assert str(error.value).count("\n") < 3000


def test_missing_files_and_missing_names(tmp_path: Path, official: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no weights file"):
        load(MODEL, weights=tmp_path / "nowhere.pth")
    with pytest.raises(ConfigError, match="no published weights"):
        load("rtknet-slim-cityscapes")
    with pytest.raises(ConfigError, match="did you mean 'rtknet-cityscapes'"):
        load("rtknet-cityscape", weights=official)
    with pytest.raises(CheckpointError, match="does not say which model"):
        load(official)
    with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
        knet.convert(official, tmp_path / "out.pth", MODEL)


def test_devices_and_precisions_that_do_not_exist(official: Path) -> None:
    with pytest.raises(ConfigError, match="device 'quantum'"):
        load(MODEL, weights=official, device="quantum")
    with pytest.raises(ConfigError, match="precision 'fp4'"):
        load(MODEL, weights=official, precision="fp4")
    with pytest.raises(ConfigError, match=r"score threshold 1\.5"):
        load(MODEL, weights=official, score=1.5)


def test_weights_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Cannot write"):
        save_weights(tmp_path / "file" / "w.safetensors", {"a": torch.zeros(1)})


def test_half_the_size_and_still_float32_in_use(official: Path, tmp_path: Path) -> None:
    knet.convert(official, tmp_path / "whole.safetensors", MODEL)
    knet.convert(official, tmp_path / "half.safetensors", MODEL, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.55 * (tmp_path / "whole.safetensors").stat().st_size
    whole, half = (load(tmp_path / f"{name}.safetensors").net.state_dict() for name in ("whole", "half"))
    for key, tensor in whole.items():
        assert half[key].dtype == tensor.dtype
        assert torch.allclose(half[key], tensor, rtol=1e-3, atol=1e-6), key


def test_metadata_is_json_that_others_can_read(official: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    knet.convert(official, tmp_path / "w.safetensors", MODEL)
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        card = json.loads(file.metadata()["knet"])
    assert card["format"] == 1
    assert card["overlap"] == 0.6
