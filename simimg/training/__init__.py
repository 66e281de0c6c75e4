"""Batches to a trained model."""

from simimg.training.board import TensorBoard
from simimg.training.config import TrainConfig
from simimg.training.export import export_saved_model
from simimg.training.importing import import_sscd
from simimg.training.loop import StepInfo, Watcher, distribute, train
from simimg.training.runs import RunInfo, TrainResult, load_model, load_result, load_run, load_trained
from simimg.training.strategy import make_strategy, workers

__all__ = [
    "RunInfo",
    "StepInfo",
    "TensorBoard",
    "TrainConfig",
    "TrainResult",
    "Watcher",
    "distribute",
    "export_saved_model",
    "import_sscd",
    "load_model",
    "load_result",
    "load_run",
    "load_trained",
    "make_strategy",
    "train",
    "workers",
]
