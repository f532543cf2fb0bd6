"""Which class of one table is which of another: the one that is called alike, whatever numbers they have."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence

_SHOWN = 8  # classes that a sentence names


def same_names(own: Sequence[str], others: Sequence[str]) -> list[int | None]:
    """For each of the `own` names the place of the same one among the others, None where there is none.

    Capitals, spaces, hyphens and underscores do not count, except where they alone tell two names of a table apart.
    """
    exact = {name: place for place, name in enumerate(others)}
    keys, other_keys = ([_folded(name) for name in names] for names in (own, others))
    times = Counter(other_keys)
    alike = {key: place for place, key in enumerate(other_keys) if times[key] == 1}
    counts = Counter(dict(zip(own, keys, strict=True)).values())
    return [exact.get(name, alike.get(key) if counts[key] == 1 else None) for name, key in zip(own, keys, strict=True)]


def only_on_one_side(own: Sequence[str], owner: str, others: Sequence[str], other: str) -> str:
    """What two lists of names do not share, "only A has 'x'; only B has 'y'"; "" where they are the same."""
    found = same_names(own, others)
    taken = set(found)
    lonely = {
        owner: [name for name, place in zip(own, found, strict=True) if place is None],
        other: [name for place, name in enumerate(others) if place not in taken],
    }
    return "; ".join(f"only {title} has {_listed(names)}" for title, names in lonely.items() if names)


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in list(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _folded(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(char for char in text if not (char.isspace() or char in "-_"))
