"""A network that finds copies of photos, learned from the photos alone: no labels.

EfficientNet-Lite0 with ImageNet's weights stays as it is, and a linear layer on its pooled features learns what an
edited copy and its original have in common.
"""

OPTIONS = {
    "objective": "similarity",
    "model": "lite0",
    "train_backbone": False,
    "epochs": 10,
    "global_batch_size": 64,
    "embedding_dim": 256,
    "temperature": 0.05,
    "entropy_weight": 1.0,
    "queue_size": 4096,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "weight_decay": 1e-4,
    "loss": "categorical",
    "label_smoothing": 0.0,
    "rotation_degrees": 15.0,
    "crop_min_area": 0.25,
    "colour_jitter": 0.5,
    "horizontal_flip": True,
    "grayscale": 0.2,
    "blur": 3.0,
    "min_jpeg_quality": 10.0,
    "cutout": 0.3,
    "quarter_turns": 0.05,
    "paste": 0.2,
    "bars": 0.15,
    "border": "constant",
}
