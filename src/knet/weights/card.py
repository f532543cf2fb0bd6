"""The card: what travels with weights so that a file can be used on its own, and the checks of one from a file.

It is checked against the zoo: which models there are, what they do, and which constructor arguments they take. Files
are not trusted: whatever their JSON holds, `Card.read` gives a card that the rest of the package can use without
looking again, or raises a CheckpointError.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from knet.errors import CheckpointError, ConfigError
from knet.models.arguments import Checked, Share, check_arguments
from knet.models.zoo import ZOO, Merge, Task
from knet.parse import parse_json
from knet.structures import Category, Preprocessing

METADATA_KEY = "knet"  # where the card lies in the metadata of .safetensors, ONNX and OpenVINO files
FORMAT = 1  # of the card's JSON; to be raised when older versions of knet could not read it rightly

_LARGEST = 2**20  # pixels; a side or a size above it is a mistake
_Pixels = Annotated[int, Field(ge=1, le=_LARGEST)]
_Kernels = Annotated[int, Field(ge=1, le=2**13)]


def _sound_category(category: Category) -> Category:
    if not 0 <= category.id < 2**31:
        raise ValueError(f"the id of a class is a whole number from 0 to {2**31 - 1}, not {category.id}")
    if not category.name.strip():
        raise ValueError("a class needs a name")
    if not all(0 <= part <= 255 for part in category.color):
        raise ValueError(f"a color is three whole numbers from 0 to 255, not {category.color}")
    return category


def _sound_preprocessing(p: Preprocessing) -> Preprocessing:
    if not (1 <= p.short_edge <= _LARGEST and 1 <= p.max_edge <= _LARGEST and 1 <= p.divisor <= 1024):
        raise ValueError("short_edge, max_edge and divisor are numbers of pixels, from 1 on")
    if min(p.std) <= 0:
        raise ValueError(f"std divides, so it is above 0, not {p.std}")
    return p


class GraphCard(Checked):
    """What an exported file holds. From `stuff` to `divisor` it is what a `Network` tells itself, see there."""

    precision: Literal["fp32", "fp16", "int8"]
    size: tuple[_Pixels, _Pixels] | None  # (height, width) of the images that it takes, None for any
    merge_inside: bool  # whether it gives the owner of every pixel instead of masks
    stuff: tuple[int, ...]
    embeds: bool
    previous: tuple[Literal[1], _Kernels, _Kernels] | None  # shape (1,N,C), None where it takes no frame before
    stride: Annotated[int, Field(ge=1, le=1024)]
    divisor: Annotated[int, Field(ge=1, le=1024)]
    batch: Annotated[int, Field(ge=1, le=1024)] = 1  # how many images it takes at once
    seen: bool = False  # whether it is told how much of its fixed size the image covers
    filled: bool = False  # whether images have to cover all of it


class Card(Checked):
    """What travels with weights: all that is needed to use them. Made by `knet.inference.load.describe`.

    Attributes:
        arguments: constructor arguments that replace those of `model`, a name in the zoo, with values as JSON has them.
        categories: the class table in label order.
        preprocessing, score, overlap: the settings to test with.
        task, merge: see `knet.models.zoo.ZooEntry`; the task is always the model's own.
        graph: of exported files.
        more: what else is kept: the version of knet, and of trained weights config and figures.
    """

    format: Annotated[int, Field(ge=1)] = FORMAT
    model: str
    arguments: dict[str, Any]
    categories: Annotated[tuple[Annotated[Category, AfterValidator(_sound_category)], ...], Field(min_length=1)]
    preprocessing: Annotated[Preprocessing, AfterValidator(_sound_preprocessing)]
    score: Share
    overlap: Share
    task: Task
    merge: Merge
    graph: GraphCard | None = None
    more: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def read(cls, text: str, origin: str) -> Card:
        """The card from its JSON. Task and merge, which files of version 0.1.0 may lack, are the model's own.

        Raises:
            CheckpointError: no JSON, a newer format, a missing, unknown or wrong entry, or entries that contradict
                each other; names the file, `origin`.
        """
        try:
            return cls._from(text)
        except _NewerError as error:
            raise CheckpointError(f"The card of '{origin}' {error}; install a newer knet to use the file.") from error
        except ValueError as error:
            raise CheckpointError(
                f"The card of '{origin}' {_reason(error)}; copy the file again, or write it anew with `knet convert`, "
                "`knet train` or `knet export`."
            ) from error

    @classmethod
    def checked(cls, **entries: Any) -> Card:
        """A card of these entries, as a file would give it.

        Raises:
            ConfigError: an entry is wrong, or they contradict each other.
        """
        try:
            return cls._from(json.dumps(entries, default=_plain))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The card of '{entries.get('model')}' {_reason(error)}; give another value.") from error

    def text(self) -> str:
        """The card as JSON in ASCII, which `read` takes. What is `more` stands beside the other entries."""
        return json.dumps({**self.model_dump(mode="json", exclude={"more"}), **self.more})

    @classmethod
    def _from(cls, text: str) -> Card:
        try:
            table = parse_json(text)
        except ValueError as error:
            raise ValueError(f"is not JSON ({error})") from error
        if not isinstance(table, dict):
            raise ValueError(f"is {_shown(table)}, not a table of entries")
        newer = table.get("format")
        if type(newer) is int and newer > FORMAT:
            raise _NewerError(f"is of format {_shown(newer)}, and this version of knet reads formats up to {FORMAT}")
        own = {name: table[name] for name in cls.model_fields if name in table and name != "more"}
        row = ZOO.get(own["model"]) if isinstance(own.get("model"), str) else None
        defaults = {} if row is None else {"task": row.task, "merge": row.merge}
        own["more"] = {name: value for name, value in table.items() if name not in own}
        return cls.model_validate_json(json.dumps({**defaults, **own}))

    @model_validator(mode="after")
    def _sound(self) -> Self:
        row = ZOO.get(self.model)
        if row is None:
            raise ValueError(f"is of the model {_shown(self.model)}, which this version of knet does not have")
        try:
            check_arguments(row.build, self.arguments)
        except ValidationError as error:
            raise ValueError(_reason(error, ("arguments",))) from error
        arguments = {**row.arguments, **self.arguments}
        classes: int = arguments["classes"]
        if len(self.categories) != classes:
            raise ValueError(f"has {len(self.categories)} categories, and its network {classes} classes")
        ids = [category.id for category in self.categories]
        if len(set(ids)) < len(ids):
            raise ValueError(f"has two categories of the id {next(id_ for id_ in ids if ids.count(id_) > 1)}")
        if self.task != row.task:
            raise ValueError(f"is for {self.task} segmentation, and '{self.model}' for {row.task} segmentation")
        for stuff in (arguments.get("stuff", ()), self.graph.stuff if self.graph else ()):
            if len(set(stuff)) < len(stuff) or not set(stuff) <= set(range(classes)):
                raise ValueError(f"has the stuff labels {_shown(list(stuff))}, which are no distinct labels")
        if self.graph is not None:
            self._check_graph(self.graph)
        return self

    def _check_graph(self, graph: GraphCard) -> None:
        if graph.merge_inside and (self.task, self.merge) != ("panoptic", "optimised"):
            raise ValueError(f"has graph.merge_inside for the task {self.task} and the merge {self.merge}")
        if graph.embeds != (graph.previous is not None):
            raise ValueError("has only one of graph.embeds and graph.previous")
        if graph.batch > 1 and (graph.merge_inside or self.task == "clip"):
            raise ValueError(f"has graph.batch {graph.batch} with graph.merge_inside or the task clip")
        for name, sides in (("graph.size", graph.size or ()), ("preprocessing.divisor", (self.preprocessing.divisor,))):
            if any(side % graph.divisor for side in sides):
                raise ValueError(f"has a {name} that is no multiple of graph.divisor, {graph.divisor}")


class _NewerError(ValueError):
    """A card of a later format."""


def _plain(value: Any) -> Any:
    """What JSON has for a part of a card."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else asdict(value)


def _reason(error: Exception, place: tuple[str, ...] = ()) -> str:
    """What is wrong with a card, as the rest of a sentence about it: the first fault, if there are several."""
    if not isinstance(error, ValidationError):
        return str(error)
    fault = error.errors(include_url=False)[0]
    name = ".".join(map(str, (*place, *fault["loc"])))
    message = fault["msg"].removeprefix("Value error, ")
    if not name:
        return message if fault["type"] == "value_error" else f"is wrong: {message}"
    if fault["type"] == "missing":
        return f"lacks the entry '{name}'"
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"has an unknown entry '{name}'"
    return f"has {name} = {_shown(fault['input'])}: {message[0].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
