"""EfficientNet-Lite1 with ImageNet's weights, for datasets of 224 px: the most accurate single network.

The softmax is fitted first, then the network is tuned for two epochs, at 240 px. On the five Caltech categories of
docs/evaluation.md at 224 px, five seeds: accuracy 0.982 (sd 0.014), 1 minute on two cores.
"""

from simimg.presets import lite0

OPTIONS = {
    **lite0.OPTIONS,
    "model": "lite1",
    "resolution": 240,
    "epochs": 2,
    "learning_rate": 2e-5,
}
