"""EfficientNet-Lite1 and Lite2 side by side, for up to some thousand images of 224 px: the most accurate preset.

Both networks keep ImageNet's weights. One softmax is fitted to the features of both networks, for each image, five
crops of it and all their mirror images. Predictions are the mean over the same views. On the five Caltech categories of
docs/evaluation.md at 224 px, five seeds: accuracy 0.988 (sd 0.004), 3 minutes on two cores. The measurements after the
training and the report take 2 more.
"""

OPTIONS = {
    "model": "lite1+lite2",
    "resolution": 260,
    "probe": True,
    "epochs": 0,
    "global_batch_size": 32,
    "optimizer": "adamw",
    "learning_rate": 2e-5,
    "schedule": "cosine",
    "weight_decay": 0.01,
    "ema": 0.0,
    "loss": "categorical",
    "label_smoothing": 0.1,
    "rotation_degrees": 20.0,
    "crop_min_area": 0.5,
    "colour_jitter": 0.0,
    "horizontal_flip": True,
    "test_views": "cropped",
}
