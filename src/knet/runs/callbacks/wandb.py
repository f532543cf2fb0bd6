"""Weights & Biases."""

from typing import Any

from knet.errors import ConfigError
from knet.files import atomic_path
from knet.runs.callbacks.callback import Callback, RunStart, Step, Validation


class WeightsAndBiases(Callback):
    """Logs to a project of Weights & Biases. The run's id is kept in wandb_run.txt: a resumed run goes on there."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._run: Any = None

    def on_start(self, run: RunStart) -> None:
        """Starts or resumes the run there, see `Callback`."""
        try:
            # By name: a mere folder "wandb", which earlier runs leave, can be imported as well but holds nothing.
            from wandb import Error, Image, init
        except ImportError as error:
            raise ConfigError(
                f"wandb={self._project} needs Weights & Biases, which is not installed: install knet[wandb]."
            ) from error
        path = run.folder / "wandb_run.txt"
        known = path.read_text(encoding="utf-8").strip() if run.iteration > 0 and path.is_file() else None
        try:
            where = {"project": self._project, "name": run.folder.name, "dir": str(run.folder)}
            self._run = init(**where, config=dict(run.config), id=known, resume="allow" if known else None)
        except Error as error:
            raise ConfigError(
                f"Weights & Biases does not start: {' '.join(str(error).split())}; log in with 'wandb login', or set "
                "the environment variable WANDB_MODE=offline."
            ) from error
        self._image = Image
        if known is None:
            with atomic_path(path) as temporary:
                temporary.write_text(self._run.id, encoding="utf-8")

    # The service ignores values that a resumed run repeats, which are the same.

    def on_iteration(self, step: Step) -> None:
        """Sends the values, see `Callback`."""
        if step.due:
            self._run.log({f"train/{key}": value for key, value in step.values.items()}, step=step.iteration)

    def on_validation(self, validation: Validation) -> None:
        """Sends figures and pictures, see `Callback`."""
        sent: dict[str, Any] = {f"val/{key}": value for key, value in validation.figures.items()}
        sent |= {f"pictures/{name}": self._image(picture) for name, picture in validation.pictures.items()}
        self._run.log(sent, step=validation.iteration)

    def on_end(self, error: BaseException | None) -> None:
        """Sends the rest and closes the run, see `Callback`."""
        if self._run is not None:
            self._run.finish(exit_code=int(error is not None))
