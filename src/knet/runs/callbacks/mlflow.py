"""MLflow."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from knet.errors import ConfigError
from knet.files import atomic_path, safe_name
from knet.runs.callbacks.callback import Callback, RunStart, Step, Validation

_LONGEST = 500  # characters of a value that every server of MLflow takes


class MLflow(Callback):
    """Logs to an experiment of MLflow, on the server of MLFLOW_TRACKING_URI or, without it, into the working folder.

    The run's id is kept in mlflow_run.txt: a resumed run goes on there.
    """

    def __init__(self, experiment: str) -> None:
        self._experiment = experiment
        self._client: Any = None
        self._id = ""

    def on_start(self, run: RunStart) -> None:
        """Starts or resumes the run there, see `Callback`."""
        try:
            from mlflow import MlflowClient, MlflowException
        except ImportError as error:
            raise ConfigError(
                f"mlflow={self._experiment} needs MLflow, which is not installed: install knet[mlflow]."
            ) from error
        path = run.folder / "mlflow_run.txt"
        known = path.read_text(encoding="utf-8").strip() if run.iteration > 0 and path.is_file() else None
        try:
            client = MlflowClient()
            if known is None:
                found = client.get_experiment_by_name(self._experiment)
                number = client.create_experiment(self._experiment) if found is None else found.experiment_id
                known = client.create_run(number, run_name=run.folder.name).info.run_id
                for name, value in _flat(run.config).items():
                    client.log_param(known, name, value)
            else:
                client.update_run(known, status="RUNNING")
        except MlflowException as error:
            raise ConfigError(
                f"MLflow does not start: {' '.join(str(error).split())}; look at MLFLOW_TRACKING_URI, or leave "
                "mlflow out."
            ) from error
        self._client, self._id = client, known
        with atomic_path(path) as temporary:
            temporary.write_text(known, encoding="utf-8")

    def on_iteration(self, step: Step) -> None:
        """Sends the values, see `Callback`."""
        if step.due:
            self._send("train", step.values, step.iteration)

    def on_validation(self, validation: Validation) -> None:
        """Sends figures and pictures, see `Callback`."""
        self._send("val", validation.figures, validation.iteration)
        for name, picture in validation.pictures.items():
            file = f"pictures/{safe_name(name)}_{validation.iteration}.png"
            self._client.log_image(self._id, np.ascontiguousarray(picture), file)

    def on_end(self, error: BaseException | None) -> None:
        """Closes the run, see `Callback`."""
        if self._client is not None:
            self._client.set_terminated(self._id, status="FINISHED" if error is None else "FAILED")

    def _send(self, kind: str, values: Mapping[str, float], iteration: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, f"{kind}/{name}", float(value), step=iteration)


def _flat(options: Mapping[str, Any] | Sequence[Any], place: str = "") -> dict[str, str]:
    """Options by their names with dots, such as optimizer.clip."""
    found: dict[str, str] = {}
    for key, value in options.items() if isinstance(options, Mapping) else enumerate(options):
        nested = isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(v, Mapping) for v in value))
        found |= _flat(value, f"{place}{key}.") if nested else {f"{place}{key}": str(value)[:_LONGEST]}
    return found
