"""What a run leaves to look at: one CSV row a logged iteration, and TensorBoard where it is installed."""

import csv
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from knet.files import atomic_path


class Record:
    """Writes scalars to `<folder>/<name>.csv` and to TensorBoard. Use as a context manager.

    The columns are those of the first row; a resumed run drops the rows after the iteration it starts from, so that
    the file reads as if the run had never stopped.

    Args:
        folder: the run's folder; must exist.
        name: "train" or "val": the CSV's name and the prefix of TensorBoard's tags.
        start: iterations done before; rows beyond are dropped.
    """

    def __init__(self, folder: Path, name: str, start: int = 0):
        self.path, self.name = folder / f"{name}.csv", name
        self._columns: list[str] = []
        self._keep_until(start)
        self._file = self.path.open("a", newline="")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._board = None
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def _keep_until(self, start: int) -> None:
        if not self.path.is_file():
            return
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        kept = [row for row in rows if (row.get("iteration") or "").isdigit() and int(row["iteration"]) <= start]
        if not kept:
            self.path.unlink()
            return
        self._columns = list(kept[0])
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(kept)

    def log(self, iteration: int, scalars: dict[str, float]) -> None:
        """Appends a row and makes sure that it is on the disk."""
        row: dict[str, float] = {"iteration": iteration, **scalars}
        if not self._columns:
            self._columns = list(row)
            csv.writer(self._file).writerow(self._columns)
        csv.DictWriter(self._file, self._columns, extrasaction="ignore").writerow(row)
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._board is not None:
            for key, value in scalars.items():
                self._board.add_scalar(f"{self.name}/{key}", value, iteration)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()
