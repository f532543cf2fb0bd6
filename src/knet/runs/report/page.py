"""A report as one file in HTML: no other file, no script but the one that sorts tables, nothing from the net."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from knet import __version__
from knet.errors import ConfigError, shown
from knet.evaluation.details import BINS, ROWS, SIZES, Details, ImageRow
from knet.evaluation.panoptic import PanopticQuality
from knet.evaluation.report import Row, cell, headings, rows
from knet.files import atomic_path, cannot_write, is_dir
from knet.runs.report.charts import HEIGHT, WIDTH, Chart, calibration_chart
from knet.runs.report.confusion import Confusion, table_of

_ASSETS = Path(__file__).parents[2] / "assets" / "report"
_TITLES = {
    "panoptic": "Panoptic quality",
    "semantic": "Classes of pixels",
    "instance": "Average precision",
    "stq": "Segmentation and tracking quality",
    "stq_video_knet": "Segmentation and tracking quality, script of Video K-Net",
    "vpq": "Video panoptic quality",
    "tracks": "Average precision of tracks",
}
_COUNTS = {"segments": ("TP", "FP", "FN"), "pixels": ("pixels", "right"), "objects": ("TP", "FP", "FN")}
_FIGURES = {"segments": "PQ", "pixels": "mIoU", "objects": "F1"}
_LONGEST = 80  # characters of a name
_SPLIT = re.compile(r"val (mask AP|AP50|AP|PQ|mIoU|STQ|AQ|SQ|VPQ \(1 frame\))(?: |$)")


@dataclass(frozen=True, slots=True)
class Page:
    """What a report shows.

    Attributes:
        title: its heading.
        result: the figures of each part, as `knet.evaluate` returns them.
        details: what there is beside the figures, by part.
        published: figures that a model is known for, see `ZooEntry`.
        about: lines such as ("images", "500").
        charts: curves of a run.
        pictures: JPEGs by name.
    """

    title: str
    result: Mapping[str, Any]
    details: Mapping[str, Details] = field(default_factory=dict)
    published: Mapping[str, float] = field(default_factory=dict)
    about: Sequence[tuple[str, str]] = ()
    charts: Sequence[Chart] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its headings, and rows of a name and cells; `bar` marks the column whose numbers are drawn as bars."""

    columns: list[str]
    rows: list[tuple[str, list[str]]]
    bar: int | None = None


@dataclass(frozen=True, slots=True)
class Images:
    """The list of images, and those at its ends with their pictures."""

    count: int
    figure: str
    table: Table
    ends: list[tuple[str, list[tuple[ImageRow, bytes | None]]]]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a report, such as panoptic quality, with what there is to show of it; None where there is nothing."""

    key: str
    title: str
    kind: str
    tiles: list[tuple[str, str]]
    summary: Table
    classes: Table
    sequences: Table | None
    sizes: Table | None
    confusion: Confusion | None
    calibration: tuple[Chart, Table] | None
    images: Images | None


def write_report(path: str | Path, page: Page) -> None:
    """Writes the page, whole or not at all. Raises `OutputError` if it cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_text(render(page), encoding="utf-8", errors="replace")


def check_report(path: str | Path) -> None:
    """Raises if a report cannot be written there: before an evaluation of hours, not after it.

    Raises:
        ConfigError: its name ends in something else than .html.
        OutputError: no permission, no space, not a folder.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"A report is a page in HTML; the name {shown(str(path))} must end in .html.")
    if is_dir(path):
        raise cannot_write(path, "it is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise cannot_write(path, error.strerror or error) from error


def render(page: Page) -> str:
    """The page in HTML."""
    script = (_ASSETS / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        page=page,
        parts=[_part(key, result, page.details.get(key)) for key, result in page.result.items() if _TITLES.get(key)],
        published=compared(page.published, page.result),
        version=__version__,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        most=ROWS,
        script=script,
        digest=digest,
        wide=WIDTH,
        high=HEIGHT,
    )


def compared(published: Mapping[str, float], result: Mapping[str, Any]) -> Table | None:
    """What the model's authors state beside the same figure here; None where nothing is published."""
    if not published:
        return None
    ours = _figures(result)
    table = Table(["published", "here", "difference"], [])
    for name, value in published.items():
        same = _SPLIT.match(name)
        here = ours.get(same[1]) if same else None
        texts = ["-", "-"] if here is None else [f"{100 * here:.1f}", f"{100 * here - value:+.1f}"]
        table.rows.append((name, [f"{value:g}", *texts]))
    return table


