"""The classes of weights that the original code bases trained on other data than the published ones."""

from typing import Any

from knet.data.categories import categories_from_rows
from knet.errors import CheckpointError
from knet.models.zoo import entry
from knet.structures import Category
from knet.weights.card import Card
from knet.weights.classes import class_count, class_layers
from knet.weights.fitting import fitting
from knet.weights.load import Checkpoint


def listed_classes(model: str, checkpoint: Checkpoint, arguments: dict[str, Any]) -> tuple[Category, ...] | None:
    """The classes that a file lists, where they are not the published ones and need not be told things from stuff."""
    row, names = entry(model), checkpoint.classes
    count = _known_classes(model, checkpoint, arguments)
    if (
        row.task == "panoptic"
        or checkpoint.card is not None
        or len(names) != count
        or count == row.arguments["classes"]
    ):
        return None
    # Numbered as the code bases do it: objects in JSON files from 1, pixels of label PNGs from 0.
    semantic = row.task == "semantic"
    rows = [{"id": n + (not semantic), "name": name, "thing": not semantic} for n, name in enumerate(names)]
    return categories_from_rows(rows, "The class list of the checkpoint", CheckpointError)[0]


def _known_classes(model: str, checkpoint: Checkpoint, arguments: dict[str, Any]) -> int | None:
    """How many classes the weights of others know, as far as their tensors show it."""
    layers = class_layers(model, {**entry(model).arguments, **arguments})
    return class_count(checkpoint.state, layers)


def advice(card: Card, checkpoint: Checkpoint) -> str:
    """What to do about weights that do not fit their card."""
    fits = fitting(checkpoint.state)
    known = None if checkpoint.card else _known_classes(card.model, checkpoint, card.arguments)
    if known is None or known == len(card.categories):
        return fits
    return (
        f"{fits} If their {known} classes are your own, and not the {len(card.categories)} published ones, "
        "convert them with their class table first "
        f"(`knet convert IN OUT --model {card.model} --classes FILE`), or train on from them (weights=FILE)."
    )
