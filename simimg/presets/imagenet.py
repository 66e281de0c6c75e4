"""ResNet-50 from scratch in 100 epochs, for datasets as large as ImageNet. It has not been run on ImageNet here.

It follows procedure A3 of Wightman, Touvron and Jégou, "ResNet strikes back", 2021 (arXiv:2110.00476), for which they
published a top-1 accuracy of 78.1 % on ImageNet's validation split: LAMB, batch size 2,048, learning rate 0.008, 5 %
warm-up and a cosine, weight decay 0.02, RandAugment, mixup 0.1, CutMix 1.0, training at 160 px and test at 224 px.
These differences have not been measured: crops grow from 128 to 192 px, which costs about as much as 160 px throughout
(progressive resizing as in FFCV's training of ImageNet); weights are averaged; the loss is softmax cross-entropy with
label smoothing instead of binary cross-entropy; RandAugment is that of `--rand_augment`, at 6 of 10 of its range; the
test takes 224 of 256 px instead of 224 of 236.

The images need shapes of their own, and a split for the figures:

    simimg convert --image_dir=imagenet --resize=short --image_size=256
    simimg train --dataset_dir=data/imagenet/1.0.0 --preset=imagenet --precision=bfloat16

Add --accumulate where a GPU has too little memory for its part of the batch.
"""

OPTIONS = {
    "model": "ResNet50",
    "weights": "none",
    "epochs": 100,
    "global_batch_size": 2048,
    "optimizer": "lamb",
    "learning_rate": 8e-3,
    "schedule": "cosine",
    "weight_decay": 0.02,
    "ema": 0.9998,
    "loss": "categorical",
    "label_smoothing": 0.1,
    "image_size": 224,
    "train_size": "128:192",
    "crop": "random",
    "rotation_degrees": 0.0,
    "crop_min_area": 1.0,
    "colour_jitter": 0.0,
    "horizontal_flip": True,
    "rand_augment": "2,18",
    "mixup": 0.1,
    "cutmix": 1.0,
}
