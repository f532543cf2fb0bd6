"""The record of a run: CSV files, curves and pictures in its folder; TensorBoard and Weights & Biases."""

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from PIL import Image

from knet.errors import ConfigError, OutputError
from knet.files import atomic_path, cannot_write, safe_name
from knet.runs.plots import plot_run

Kind = Literal["train", "val"]


class RunRecord:
    """Records how a run goes. A context manager.

    The folder, which must exist, gets train.csv, val.csv, pictures/ and curves.png, and tensorboard/ where TensorBoard
    is installed. A resumed run drops the rows after the iteration that it starts from, so that the files read as if the
    run had never stopped.

    Args:
        start: iterations done before.
        wandb: project of Weights & Biases to log to as well; a resumed run continues the same run there.
        config: the run's options as Weights & Biases shows them.
        active: if False, as in all processes of a run but the first, no method does anything, and no file is touched.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        wandb: str | None = None,
        config: dict[str, Any] | None = None,
        active: bool = True,
    ):
        self._folder, self._active = folder, active
        self._wandb: _WandbRun | None = None
        self._board: Any = None
        if not active:
            return
        self._rows = {kind: _Rows(folder / f"{kind}.csv", start) for kind in ("train", "val")}
        if wandb is not None:
            self._wandb = _WandbRun(folder, wandb, config or {}, resume=start > 0)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        with self._board_written():
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def log(self, kind: Kind, iteration: int, scalars: Mapping[str, float]) -> None:
        """Appends a row to the CSV file of this kind, and waits until it is on the disk."""
        if not self._active:
            return
        self._rows[kind].append({"iteration": iteration, **scalars})
        named = {f"{kind}/{key}": value for key, value in scalars.items()}
        if self._board is not None:
            with self._board_written():
                for name, value in named.items():
                    self._board.add_scalar(name, value, iteration)
        if self._wandb is not None:
            self._wandb.log(named, iteration)

    def pictures(self, iteration: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Records (H,W,3) uint8 RGB pictures by name; pictures/<name>.jpg holds the latest of each."""
        if not self._active:
            return
        for name, picture in pictures.items():
            with atomic_path(self._folder / "pictures" / f"{safe_name(name)}.jpg") as temporary:
                Image.fromarray(picture).save(temporary, quality=92, subsampling=0)
        if self._board is not None:
            with self._board_written():
                for name, picture in pictures.items():
                    self._board.add_image(f"pictures/{name}", picture, iteration, dataformats="HWC")
        if self._wandb is not None:
            images = {f"pictures/{name}": self._wandb.image(picture) for name, picture in pictures.items()}
            self._wandb.log(images, iteration)

    def plot(self) -> None:
        """Redraws curves.png from the CSV files, see `plot_run`."""
        if self._active:
            plot_run(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            # What went wrong first is what the user should read.
            with suppress(OutputError) if error is not None else nullcontext(), self._board_written():
                if self._board is not None:
                    self._board.close()
        finally:
            if self._wandb is not None:
                self._wandb.finish(failed=error is not None)

    @contextmanager
    def _board_written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self._folder / "tensorboard", error.strerror or error) from error


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
            earlier = [old for old in self._read() if int(old["iteration"]) < iteration]
            self._rewrite([*self._columns, *new], earlier)
        self._last = iteration
        try:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                if not self._columns:
                    self._columns = new
                    csv.writer(file).writerow(new)
                csv.DictWriter(file, self._columns).writerow(row)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error.strerror or error) from error

    def _keep_until(self, start: int) -> None:
        rows = self._read()
        # A killed run may leave its last row half written: "12" of "1234,0.5,..." is not the row of iteration 12.
        whole = [row for row in rows if None not in row.values() and row.get("iteration", "").isdigit()]
        kept = [row for row in whole if int(row["iteration"]) <= start]
        if kept:
            self._rewrite(list(kept[0]), kept)
            self._last = int(kept[-1]["iteration"])
        else:
            self._path.unlink()

    def _read(self) -> list[dict[str, str]]:
        with self._path.open(newline="", encoding="utf-8", errors="replace") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        with atomic_path(self._path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        self._columns = columns


class _WandbRun:
    """A run at Weights & Biases, whose id is kept in the run's folder so that it can be resumed."""

    def __init__(self, folder: Path, project: str, config: dict[str, Any], resume: bool):
        try:
            # By name: a mere folder "wandb", which earlier runs leave, can be imported as well but holds nothing.
            from wandb import Error, Image, init
        except ImportError as error:
            raise ConfigError(
                f"wandb={project} needs Weights & Biases, which is not installed: install knet[wandb]."
            ) from error
        path = folder / "wandb_run.txt"
        known = path.read_text(encoding="utf-8").strip() if resume and path.is_file() else None
        try:
            where = {"project": project, "name": folder.name, "dir": str(folder)}
            self._run = init(**where, config=config, id=known, resume="allow" if known else None)
        except Error as error:
            raise ConfigError(
                f"Weights & Biases does not start: {' '.join(str(error).split())}; log in with 'wandb login', or set "
                "the environment variable WANDB_MODE=offline."
            ) from error
        self.image = Image
        if known is None:
            with atomic_path(path) as temporary:
                temporary.write_text(self._run.id, encoding="utf-8")

    def log(self, values: Mapping[str, Any], iteration: int) -> None:
        """Sends values. The service ignores those that a resumed run repeats, which are the same."""
        self._run.log(dict(values), step=iteration)

    def finish(self, failed: bool) -> None:
        """Sends the rest and closes the run."""
        self._run.finish(exit_code=int(failed))
