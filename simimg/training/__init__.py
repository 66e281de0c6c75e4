"""Batches to a trained model."""

from simimg.training.config import TrainConfig
from simimg.training.loop import StepInfo, TrainResult, Watcher, distribute, train
from simimg.training.runs import RunInfo, load_model, load_run
from simimg.training.strategy import make_strategy

__all__ = [
    "RunInfo",
    "StepInfo",
    "TrainConfig",
    "TrainResult",
    "Watcher",
    "distribute",
    "load_model",
    "load_run",
    "make_strategy",
    "train",
]
