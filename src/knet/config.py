"""Every option of a training or evaluation run, typed and checked: from a YAML file and `key=value` options.

This file is the reference of all options. A config is complete in itself: it inherits nothing and names no classes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from knet.errors import ConfigError, did_you_mean, require, shown
from knet.files import exists, is_file
from knet.parse import LARGEST_YAML, ParseError, parse_yaml, read_bounded

Precision = Literal["fp32", "bf16", "fp16"]
Pixels = Annotated[int, Field(ge=1, le=2**16)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0.01, le=100)]
Level = Annotated[int, Field(ge=0, le=255)]

_LARGEST = 2**31  # whole numbers below it can be counted to, and stored anywhere


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _countable(cls, value: Any) -> Any:
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, int) and abs(number) >= _LARGEST for number in numbers):
            raise ValueError(f"whole numbers are below {_LARGEST}")
        return value


class Files(_Options):
    """A labelled data set: a folder of images, and their truth in one of four forms.

    These are COCO panoptic (`json`, and the id PNGs in `masks`), COCO instances (`json` alone), label PNGs with the ids
    of the class table (`labels`), and your own clips (`labels` and `instances`, each with a folder of PNGs for each
    clip). A video data set is named by its `format` and `split` instead.
    """

    images: Path | None = None
    json_file: Path | None = Field(None, alias="json")
    masks: Path | None = None
    labels: Path | None = None
    instances: Path | None = None
    format: Literal["step", "cityscapes-step", "vipseg", "cityscapes-vps", "youtube-vis"] | None = None
    split: str | None = None
    names: tuple[str, ...] = ()  # patterns such as "lund_*": only images whose name fits one of them
    categories: str | None = None  # a class table of this set, see `classes`; null: the JSON's, of label PNGs the run's
    # The set's own classes by name, and which of the run's each is, or void: `{bus: Car, terrain: void}`. A class that
    # is not listed keeps its name. Without it the set has the run's classes.
    classes: dict[str, str] | None = None


class TrainFiles(Files):
    """One of the sets that a run learns from."""

    weight: int | None = Field(
        None, ge=1
    )  # as how many images it counts when images are drawn; null: as many as it has
    # Classes of the run that nobody labelled here: no kernel is told that it does not show one of them.
    unlabelled: tuple[str, ...] = ()
    # Whether void pixels and crowds are left out of every loss, or masks learn to be empty there, as in the originals.
    # Where only objects are labelled, what is no object is not void.
    ignore_void: bool = False
    paste: bool = False  # whether its objects may be pasted into other images, see `augment.paste`


_Sets = (
    Annotated[
        Annotated[TrainFiles, Tag("set")] | Annotated[tuple[TrainFiles, ...], Tag("list")],
        Discriminator(lambda value: "list" if isinstance(value, list | tuple) else "set"),
    ]
    | None
)
_Batch = Annotated[
    Annotated[int, Field(ge=1), Tag("number")] | Annotated[Literal["auto"], Tag("word")],
    Discriminator(lambda value: "word" if isinstance(value, str) and not value.isdecimal() else "number"),
]
_TAGS = ("set", "list", "number", "word", "str")


class Data(_Options):
    """Where the labelled images are. Relative paths start at `root`."""

    root: Path = Path()
    train: _Sets = None  # one set, or a list of them
    val: Files | None  # null: training goes without validation
    # A table's name (cityscapes, coco_panoptic, ...) or a JSON file; without it the classes of the data set's JSON.
    categories: str | None = None
    # A folder for decoded panoptic PNGs, a few hundred KB each; from the second epoch on reading is 20 times as fast.
    cache: Path | None = None
    # Of videos: where frames that are learned from together with a key frame may be, in frames from it.
    offsets: Annotated[tuple[int, ...], Field(min_length=1)] = (-2, -1, 1, 2)
    # Repeats two mistakes of Video K-Net's code that its published figures include: each frame's offset is drawn once
    # for the whole run, and crowds of KITTI-STEP count as objects.
    compatible: bool = False


class Augment(_Options):
    """Training augmentation: a random size, a crop, changed colours and mirroring."""

    short_edges: Annotated[tuple[Pixels, ...], Field(min_length=1)]  # the short edge of each image is drawn from these
    between: bool = False  # also draw whole numbers between the first and the last of them
    max_edge: Pixels = 4096
    ratio: tuple[Ratio, Ratio] = (1.0, 1.0)  # both edges are multiplied by a number drawn from this range
    antialias: bool = True  # smooth shrunk images, as Pillow does; false: as OpenCV, with which K-Net was trained
    crop: tuple[Pixels, Pixels] | None = None  # height, width; null: the whole image
    instance_crop: bool = True  # choose, from up to ten crops, one that contains the centre of an object
    # Instead of instance_crop: choose, from up to ten crops, one in which no class has more than this share of the
    # labelled pixels.
    largest_class: Share | None = None
    color: bool = True
    camera: float = Field(
        0.0, ge=0, le=1
    )  # the chance of each fault of a real camera: exposure, tint, blur, JPEG, noise
    paste: int = Field(0, ge=0)  # up to so many objects of sets with `paste` are pasted into each image
    paste_onto: tuple[str, ...] = ()  # classes that they stand on, as large as seen from a car; (): anywhere, any size
    flip: bool = True
    pad: tuple[Pixels, Pixels] | None = None  # height, width to which smaller images are padded
    pad_color: tuple[Level, Level, Level] = (128, 128, 128)  # RGB

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.ratio[0] > self.ratio[1]:
            raise ValueError("ratio goes from the smaller number to the larger one")
        return self


class Losses(_Options):
    """Weights of the losses; a weight of 0 switches a loss off."""

    classes: Weight = 2.0
    mask: Weight = 1.0
    dice: Weight = 4.0
    rank: Weight = 0.1
    semantic: Weight = 1.0
    instance: Weight = 1.0
    track: Weight = 0.25  # of video models: an object's embedding is closest to its own in the other frame
    similarity: Weight = 1.0  # of video models: embeddings of one object are alike, those of two objects are not
    pixels: int = Field(4096, ge=1)  # how many of an image the instance loss compares; its cost grows with the square
    match_pixels: int | None = Field(None, ge=1)  # how many of an image matching looks at; null: all


class Optimizer(_Options):
    """AdamW and its schedule.

    The learning rate is learning_rate x warm-up x (1 - iteration / iterations) ** power, a tenth of it after each of
    `steps`.
    """

    learning_rate: float = Field(2e-4, gt=0)
    for_batch: int | None = Field(None, ge=1)  # the batch that learning_rate is meant for; it is scaled to `batch`
    weight_decay: float = Field(0.05, ge=0)
    # Parameters without weight decay: "norms" for normalisation layers, or a regular expression of names; null: none.
    undecayed: str | None = "norms"
    backbone_multiplier: float = Field(1.0, ge=0)
    clip: float = Field(1.0, gt=0)  # largest norm of the whole gradient
    warmup: int = Field(1000, ge=0)  # iterations
    warmup_start: float = Field(0.001, ge=0, le=1)  # factor at the first iteration
    power: float = Field(0.9, ge=0)  # 0: no polynomial decay
    steps: tuple[Annotated[int, Field(ge=1)], ...] = ()  # iterations


class RunConfig(_Options):
    """A whole run."""

    model: str
    arguments: dict[str, Any] = {}  # constructor arguments that replace the model's own, such as kernels: 50
    # Whether each stuff class has a kernel of its own, as in K-Net, or learned kernels find stuff too, as in RT-K-Net;
    # null: the model's own way.
    stuff_kernels: bool | None = None
    # Start from these instead of random ones: a file, its address (https://, hf:), or the name of a model. Classes that
    # they do not have, by name, start anew.
    weights: str | Path | None = None
    # Start the backbone alone from these, as torchvision, timm and others publish: a file, its address, or "imagenet"
    # for those that torchvision or timm publish of this backbone.
    backbone_weights: str | Path | None = None
    data: Data
    augment: Augment | None = None
    losses: Losses = Losses()
    optimizer: Optimizer = Optimizer()
    short_edge: Pixels | None = None  # test-time size; null: the model's own
    max_edge: Pixels | None = None
    score: Share | None = None  # thresholds of the panoptic merge; null: the model's own
    overlap: Share | None = None
    merge: Literal["optimised", "sorted"] | None = None  # RT-K-Net's or K-Net's; null: the model's own
    iterations: int = Field(90_000, ge=1)
    # Images an iteration, over all processes; auto: as many as the memory holds, the recipe's number (on a CPU 8) at
    # most, which config.yaml of the run keeps.
    batch: _Batch = 32
    accumulate: int = Field(1, ge=1)  # split the images of each process into so many parts, to save memory
    workers: int = Field(4, ge=0, le=1024)  # processes that read images, for each training process
    precision: Precision = "fp32"
    compile: bool = False  # torch.compile the network: slow to start, faster afterwards
    parallel: Literal["ddp", "fsdp"] = "ddp"  # each process holds a copy of the weights, or a share of them (FSDP2)
    # From this iteration on batch norms keep their statistics, as in inference. Small batches of unlike images teach a
    # network to rely on the statistics of the batch; rare kinds of images are then lost in inference.
    freeze_norms: int | None = Field(None, ge=0)
    ema: float | None = Field(None, gt=0, lt=1)  # evaluate and save an exponential mean of the weights, such as 0.9998
    skip_images: int = Field(10, ge=0)  # how many unreadable training images are left out before the run stops
    skip_losses: int = Field(0, ge=0)  # how many iterations with a loss that is not finite are left out before it stops
    device: str = "auto"
    seed: int = Field(0, ge=0)
    validate_every: int = Field(5000, ge=1)
    patience: int | None = Field(None, ge=1)  # stop after so many validations in a row without a new best figure
    save_every: int = Field(1000, ge=1)
    log_every: int = Field(20, ge=1)
    wandb: str | None = None  # also log to this project of Weights & Biases
    mlflow: str | None = None  # also log to this experiment of MLflow
    output: Path = Path("runs/run")


_PUBLISHED = Path(__file__).parent / "configs"


def config_names() -> list[str]:
    """The names of the configs that come with the package, one for each published run."""
    return sorted(path.stem for path in _PUBLISHED.glob("*.yaml"))


def read_config(config: str | Path | RunConfig, /, **overrides: Any) -> RunConfig:
    """The options of a run, with some replaced: `read_config("rtknet-cityscapes", data__root="/data", batch=8)`.

    Args:
        config: the name of a config that comes with the package, such as "rtknet-cityscapes"; a YAML file; or a config.
        overrides: options by name. Two underscores stand for the dot in the name of an option, which also works itself:
            `optimizer__learning_rate=1e-4` or `**{"optimizer.learning_rate": 1e-4}`.

    Raises:
        ConfigError: there is no such file, it is not valid YAML, a key is unknown, or a value has the wrong type.
    """
    if isinstance(config, RunConfig) and not overrides:
        return config
    table, origin = _table_of(config)
    return validate_config(_replaced(table, overrides), origin)


def load_config(path: str | Path | RunConfig, overrides: Sequence[str] = ()) -> RunConfig:
    """`read_config` with overrides as on the command line, such as `optimizer.learning_rate=1e-4`."""
    table, origin = _table_of(path)
    for override in overrides:
        _apply(table, override)
    return validate_config(table, origin)


def is_config(target: RunConfig | str | Path) -> bool:
    """Whether this is a config, or the name or the path of one, and not a model."""
    return isinstance(target, RunConfig) or Path(target).suffix in (".yaml", ".yml") or str(target) in config_names()


def data_config(**overrides: Any) -> Data:
    """The `data` part alone, from options such as `data__val__images=DIR`, as `read_config`."""
    return validate_config(_replaced({"model": "none", "data": {}}, overrides), "the options").data


def read_overrides(overrides: list[str]) -> dict[str, Any]:
    """`key=value` options as a table, such as {"channels": 256} from ["channels=256"]."""
    table: dict[str, Any] = {}
    for override in overrides:
        _apply(table, override)
    return table


def validate_config(table: dict[str, Any], origin: str) -> RunConfig:
    """Checks a table of options, which `origin` names in the error: a sentence for each unknown key and wrong value."""
    try:
        return RunConfig.model_validate(table)
    except ValidationError as error:
        said = [_explain(item, origin) for item in reversed(error.errors())]
        first = {sentence.partition(": ")[0]: sentence for sentence in said}  # of an option's several kinds
        raise ConfigError(" ".join(reversed(first.values()))) from error


def dump_config(config: RunConfig) -> dict[str, Any]:
    """The config as plain values for YAML, which `validate_config` turns into the same config."""
    return config.model_dump(mode="json", by_alias=True)


def _table_of(config: str | Path | RunConfig) -> tuple[dict[str, Any], str]:
    """All options that a config gives, and what to call it in errors."""
    require(str | Path | RunConfig, "a config, its name, or the path of a YAML file", config=config)
    if isinstance(config, RunConfig):
        return dump_config(config), "the config"
    path = _find(config)
    try:
        table = parse_yaml(read_bounded(path, LARGEST_YAML))
    except OSError as error:
        raise ConfigError(f"Cannot read the config '{path}': {error.strerror}; give a YAML file.") from error
    except ParseError as error:
        raise ConfigError(f"The config '{path}' is not valid YAML: {error}.") from error
    if not isinstance(table, dict):
        raise ConfigError(f"The config '{path}' is not a table of options; see configs/ for examples.")
    if "model" not in table and ("names" in table or {"images", "annotations"} <= table.keys()):
        made = f"make a data set of it with: knet data import {path} --output DIR, and give DIR"
        raise ConfigError(f"'{path}' is of an annotation tool's export, and no config; {made}.")
    return table, str(path)


def published_config(name: str) -> Path:
    """The file of a config that comes with the package. Raises `ConfigError` if there is none of this name."""
    if name in config_names():
        return _PUBLISHED / f"{name}.yaml"
    hint = did_you_mean(name, config_names(), f"it is one of: {', '.join(config_names())}.")
    raise ConfigError(f"No config named '{name}' comes with the package; {hint}")


def _find(path: str | Path) -> Path:
    name = str(path)
    # `configs/NAME.yaml`, as the documents have it, is meant outside a checkout, too.
    if name in config_names() or (not exists(name) and Path(name).parent.name == "configs"):
        return published_config(Path(name).name.removesuffix(".yaml"))
    if Path(name).suffix or len(Path(name).parts) > 1 or is_file(name):
        return Path(name)
    hint = did_you_mean(
        name, config_names(), f"give a YAML file, a data set's folder, or one of: {', '.join(config_names())}."
    )
    raise ConfigError(f"There is no config '{name}'; {hint}")


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"The option '{override}' is not of the form key=value, such as batch=4.")
    try:
        value = parse_yaml(text)
    except ParseError as error:
        raise ConfigError(f"The value of the option {shown(override)} cannot be read ({error}).") from error
    _set(table, key, value, override)


def _replaced(table: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The table with the options of `read_config`'s overrides."""
    for key, value in overrides.items():
        _set(table, key.replace("__", "."), value, f"{key}={value}")
    return table


