"""Training: from batches to a trained model in its folder."""

from simimg.models.model_folder import RunInfo, load_model, load_run, load_trained
from simimg.training.loop import StepInfo, Watcher, train
from simimg.training.run_folder import TrainResult, load_result
from simimg.training.strategy import make_strategy, workers
from simimg.training.tensorboard import TensorBoard
from simimg.training.train_config import TrainConfig
from simimg.training.train_step import distribute

__all__ = [
    "RunInfo",
    "StepInfo",
    "TensorBoard",
    "TrainConfig",
    "TrainResult",
    "Watcher",
    "distribute",
    "load_model",
    "load_result",
    "load_run",
    "load_trained",
    "make_strategy",
    "train",
    "workers",
]
