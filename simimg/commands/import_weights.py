"""Import the weights of SSCD, a pretrained copy detector.

The result is a model folder for `simimg index --model`. The file is one of those that the README of
facebookresearch/sscd-copy-detection links to: `sscd_disc_mixup.torchvision.pt`, or any other of its `.torchvision.pt`,
`.classy.pt` and `.torchscript.pt` files. PyTorch is not needed. Check that the license of the weights allows your use.

Example: simimg import-weights --model_dir=models/sscd sscd_disc_mixup.torchvision.pt
         simimg index --model=models/sscd --image_dir=photos --index_dir=indexes/photos-sscd
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg.commands.console import Result, quiet_tensorflow

with quiet_tensorflow():
    from simimg.errors import UsageError
    from simimg.models.sscd import import_sscd
from tfrecords.options import option

JSON_KEYS = "model_dir num_weights dim image_size"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `import_weights`. Raises UsageError unless exactly one file is given."""

    files: tuple[str, ...] = option("The file of weights.", positional=True)
    model_dir: Path = option("Folder of the model; must be new.")
    image_size: int = option("Side in px of the square that images are stretched to; the authors use 288 and 320.", 288)

    def __post_init__(self) -> None:
        if len(self.files) != 1:
            raise UsageError(f"name one file of weights. Received: {', '.join(self.files)}")


def run(options: Options) -> Result:
    """Import the weights."""
    path = Path(options.files[0]).expanduser()
    model = import_sscd(path, options.model_dir, image_size=options.image_size)
    num_weights, dim = model.count_params(), int(model.output_shape[-1])
    sizes = {"num_weights": num_weights, "dim": dim, "image_size": options.image_size}
    text = (
        f"model: {options.model_dir}, with {num_weights:,} weights of {path.name}\n"
        f"its embedding of an image of {options.image_size} x {options.image_size} px has {dim} numbers\n"
        f"use it with: simimg index --model={options.model_dir} --image_dir=PATH --index_dir=PATH"
    )
    return Result(values={"model_dir": str(options.model_dir), **sizes}, text=text)