def _figures(result: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures that papers state, by their names there."""
    ours: dict[str, float | None] = {}
    if "semantic" in result:
        ours["mIoU"] = result["semantic"]["miou"]
    if "panoptic" in result and "stq" not in result:
        ours |= {"PQ": result["panoptic"]["all"]["pq"], "SQ": result["panoptic"]["all"]["sq"]}
    if "stq" in result:
        whole = result.get("stq_video_knet", result["stq"])["all"]
        ours |= {"STQ": whole["stq"], "AQ": whole["aq"], "SQ": whole["sq"]}
    if "vpq" in result and 1 in result["vpq"]["windows"]:
        ours["VPQ (1 frame)"] = result["vpq"]["windows"][1]["all"]["pq"]
    if "instance" in result:
        whole = result["instance"].get("all", result["instance"])
        ours |= {"mask AP": whole["ap"], "AP": whole["ap"], "AP50": whole["ap50"]}
    return ours


def _part(key: str, result: Mapping[str, Any], details: Details | None) -> Part:
    body = rows(result)
    columns = headings(body)
    groups: dict[str, list[Row]] = {"class": [], "sequence": [], "rest": []}
    for row in body:
        groups[str(row["level"]) if row["level"] in groups else "rest"].append(row)
    tables = {name: _table(listed, columns) for name, listed in groups.items()}
    counted = details is not None and bool(details.images)
    whole = groups["rest"][-1] if key in ("stq", "stq_video_knet", "vpq") else groups["rest"][0]
    if key == "semantic":
        whole = next((row for row in groups["rest"] if row["level"] == "mean"), whole)
    tiles = [(columns[name], cell(whole[name])) for name in columns if isinstance(whole[name], float)][:3]
    if key == "semantic":
        tiles = [(f"m{tiles[0][0]}", tiles[0][1])] if tiles else []
    return Part(
        key,
        _TITLES[key],
        details.kind if details is not None else "",
        tiles,
        tables["rest"],
        tables["class"],
        tables["sequence"] if groups["sequence"] else None,
        _sizes(details) if details is not None and details.kind == "segments" else None,
        table_of(details) if details is not None and details.confusion.any() else None,
        _calibration(details) if details is not None and details.scores.any() else None,
        _images(details) if details is not None and counted else None,
    )


def _table(body: Sequence[Row], columns: Mapping[str, str]) -> Table:
    listed = [(str(row["name"]), [cell(row[key]) for key in columns]) for row in body]
    used = [any(cells[place] != "-" for _, cells in listed) for place in range(len(columns))]
    shown = [place for place, there in enumerate(used) if there]
    titles = list(columns.values())
    return Table([titles[place] for place in shown], [(name, [cells[p] for p in shown]) for name, cells in listed], 0)


def _sizes(details: Details) -> Table:
    """PQ by the size of segments: the counts of all rows add up to those of the whole."""
    table = Table(["PQ", "SQ", "RQ", "PQ things", "TP", "FP", "FN"], [])
    limits = ("below 32 x 32 pixels", "to 96 x 96 pixels", "above")
    for size, limit, counts in zip(SIZES, limits, details.sizes, strict=True):
        quality = PanopticQuality(details.categories)
        quality.counts += counts
        result = quality.result()
        figures = [cell(result["all"][key]) for key in ("pq", "sq", "rq")] + [cell(result["things"]["pq"])]
        table.rows.append((f"{size} ({limit})", [*figures, *(str(int(counts[row].sum())) for row in (1, 2, 3))]))
    return table


def _calibration(details: Details) -> tuple[Chart, Table]:
    table = Table(["number", "right", "share of right ones", "mean score"], [])
    for place, (count, right, total) in enumerate(details.scores.tolist()):
        means = [f"{100 * right / count:.1f}", f"{100 * total / count:.1f}"] if count else ["-", "-"]
        table.rows.append(
            (f"{place / BINS:.1f} to {(place + 1) / BINS:.1f}", [str(int(count)), str(int(right)), *means])
        )
    return calibration_chart(details.scores), table


def _images(details: Details) -> Images:
    figure = _FIGURES[details.kind]
    listed = [(row.name, [cell(row.figure), *map(str, row.counts)]) for row in details.worst]
    worst, best = ([(row, details.pictures.get(row.name)) for row in side] for side in details.ends())
    table = Table([figure, *_COUNTS[details.kind]], listed, 0)
    return Images(details.images, figure, table, [("Worst images", worst), ("Best images", best)])


def shortened(text: object) -> str:
    """A name of others as the page shows it: of limited length, what cannot be printed replaced."""
    name = str(text)
    name = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 21]}\N{HORIZONTAL ELLIPSIS}{name[-20:]}"
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = shortened
    environment.filters["percent"] = cell
    environment.filters["share"] = lambda share: f"{100 * float(np.clip(share, 0, 1)):.1f}"
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.get_template("report.html.j2")
