"""A small residual network from scratch, for images of about 64 px.

On the five Caltech categories of docs/evaluation.md, five seeds: accuracy 0.889 (sd 0.011), 3 minutes on two cores.
"""

OPTIONS = {
    "model": "small",
    "epochs": 60,
    "global_batch_size": 32,
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "weight_decay": 0.05,
    "ema": 0.995,
    "loss": "categorical",
    "label_smoothing": 0.1,
    "rotation_degrees": 20.0,
    "crop_min_area": 0.35,
    "colour_jitter": 0.4,
    "horizontal_flip": True,
    "test_views": "cropped",
}
