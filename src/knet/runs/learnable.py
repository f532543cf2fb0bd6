"""Whether a model can learn from a data set: known before a training begins, instead of after days."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from knet.config import RunConfig, is_config, read_config
from knet.data.files.io import name_some
from knet.data.readers.reader import Kernels, Reader
from knet.errors import DataError
from knet.files import is_file
from knet.models.zoo import entry
from knet.structures import SegmentInfo
from knet.weights.load import read_checkpoint

_LOOKED_AT = 50  # images, where segments are known only from PNGs


def kernels_of(model: RunConfig | str | Path) -> Kernels:
    """The kernels of a model, by its name, its config or its file of weights."""
    if is_config(model):
        config = read_config(model)
        return _kernels(config.model, config.arguments, config.stuff_kernels)
    assert not isinstance(model, RunConfig)  # which is a config
    if is_file(model):
        card = read_checkpoint(model).card
        if card is not None:
            return _kernels(card.model, card.arguments)
    return _kernels(str(model), {})


def _kernels(name: str, arguments: dict[str, Any], stuff_kernels: bool | None = None) -> Kernels:
    row = entry(name)
    if row.task == "semantic":  # a kernel is a class there
        return Kernels(sys.maxsize)
    apart = "stuff" in {**row.arguments, **arguments} if stuff_kernels is None else stuff_kernels
    return Kernels({"kernels": Kernels().count, **row.arguments, **arguments}["kernels"], stuff=not apart)


def check_learnable(dataset: Reader, kernels: Kernels) -> str:
    """A line about images with more segments than kernels, or data of few of the classes; "" without such.

    Data sets that know their segments without opening a picture are looked over whole, others at some images.

    Raises:
        DataError: no image has anything to learn.
    """
    count = len(dataset)
    whole = hasattr(dataset, "segments")
    chosen = range(count) if whole else range(0, count, max(1, count // _LOOKED_AT))
    found = {index: _segments(dataset, index) for index in chosen}
    if not any(map(_teaches, found.values())):
        require_segments(dataset, "training")
    needed = {index: kernels.needed(segments or (), dataset.categories) for index, segments in found.items()}
    lines = [_too_many(dataset, kernels, needed), _few_classes(dataset, [rows or () for rows in found.values()])]
    return "; ".join(filter(None, lines))


def _too_many(dataset: Reader, kernels: Kernels, needed: dict[int, int]) -> str:
    """What is said of the kernels, by the number that each image needs."""
    most = max(needed, key=needed.__getitem__)
    if needed[most] <= kernels.count:
        return ""
    many = sum(number > kernels.count for number in needed.values())
    return (
        f"{many} of {len(needed)} images have more segments than the model has kernels ({kernels.count}), up to "
        f"{needed[most]} ({dataset.name(most)}); the rest is never learned: give arguments.kernels={needed[most]}"
    )


def _few_classes(dataset: Reader, segments: Iterable[Iterable[SegmentInfo]]) -> str:
    """What is said where most classes do not occur: pixels do not tell which class table they are of."""
    rows = list(segments)
    seen = {segment.label for image in rows for segment in image}
    names = [category.name for label, category in enumerate(dataset.categories) if label in seen]
    count = len(dataset.categories)
    if 2 * len(names) >= count:
        return ""
    return (
        f"only {len(names)} of the {count} classes occur in the {len(rows)} images that were looked at "
        f"({name_some(names)}); is this the class table of the data (data.categories)?"
    )


def require_segments(dataset: Reader, what: str) -> None:
    """Raises `DataError` for training or validation data in which no image has a segment that is no crowd."""
    count = len(dataset)
    if not any(_teaches(_segments(dataset, index)) for index in range(count)):
        doing = "learn" if what == "training" else "judge"
        images = f"none of its {count} images has a segment that is no crowd" if count else "it has no images"
        raise DataError(
            f"The {what} data has nothing to {doing}: {images}; label objects, or see with `knet data check` what is "
            "there."
        )


def _segments(dataset: Reader, index: int) -> list[SegmentInfo] | None:
    """The segments of an image; None if its truth cannot be read, which training says when it comes to it."""
    known: Any = getattr(dataset, "segments", None)
    read: Any = getattr(dataset, "read_truth", dataset.read)
    try:
        return known(index) if known is not None else read(index).segments
    except DataError:
        return None


def _teaches(segments: list[SegmentInfo] | None) -> bool:
    """Whether there is something to learn, or may be."""
    return segments is None or any(not segment.crowd for segment in segments)
