"""The pictures of a run folder, its curves, and its report."""

from pathlib import Path
from typing import Any

from PIL import Image

from knet.files import atomic_path, safe_name
from knet.runs.callbacks.callback import Callback, RunStart, Validation
from knet.runs.report.of_run import write_run_report
from knet.runs.report.plots import plot_run


class Pictures(Callback):
    """Keeps the latest of each picture as pictures/<name>.jpg."""

    def on_start(self, run: RunStart) -> None:
        """Learns the folder, see `Callback`."""
        self._folder = run.folder / "pictures"

    def on_validation(self, validation: Validation) -> None:
        """Writes the pictures, see `Callback`."""
        for name, picture in validation.pictures.items():
            with atomic_path(self._folder / f"{safe_name(name)}.jpg") as temporary:
                Image.fromarray(picture).save(temporary, quality=92, subsampling=0)


class Curves(Callback):
    """Draws curves.png anew at each validation, from the CSV files."""

    def on_start(self, run: RunStart) -> None:
        """Learns the folder, see `Callback`."""
        self._folder = run.folder

    def on_validation(self, validation: Validation) -> None:
        """Draws the curves, see `Callback`."""
        plot_run(self._folder)


class Report(Callback):
    """Writes report.html anew at each validation: the curves, and what the validation found."""

    def on_start(self, run: RunStart) -> None:
        """Learns of the run, see `Callback`."""
        self._folder: Path = run.folder
        self._config: dict[str, Any] = dict(run.config)

    def on_validation(self, validation: Validation) -> None:
        """Writes the report, see `Callback`."""
        about = [("iteration", f"{validation.iteration} of {self._config.get('iterations', '?')}")]
        about += [(key, str(self._config[key])) for key in ("model", "batch", "precision") if key in self._config]
        parts = validation.result, validation.details, validation.pictures
        write_run_report(self._folder, about, *parts)
