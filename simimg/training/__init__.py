"""Batches to a trained model."""

from simimg.training.loop import StepInfo, Watcher, distribute, train
from simimg.training.run_folder import RunInfo, TrainResult, load_model, load_result, load_run, load_trained
from simimg.training.saved_model import export_saved_model
from simimg.training.sscd_weights import import_sscd
from simimg.training.strategy import make_strategy, workers
from simimg.training.tensorboard import TensorBoard
from simimg.training.train_config import TrainConfig

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
