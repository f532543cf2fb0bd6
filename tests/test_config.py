"""Configs: read, overridden, checked."""

from pathlib import Path

import pytest

from knet.config import dump_config, is_config, load_config, read_config, validate_config
from knet.errors import ConfigError
from knet.models.zoo import ZOO

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
GOOD = """
model: rtknet-slim-camvid
data: {root: /d, val: {images: i, json: j.json, masks: m}}
augment: {short_edges: [32], crop: [16, 16]}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_repository_loads_and_names_a_model(path: Path) -> None:
    assert load_config(path).model in ZOO


def test_overrides_reach_any_depth(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, GOOD), ["optimizer.learning_rate=1e-3", "batch=2", "augment.crop=[8, 24]", "losses.rank=0"]
    )
    assert config.optimizer.learning_rate == 1e-3  # YAML alone would read 1e-3 as text
    assert (config.batch, config.augment.crop, config.losses.rank) == (2, (8, 24), 0)


def test_a_dumped_config_comes_back_equal(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert validate_config(dump_config(config), "dump") == config


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optimiser.learning_rate=1", "did you mean 'optimizer'"),
        ("optimizer.learning_rat=1", "did you mean 'learning_rate'"),
        ("data.val.jsn=x", "did you mean 'json'"),
        ("xyzzy=1", "known here: "),
        ("batch=many", "'batch'"),
        ("batch=0", "greater than or equal to 1"),
        ("precision=fp8", "'precision'"),
        ("augment.flip=7", "'augment.flip'"),
        ("batch", "form key=value"),
        ("model.x=1", "'model' is a value"),
        ("batch=[", "cannot be read"),
    ],
)
def test_wrong_options_get_one_sentence(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, GOOD), [override])
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: [", "not valid YAML"), ("- a", "not a table"), ("model: x", "'data' is missing"), ("", "not a table")],
)
def test_wrong_files_get_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_config(write(tmp_path, text))
    with pytest.raises(ConfigError, match="Cannot read the config"):
        load_config(tmp_path / "nowhere.yaml")


def test_python_replaces_options_by_keywords(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    options = ["data.val.json=k.json", "optimizer.learning_rate=1e-3", "batch=2", "arguments.kernels=7"]
    dotted = {"optimizer.learning_rate": 1e-3, "arguments.kernels": 7}
    config = read_config(path, data__val__json=Path("k.json"), batch=2, **dotted)
    assert config == load_config(path, options)
    assert read_config(config) is config and read_config(config, batch=3).batch == 3
    assert read_config(config, batch=3).arguments == {"kernels": 7}
    with pytest.raises(ConfigError, match=r"Unknown option 'optimizer\.rate' in the config; "):
        read_config(config, optimizer__rate=1)
    with pytest.raises(ConfigError, match="The option 'model__x=1' cannot be set: 'model' is a value"):
        read_config(config, model__x=1)
    with pytest.raises(ConfigError, match="did you mean 'rtknet-cityscapes'"):
        read_config("rtknet-cityscape")


def test_configs_and_models_are_told_apart(tmp_path: Path) -> None:
    assert is_config("rtknet-cityscapes") and is_config(tmp_path / "run.yaml") and is_config(load_config("custom"))
    assert not is_config("rtknet-slim-camvid.xml") and not is_config(tmp_path / "best.safetensors")


def test_configs_cannot_be_changed(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    with pytest.raises(ValueError, match="frozen"):
        config.batch = 3


def test_an_override_of_an_aliased_table_leaves_the_other_places_alone(tmp_path: Path) -> None:
    path = tmp_path / "alias.yaml"
    path.write_text("model: rtknet-cityscapes\ndata:\n  train: &files {images: a, json: b, masks: c}\n  val: *files\n")
    config = load_config(path, ["data.val.images=other"])
    assert config.data.train is not None
    assert (str(config.data.train.images), str(config.data.val.images)) == ("a", "other")
