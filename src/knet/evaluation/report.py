"""What any of the metrics returned, for people and programs: a table in plain text, a CSV file, a JSON file."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from knet.files import atomic_path

Row = dict[str, str | int | float | None]
Listed = tuple[str, Any, str, Mapping[str, Any]]
"""A row's level, id, name and figures."""

# What a table shows of each row: column -> heading. Fractions are shown in percent, counts as they are.
_PANOPTIC = {"pq": "PQ", "sq": "SQ", "rq": "RQ", "tp": "TP", "fp": "FP", "fn": "FN", "n": "N"}
_SEMANTIC = {"iou": "IoU", "niou": "nIoU", "pixels": "pixels"}
_INSTANCE = {"ap": "AP", "ap50": "AP50", "objects": "objects"}
_COCO = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "aps": "APs", "apm": "APm", "apl": "APl"}
_COCO |= {"ar1": "AR1", "ar10": "AR10", "ar100": "AR100", "ars": "ARs", "arm": "ARm", "arl": "ARl"}
_COCO["objects"] = "objects"
_STQ = {"stq": "STQ", "aq": "AQ", "sq": "SQ", "tracks": "tracks", "frames": "frames"}
_WINDOW = "window_"  # columns of VPQ's table, one for each window, are called by its number of frames


def rows(result: Mapping[str, Any]) -> list[Row]:
    """The result as flat rows, the classes first and the summary last.

    Each has `level`, which says what it is about, `id`, `name`, and the metric's figures, fractions 0..1; None where
    there is nothing to say. The column `iou` of the level accuracy is the share of right pixels, `sq` of STQ's classes
    their IoU, `n` the number of categories averaged, `window_1` the PQ in windows of one frame, and so on. The name of
    the last row of STQ and VPQ says the protocol.
    """
    columns: Iterable[str]
    if "sequences" in result:
        columns, listed = _vpq_rows(result) if "windows" in result else _stq_rows(result)
    else:
        listed = [("class", key, row["name"], row) for key, row in result["classes"].items()]
        whole = result.get("all", result)
        if "ap" in whole:
            columns = _COCO if "all" in result else _INSTANCE
            objects = sum(row["objects"] for row in result["classes"].values())
            listed.append(("mean", None, "mean of classes", {**whole, "objects": objects}))
        elif "all" in result:
            columns = _PANOPTIC
            listed += [(level, None, level, result[level]) for level in ("all", "things", "stuff")]
        else:
            columns = _SEMANTIC if "mniou" in result else ("iou", "pixels")
            listed += _semantic_summary(result)
    return [{"level": a, "id": b, "name": c, **{key: row.get(key) for key in columns}} for a, b, c, row in listed]


def _semantic_summary(result: Mapping[str, Any]) -> list[Listed]:
    summary: list[Listed] = [("category", None, name, row) for name, row in result.get("categories", {}).items()]
    if official := result.get("sceneparsing"):
        summary += [
            ("mean", None, "mean of the classes that occur (mmsegmentation)", {"iou": result["miou"]}),
            ("mean", None, "mean of all classes (sceneparsing)", {"iou": official["miou"]}),
            ("score", None, "score (sceneparsing)", {"iou": official["score"]}),
        ]
    else:
        summary += [
            ("mean", None, name, {"iou": result[f"{prefix}miou"], "niou": result.get(f"{prefix}mniou")})
            for name, prefix in (("mean of categories", "category_"), ("mean of classes", ""))
            if f"{prefix}miou" in result
        ]
    return [*summary, ("accuracy", None, "pixel accuracy", {"iou": result["pixel_accuracy"]})]


def _stq_rows(result: Mapping[str, Any]) -> tuple[Iterable[str], list[Listed]]:
    listed = [("class", key, row["name"], {**row, "sq": row["iou"]}) for key, row in result["classes"].items()]
    listed += [("sequence", None, name, row) for name, row in result["sequences"].items()]
    return _STQ, [*listed, ("all", None, f"all ({result['protocol']} protocol)", result["all"])]


def _vpq_rows(result: Mapping[str, Any]) -> tuple[Iterable[str], list[Listed]]:
    windows = {f"{_WINDOW}{frames}": window for frames, window in result["windows"].items()}
    listed: list[Listed] = []
    for key, row in result["classes"].items():
        cells = {column: window["classes"][key]["pq"] for column, window in windows.items()}
        listed.append(("class", key, row["name"], {**cells, "vpq": row["vpq"]}))
    listed += [("sequence", None, name, row) for name, row in result["sequences"].items()]
    for group in ("things", "stuff", "all"):
        cells = {column: window[group]["pq"] for column, window in windows.items()}
        name = f"all ({result['protocol']} protocol)" if group == "all" else group
        listed.append((group, None, name, {**cells, **result[group]}))
    return ["vpq", *windows, "frames"], listed


def headings(body: Sequence[Row]) -> dict[str, str]:
    """The columns of `rows` that tables show, and what they call them."""
    known = {**_PANOPTIC, **_SEMANTIC, **_COCO, **_STQ, "vpq": "VPQ"}
    known |= {key: key.removeprefix(_WINDOW) for key in body[0] if key.startswith(_WINDOW)}
    return {key: known[key] for key in body[0] if key in known}


def table(result: Mapping[str, Any]) -> str:
    """The result as a table in plain text, in percent with one decimal; "-" where there is nothing to say."""
    body = rows(result)
    columns = headings(body)
    cells = [[str(row["name"]), *(cell(row[key]) for key in columns)] for row in body]
    cells.insert(0, ["class", *columns.values()])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([name.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) for name, *rest in cells]
    rule = "-" * len(lines[0])
    text, previous = lines[:1], "heading"
    for line, row in zip(lines[1:], body, strict=True):
        if row["level"] != previous and previous in ("heading", "class", "category", "sequence"):
            text.append(rule)
        text.append(line)
        previous = str(row["level"])
    return "\n".join(text) + "\n"


def write_csv(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes the rows in full precision, fractions 0..1, an empty cell for None."""
    body = rows(result)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(body[0]))
    writer.writeheader()
    writer.writerows(body)
    _write(Path(path), text.getvalue())


def write_json(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes the dictionary as it is, in full precision, null for None."""
    _write(Path(path), json.dumps(result, indent=1, allow_nan=False) + "\n")


def cell(value: Any) -> str:
    """A figure as tables show it."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
