"""A network that finds copies of images, trained without labels.

EfficientNet-Lite0 with ImageNet's weights is not changed. A linear layer on its pooled features learns what an edited
copy and its original have in common. The gain over the unchanged features is small, see docs/evaluation.md: 0.7 to 0.8
points of recall on images it has not seen. An epoch uses two views of each image; one CPU core processes about 28 views
of 160 px per second.
"""

OPTIONS = {
    "objective": "similarity",
    "model": "lite0",
    "train_backbone": False,
    "epochs": 60,
    "global_batch_size": 64,
    "embedding_dim": 512,
    "temperature": 0.05,
    "entropy_weight": 5.0,
    "queue_size": 0,
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
