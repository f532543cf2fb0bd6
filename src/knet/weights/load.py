"""Weights files: read safely, matched strictly, written with everything that is needed to use them."""

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from knet.errors import CheckpointError, no_weights_file
from knet.files import atomic_path, is_file, open_plain
from knet.weights import openmmlab, openmmlab_semantic, rtknet, video_knet
from knet.weights.card import METADATA_KEY, Card

# How a key starts that only files of one official code have, and what translates such a file. The first that fits: a
# Video K-Net has the keys of a K-Net as well.
_OFFICIAL: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "sem_seg_head.feature_map_generator.": rtknet.translate,
    "track_head.fc_embed.": video_knet.translate_video,
    "roi_head.mask_head.0.kernel_update_conv.": openmmlab.translate_image,
    "decode_head.kernel_update_head.0.": openmmlab_semantic.translate_semantic,
}

_MOST = 2000  # tensors of a list; the largest network here has some 1,100


@dataclass(slots=True)
class Checkpoint:
    """A weights file in memory: the tensors, and the card that `knet` wrote beside them, None in files of others.

    Files of OpenMMLab may say the names of their classes instead.
    """

    state: dict[str, Tensor]
    card: Card | None = None
    classes: tuple[str, ...] = ()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a file of weights. Nothing in the file is ever executed.

    Reads `knet`'s own .safetensors and pickled PyTorch files (.pth, .pt) of the present and the old form: plain state
    dicts, and the official forms of RT-K-Net ({"model": {...}, ...}), of OpenMMLab's K-Net and of Video K-Net
    ({"state_dict": {...}, ...}), whose keys are translated to ours.

    Raises:
        CheckpointError: missing, empty, damaged, no tensors or more than tensors and plain values, or a faulty card.
    """
    path = Path(path)
    if not is_file(path):
        raise no_weights_file(path)
    if path.stat().st_size == 0:
        raise CheckpointError(f"The weights file '{path}' is empty; download or copy it again.")
    checkpoint = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_pickle(path)
    for start, translate in _OFFICIAL.items():
        if any(key.startswith(start) for key in checkpoint.state):
            checkpoint.state = translate(checkpoint.state)
            break
    return checkpoint


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        open_plain(path).close()  # else the reason that the system has is lost
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            card = None if text is None else Card.read(text, str(path))
            return Checkpoint({key: file.get_tensor(key) for key in file.keys()}, card)  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"The weights file '{path}' is not a whole .safetensors file ({error}); download or copy it again."
        ) from error


def _read_pickle(path: Path) -> Checkpoint:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)|type (?:<class )?'?([\w.]+)", str(error))
        what = f"'{forbidden[1] or forbidden[2]}'" if forbidden else "something else than tensors"
        raise CheckpointError(
            f"The weights file '{path}' is damaged or holds {what}; it was not loaded, since it could run code. Get "
            "the file from a source you trust, or save its state dict alone."
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"The weights file '{path}' is not a whole PyTorch file ({reason}); download or copy it again."
        ) from error
    state = content.get("state_dict", content.get("model", content)) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(_is_named_tensor(*item) for item in state.items()):
        raise CheckpointError(
            f"The weights file '{path}' holds no state dict (a table of tensors, alone or under 'model' or "
            "'state_dict'); give the file that the training program saved."
        )
    return Checkpoint(state, classes=_class_names(content.get("meta")))


def _is_named_tensor(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor) and not value.is_nested


def _class_names(meta: Any) -> tuple[str, ...]:
    """The classes that the `meta` of an OpenMMLab file lists, of its old form or of its new one."""
    table = meta if isinstance(meta, dict) else {}
    inner = table.get("dataset_meta")
    inner = inner if isinstance(inner, dict) else {}
    listed = next((names for names in (inner.get("classes"), inner.get("CLASSES"), table.get("CLASSES")) if names), ())
    sound = isinstance(listed, list | tuple) and all(isinstance(name, str) and name.strip() for name in listed)
    return tuple(listed) if sound else ()


def load_strict(
    net: nn.Module,
    state: dict[str, Tensor],
    origin: str,
    advice: Callable[[], str] = lambda: "Choose the model they were made for.",
) -> None:
    """Puts weights under our names into a network, in place; every tensor must fit.

    Args:
        net: on the device "meta", which has no memory, it is compared only.
        origin: the file, for errors.
        advice: gives the sentence that says what to do; asked for only if they do not fit.

    Raises:
        CheckpointError: lists the missing, unexpected and wrongly shaped tensors, or names one that is not finite.
    """
    expected = net.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    shapes = [
        f"{key} is {_shape(state[key])}, the model needs {_shape(expected[key])}"
        for key in sorted(expected.keys() & state.keys())
        if state[key].shape != expected[key].shape
    ]
    if missing or unexpected or shapes:
        lines = [
            f"The weights in '{origin}' do not fit this model: {len(missing)} tensors missing, "
            f"{len(unexpected)} unexpected, {len(shapes)} of another shape. {advice()}"
        ]
        for title, names in (("missing", missing), ("unexpected", unexpected), ("shape", shapes)):
            lines += [f"  {title}: {name}" for name in names[:_MOST]]
            lines += [f"  {title}: and {len(names) - _MOST:,} more"] if len(names) > _MOST else []
        raise CheckpointError("\n".join(lines))
    if not any(tensor.is_meta for tensor in expected.values()):
        require_finite_weights(state, origin)
        net.load_state_dict(state)


def require_finite_weights(state: dict[str, Tensor], origin: str) -> None:
    """Raises `CheckpointError`, with the first tensor that holds anything but finite numbers; see `load_strict`."""
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            raise CheckpointError(
                f"The tensor '{key}' of the weights in '{origin}' is sparse, quantised, complex or empty; save them as "
                "plain tensors."
            )
        values = tensor.float()
        # A sum is finite only if all its numbers are, and reads them once; where it is too large, each is looked at.
        if not values.sum().isfinite() and not (finite := values.isfinite()).all():
            raise CheckpointError(
                f"The tensor '{key}' of the weights in '{origin}' is not finite: {int((~finite).sum())} of its "
                f"{values.numel()} numbers are NaN or infinity; take weights from before the training broke."
            )


def halved(state: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """The weights with matrices and filters in float16. Raises `CheckpointError` for numbers too large for it."""
    halves = {key: tensor.half() if tensor.ndim > 1 else tensor for key, tensor in state.items()}
    for key, tensor in halves.items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"The tensor '{key}' of the weights in '{origin}' has numbers above 65,504, too large for float16; "
                "leave half (--half) out."
            )
    return halves


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def save_weights(path: str | Path, state: dict[str, Tensor], card: Card | None = None) -> None:
    """Writes tensors under our names, and what `knet.load` needs to use them, as .safetensors file: all or nothing.

    Raises:
        OutputError: the folder cannot be made or written, or the disk is full.
    """
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    with atomic_path(path, durable=True) as temporary:
        # Not safetensors' own save_file: its files can be read by nobody but their owner.
        temporary.write_bytes(save(tensors, metadata=None if card is None else {METADATA_KEY: card.text()}))
