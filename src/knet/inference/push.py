"""A model as a folder that others can use: its weights, and a page that says what they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knet.calls import named_options
from knet.errors import ConfigError, OutputError, counted
from knet.files import atomic_path, is_file
from knet.inference.load import bundled_file, read_model
from knet.models.zoo import ZOO, entry
from knet.weights.card import Card
from knet.weights.fetch import HUB_FILE, hub_repository
from knet.weights.load import save_weights
from knet.weights.released import RELEASED

PAGE = "README.md"
_MARK = "library_name: knet"  # in the head of the page


@named_options
def push(
    model: str | Path, target: str | Path, weights: str | Path | None = None, licence: str | None = None
) -> tuple[Card, str]:
    """Writes a model folder, which a folder's path and `hf:owner/repository` read back.

    Args:
        model, weights: see `knet.load`.
        target: a folder, or hf:owner/repository, which is made if it is not there.
        licence: of the weights, in words; the default is what is known of them.

    Returns:
        The card of the weights, and where they are.

    Raises:
        ConfigError: no such model, or huggingface_hub is not installed.
        CheckpointError: the weights do not fit.
        OutputError: the folder cannot be written, or the hub takes nothing.
    """
    repository = hub_repository(target)  # reports a wrong address before any work
    if repository is None:
        _refuse_other_page(Path(target) / PAGE)
    net, card = read_model(model, weights)
    terms = licence or _licence(model if weights is None else None)
    if repository is None:
        _write(Path(target), net.state_dict(), card, terms)
        return card, str(target)
    return card, _upload(repository, net.state_dict(), card, terms)


def _refuse_other_page(path: Path) -> None:
    """A page of the user's own is not overwritten, as one that was made here before is."""
    if is_file(path) and f"\n{_MARK}\n" not in path.read_text("utf-8", "replace")[:1000]:
        raise OutputError(f"'{path}' is not a page of `knet push`, and would be overwritten; choose another folder.")


def page(card: Card, licence: str) -> str:
    """What the weights are, in Markdown, with the head that Hugging Face reads."""
    row, p = entry(card.model), card.preprocessing
    training = card.more.get("training")
    measured = training.get("val") if isinstance(training, Mapping) else None
    figures = [
        f"| {name} | {100 * value:.1f} |" for name, value in (measured or {}).items() if isinstance(value, float)
    ]
    classes = [f"| {c.id} | {c.name} | {'thing' if c.thing else 'stuff'} |" for c in card.categories]
    size = f"a short side of {p.short_edge} pixels, at most {p.max_edge}" if p.resize else "their own size"
    parts = [
        f"---\n{_MARK}\npipeline_tag: image-segmentation\nlicense: other\nlicense_name: {json.dumps(licence)}\n---",
        f"# {card.model}\n\n{row.about}. For {card.task} segmentation with the Python package knet.",
        "```sh\nknet predict FOLDER_OR_hf:OWNER/REPOSITORY street.jpg\n```",
        f"## Licence\n\n{licence}",
    ]
    if figures:
        parts.append(
            "\n".join(
                ["## Figures on the validation data of its run, in percent\n", "| | |", "| --- | --- |", *figures]
            )
        )
    parts += [
        f"## Preprocessing\n\nImages are resized to {size}, colours normalised with the mean {_numbers(p.mean)} and "
        f"the standard deviation {_numbers(p.std)} of RGB in 0..255, and sides padded to multiples of {p.divisor}. "
        f"Thresholds: score {card.score}, overlap {card.overlap}.",
        "\n".join([f"## {counted(len(classes), 'class')}\n", "| id | name | |", "| --- | --- | --- |", *classes]),
    ]
    return "\n\n".join(parts) + "\n"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _licence(model: str | Path | None) -> str:
    """What is known of the weights of a model by name."""
    name = str(model)
    if name in ZOO and bundled_file(name) is not None:
        return "for non-commercial use only"
    return RELEASED[name].licence if name in RELEASED else "not stated"


def _write(folder: Path, state: dict[str, Any], card: Card, licence: str) -> None:
    save_weights(folder / HUB_FILE, state, card)
    with atomic_path(folder / PAGE) as temporary:
        temporary.write_text(page(card, licence), "utf-8")


def _upload(repository: str, state: dict[str, Any], card: Card, licence: str) -> str:
    import tempfile

    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ConfigError(
            f"'hf:{repository}' needs the package huggingface_hub; pip install 'knet[hub]', or give a folder."
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), state, card, licence)
        try:
            hub = HfApi()
            hub.create_repo(repository, exist_ok=True)
            hub.upload_folder(repo_id=repository, folder_path=folder)
        except Exception as error:  # of several packages
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
            raise OutputError(
                f"The hub did not take 'hf:{repository}' ({reason}); log in with `hf auth login`, or give a folder."
            ) from error
    return f"hf:{repository}"
