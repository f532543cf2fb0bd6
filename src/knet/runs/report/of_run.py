"""The report of a run: its curves, and what its latest validation found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from knet.evaluation.details import Details
from knet.runs.report.charts import Chart, line_chart
from knet.runs.report.page import Page, write_report
from knet.runs.report.pictures import jpeg
from knet.runs.report.plots import METRICS, group_losses, read_columns, smoothed

CONFUSION = "confusion"  # the name of the picture that the report has as a table


def write_run_report(
    folder: Path,
    about: Sequence[tuple[str, str]],
    result: Mapping[str, Any],
    details: Mapping[str, Details],
    pictures: Mapping[str, np.ndarray],
) -> None:
    """Writes report.html into a run folder, with curves of its train.csv and val.csv."""
    shown = {name: jpeg(picture) for name, picture in pictures.items() if name != CONFUSION}
    title = f"Training run {folder.resolve().name}"
    page = Page(title, result, details, about=about, charts=curves(folder), pictures=shown)
    write_report(folder / "report.html", page)


def curves(folder: Path) -> list[Chart]:
    """What `plot_run` draws, as diagrams of a report."""
    train, val = read_columns(folder / "train.csv"), read_columns(folder / "val.csv")
    charts: list[Chart | None] = []
    if val:
        figures = {name: 100 * val[key] for key, name in METRICS.items() if key in val}
        charts.append(line_chart("Validation, percent", val["iteration"], figures, dots=True))
    if train:
        for title, lines in (
            ("Total loss", {"loss": train["loss"]} if "loss" in train else {}),
            ("Losses (sum of the stages)", group_losses(train)),
        ):
            even = {name: smoothed(values) for name, values in lines.items()}
            charts.append(line_chart(title, train["iteration"], even, faint=lines))
        rates = {"rate": train["rate"]} if "rate" in train else {}
        charts.append(line_chart("Learning rate", train["iteration"], rates))
    return [chart for chart in charts if chart is not None]
