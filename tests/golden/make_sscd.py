"""Makes the files sscd-tiny.* with PyTorch 2.13: SSCD's network with two stages, a few channels wide, random.

    python make_sscd.py

torchvision.pt      state dict by torchvision's names
torchscript.pt      the same module through `torch.jit.script`
traced.pt           Classy Vision's names, in two groups as a ResNeXt, through `torch.jit.trace`
embeddings.npz      what the modules make of `pictures()`: torchvision, traced
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

FOLDER = Path(__file__).parent
STAGES = ((2, 4, 12, 1), (1, 8, 16, 2))  # blocks, channels inside, channels behind, stride
DIM = 8


def pictures():
    """Two pictures of 48 px: noise, and something smooth."""
    noise = np.random.default_rng(5).integers(0, 256, (48, 48, 3), np.uint8)
    y, x = np.mgrid[:48, :48]
    return np.stack([noise, np.stack([5 * y, 5 * x, 2 * (x + y)], axis=-1).astype(np.uint8)])


def conv(inside, outside, size, stride=1, groups=1):
    return nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False)


def shortcut(inside, outside, stride):
    if stride == 1 and inside == outside:
        return nn.Identity()
    return nn.Sequential(conv(inside, outside, 1, stride), nn.BatchNorm2d(outside))


class GeM(nn.Module):
    def forward(self, x):
        return x.clamp(min=1e-6).pow(3.0).mean(dim=(2, 3)).pow(1 / 3)


class Norm(nn.Module):
    def forward(self, x):
        return nn.functional.normalize(x)


class Block(nn.Module):
    def __init__(self, inside, width, outside, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inside, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, outside, 1), nn.BatchNorm2d(outside)
        self.downsample = shortcut(inside, outside, stride)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ClassyBlock(nn.Module):
    def __init__(self, inside, width, outside, stride):
        super().__init__()
        first = [conv(inside, width, 1), nn.BatchNorm2d(width), nn.ReLU()]
        second = [conv(width, width, 3, stride, groups=2), nn.BatchNorm2d(width), nn.ReLU()]
        self.convolutional_block = nn.Sequential(*first, *second, conv(width, outside, 1))
        self.bn = nn.BatchNorm2d(outside)
        self.downsample = shortcut(inside, outside, stride)

    def forward(self, x):
        return torch.relu(self.bn(self.convolutional_block(x)) + self.downsample(x))


def stages(block, name):
    inside = 6
    for s, (num_blocks, width, outside, stride) in enumerate(STAGES):
        blocks = OrderedDict()
        for b in range(num_blocks):
            blocks[name.format(s=s, b=b)] = block(inside, width, outside, 1 if b else stride)
            inside = outside
        yield nn.Sequential(blocks)


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.maxpool = conv(3, 6, 7, 2), nn.BatchNorm2d(6), nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = stages(Block, "{b}")
        self.avgpool, self.fc = GeM(), nn.Linear(16, DIM)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        return self.fc(self.avgpool(self.layer2(self.layer1(x))))


class ClassyStem(nn.Module):
    def __init__(self):
        super().__init__()
        self._module = nn.Sequential(conv(3, 6, 7, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1))

    def forward(self, x):
        return self._module(x)


class ClassyBackbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.initial_block = ClassyStem()
        self.blocks = nn.Sequential(*stages(ClassyBlock, "block{s}-{b}"))

    def forward(self, x):
        return self.blocks(self.initial_block(x))


class Model(nn.Module):
    def __init__(self, backbone, embeddings):
        super().__init__()
        self.backbone, self.embeddings = backbone, embeddings
        random = torch.Generator().manual_seed(3)
        for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
            if tensor.dim() > 1:
                tensor.data.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=random)
            elif tensor.is_floating_point():
                middle = 1.0 if name.endswith(("running_var", "bn.weight")) else 0.5
                tensor.data.uniform_(middle - 0.5, middle + 0.5, generator=random)

    def forward(self, x):
        return self.embeddings(self.backbone(x))


def main():
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.from_numpy(pictures()) / 255 - mean) / deviation).permute(0, 3, 1, 2)
    model = Model(Backbone(), Norm()).eval()
    classy = Model(ClassyBackbone(), nn.Sequential(GeM(), nn.Linear(16, DIM), Norm())).eval()
    torch.save(model.state_dict(), FOLDER / "sscd-tiny.torchvision.pt")
    torch.jit.script(model).save(FOLDER / "sscd-tiny.torchscript.pt")
    torch.jit.trace(classy, x).save(FOLDER / "sscd-tiny.traced.pt")
    with torch.no_grad():
        np.savez(FOLDER / "sscd-tiny.embeddings.npz", torchvision=model(x).numpy(), traced=classy(x).numpy())


if __name__ == "__main__":
    main()
