"""train.csv and val.csv in the run folder."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from knet.files import atomic_path, cannot_write, open_own
from knet.runs.callbacks.callback import Callback, RunStart, Step, Validation
from knet.runs.report.plots import read_rows


class CSV(Callback):
    """Writes train.csv every `log_every` iterations and val.csv at every validation, each row onto the disk.

    A resumed run drops the rows after the iteration that it starts from, so that the files read as if the run had never
    stopped.
    """

    def on_start(self, run: RunStart) -> None:
        """Keeps the rows of before, see `Callback`."""
        self._train, self._val = (_Rows(run.folder / f"{kind}.csv", run.iteration) for kind in ("train", "val"))

    def on_iteration(self, step: Step) -> None:
        """Adds a row, see `Callback`."""
        if step.due:
            self._train.append({"iteration": step.iteration, **step.values})

    def on_validation(self, validation: Validation) -> None:
        """Adds a row, see `Callback`."""
        self._val.append({"iteration": validation.iteration, **validation.figures})


class _Rows:
    """A CSV file that grows by rows and, when a row brings new columns, by columns, which are empty in earlier rows.

    A row replaces those of its own and later iterations: a run that was killed during a validation repeats it.
    """

    def __init__(self, path: Path, start: int):
        self._path = path
        self._columns: list[str] = []
        self._last = -1  # iteration of the last row
        if path.is_file():
            self._keep_until(start)

    def append(self, row: Mapping[str, float]) -> None:
        """Writes the row, and waits until it is on the disk."""
        iteration = int(row["iteration"])
        new = [key for key in row if key not in self._columns]
        if self._columns and (new or iteration <= self._last):
            earlier = [old for old in read_rows(self._path) if int(old["iteration"]) < iteration]
            self._rewrite([*self._columns, *new], earlier)
        self._last = iteration
        try:
            descriptor = open_own(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with os.fdopen(descriptor, "a", newline="", encoding="utf-8") as file:
                if not self._columns:
                    self._columns = new
                    csv.writer(file).writerow(new)
                csv.DictWriter(file, self._columns).writerow(row)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error.strerror or error) from error

    def _keep_until(self, start: int) -> None:
        rows = read_rows(self._path)
        # A killed run may leave its last row half written: "12" of "1234,0.5,..." is not the row of iteration 12.
        whole = [row for row in rows if None not in row.values() and _is_number(row.get("iteration"))]
        kept = [row for row in whole if int(row["iteration"]) <= start]
        if kept:
            self._rewrite(list(kept[0]), kept)
            self._last = int(kept[-1]["iteration"])
        else:
            self._path.unlink()

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        with atomic_path(self._path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        self._columns = columns


def _is_number(text: str | None) -> bool:
    return text is not None and text.isascii() and text.isdigit() and len(text) < 16
