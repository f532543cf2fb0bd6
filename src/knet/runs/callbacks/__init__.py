"""What is told how a run goes: the files of its folder, TensorBoard, Weights & Biases, MLflow, and what users write."""

from knet.runs.callbacks.callback import Callback, RunStart, Step, Validation
from knet.runs.callbacks.files import Curves, Pictures, Report
from knet.runs.callbacks.mlflow import MLflow
from knet.runs.callbacks.rows import CSV
from knet.runs.callbacks.tensorboard import TensorBoard
from knet.runs.callbacks.wandb import WeightsAndBiases

__all__ = [
    "CSV",
    "Callback",
    "Curves",
    "MLflow",
    "Pictures",
    "Report",
    "RunStart",
    "Step",
    "TensorBoard",
    "Validation",
    "WeightsAndBiases",
]
