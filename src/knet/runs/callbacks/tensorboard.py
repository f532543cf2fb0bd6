"""TensorBoard's files in the run folder."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from knet.errors import OutputError
from knet.files import cannot_write
from knet.runs.callbacks.callback import Callback, RunStart, Step, Validation


class TensorBoard(Callback):
    """Writes figures and pictures to tensorboard/ in the run folder, where the package `tensorboard` is installed."""

    _board: Any = None
    _hook: Any = None

    def on_start(self, run: RunStart) -> None:
        """Opens the files, see `Callback`; what a resumed run repeats is dropped."""
        self._path = run.folder / "tensorboard"
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._hook = threading.excepthook
        threading.excepthook = self._in_thread
        with self._written():
            self._board = SummaryWriter(str(self._path), purge_step=run.iteration + 1)

    def on_iteration(self, step: Step) -> None:
        """Adds the values, see `Callback`."""
        if step.due:
            self._add("train", step.values, step.iteration)

    def on_validation(self, validation: Validation) -> None:
        """Adds figures and pictures, see `Callback`."""
        self._add("val", validation.figures, validation.iteration)
        if self._board is None:
            return
        with self._written():
            for name, picture in validation.pictures.items():
                self._board.add_image(f"pictures/{name}", picture, validation.iteration, dataformats="HWC")

    def on_end(self, error: BaseException | None) -> None:
        """Closes the files, see `Callback`."""
        if self._hook is not None:
            threading.excepthook, self._hook = self._hook, None
        # What went wrong first is what the user should read.
        with suppress(OutputError) if error is not None else nullcontext(), self._written():
            if self._board is not None:
                self._board.close()

    def _in_thread(self, failed: Any) -> None:
        """Says nothing of a full disk, which TensorBoard's thread meets and gives to its next caller, which is us."""
        if not (isinstance(failed.exc_value, OSError) and type(failed.thread).__module__.startswith("tensorboard.")):
            self._hook(failed)

    def _add(self, kind: str, values: Mapping[str, float], iteration: int) -> None:
        if self._board is None:
            return
        with self._written():
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, iteration)

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self._path, error.strerror or error) from error
