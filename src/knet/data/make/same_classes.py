"""Which class of one table is which of another: by name, or as the user says."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from knet.class_names import same_names
from knet.data.files.io import name_some
from knet.data.readers.mixture import VOID
from knet.errors import ConfigError, did_you_mean
from knet.parse import LARGEST_YAML, parse_yaml, read_bounded
from knet.structures import Category

Renames = Mapping[str, str | None]
"""Names of classes and what they are called in another table; None for what has no place there."""


def read_renames(given: Sequence[str]) -> dict[str, str | None]:
    """Renames from texts: NAME=NAME, where the second may be "void", or a JSON or YAML file {name: name or null}.

    Raises:
        ConfigError: neither the one nor the other, or a file that cannot be read or holds something else.
    """
    renames: dict[str, str | None] = {}
    for text in given:
        name, equals, other = (part.strip() for part in text.partition("="))
        renames |= {name: other} if equals and name and other else _read_file(Path(text))
    return renames


def match_classes(categories: Sequence[Category], table: Sequence[Category], renames: Renames) -> tuple[int, ...]:
    """The label in `table` of each of a model's classes, -1 for those without a place there.

    Names are the same as in `same_names`; what `renames` says of a name comes first.
    """
    renamed = {name.casefold(): other or VOID for name, other in renames.items()}
    names = [renamed.get(category.name.casefold(), category.name) for category in categories]
    places = same_names(names, [category.name for category in table])
    return tuple(-1 if place is None else place for place in places)


def check_renames(renames: Renames, known: Sequence[Category], table: Sequence[Category]) -> None:
    """Raises `ConfigError` for a rename of a class that no model has (`known`), or to one that the `table` lacks."""
    left, right = ({row.name.casefold() for row in rows} for rows in (known, table))
    for name, other in renames.items():
        if name.casefold() not in left:
            names = [row.name for row in known]
            hint = did_you_mean(name, names, f"they have {name_some(names, 10)}.")
            raise ConfigError(f"--map renames '{name}', but no model has a class of this name; {hint}")
        if other is not None and other.casefold() not in right | {VOID}:
            names = [row.name for row in table]
            hint = did_you_mean(other, names, f"it has {name_some(names, 10)}; '{name}={VOID}' makes it void.")
            raise ConfigError(f"--map calls '{name}' '{other}', which the class table lacks; {hint}")


def _read_file(path: Path) -> dict[str, str | None]:
    try:
        content = parse_yaml(read_bounded(path, LARGEST_YAML))  # JSON is YAML as well
    except FileNotFoundError as fault:
        raise ConfigError(f"--map '{path}' is neither NAME=NAME nor a JSON or YAML file that exists.") from fault
    except (OSError, ValueError) as fault:
        problem = " ".join(str(fault).split())
        raise ConfigError(f"--map '{path}' cannot be read ({problem}); it must be JSON or YAML.") from fault
    plain = isinstance(content, dict) and all(
        isinstance(name, str) and (other is None or isinstance(other, str)) for name, other in content.items()
    )
    if not plain:
        raise ConfigError(f"--map '{path}' must hold a mapping of names to names, or to null for void.")
    return content