def _set(table: dict[str, Any], key: str, value: Any, option: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(table.setdefault(parent, {}), dict):
            raise ConfigError(f"The option '{option}' cannot be set: '{parent}' is a value, not a table of options.")
        table[parent] = dict(table[parent])  # other places may share it by a YAML alias, and keep their values
        table = table[parent]
    table[last] = value


def _explain(item: Any, origin: str) -> str:
    path = [part for part in item["loc"] if part not in _TAGS and "[" not in str(part)]  # without names of kinds
    place = ".".join(str(part) for part in path)
    if item["type"] == "extra_forbidden":
        allowed = _options_at(path[:-1])
        hint = did_you_mean(item["loc"][-1], allowed, f"known here: {', '.join(sorted(allowed))}.", cutoff=0.5)
        return f"Unknown option '{place}' in {origin}; {hint}"
    if item["type"] == "missing":
        return f"The option '{place}' is missing in {origin}."
    reason = item["msg"].removeprefix("Value error, ")
    what = f"option '{place}' in {origin} cannot be {shown(item['input'])}" if place else f"config {origin} is wrong"
    return f"The {what}: {reason[:1].lower()}{reason[1:]}."


def _options_at(path: Sequence[Any]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in path:
        by_name = {(field.alias or name): field for name, field in model.model_fields.items()}
        model = model if isinstance(part, int) else next(_models_in(by_name[part].annotation))
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
