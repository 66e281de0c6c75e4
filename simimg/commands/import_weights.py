"""Make a model folder of the weights of SSCD, a copy detector, for `simimg index` to use.

The file is one of those that facebookresearch/sscd-copy-detection's README links to: `sscd_disc_mixup.torchvision.pt`,
or any other of its `.torchvision.pt`, `.classy.pt` and `.torchscript.pt`. PyTorch is not needed. Whether their licence
lets you use them is for you to see.

Example: simimg import-weights --model_dir=models/sscd sscd_disc_mixup.torchvision.pt
Then:    simimg index --model=models/sscd --image_dir=photos --index_dir=indexes/photos-sscd
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simimg.commands.console import Result, quiet_tensorflow

with quiet_tensorflow():
    from simimg.errors import UsageError
    from simimg.models import import_sscd
from tfrecords.options import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `import_weights` can be told. Raises UsageError unless it is told one file."""

    files: tuple[str, ...] = option("The file of weights.", positional=True)
    model_dir: Path = option("Where the model goes, a new folder.")
    image_size: int = option("Side of the squares that pictures are stretched to, px; the authors use 288, 320.", 288)

    def __post_init__(self) -> None:
        """Checks that there is one file."""
        if len(self.files) != 1:
            raise UsageError(f"name one file of weights. Received: {', '.join(self.files)}")


def run(options: Options) -> Result:
    """Imports."""
    path = Path(options.files[0]).expanduser()
    model = import_sscd(path, options.model_dir, image_size=options.image_size)
    num_weights, dim = model.count_params(), int(model.output_shape[-1])
    values = {
        "model_dir": str(options.model_dir),
        "num_weights": num_weights,
        "dim": dim,
        "image_size": options.image_size,
    }
    text = (
        f"{num_weights:,} weights of {path.name} are in {options.model_dir}\n"
        f"it makes {dim} numbers of a picture of {options.image_size} x {options.image_size}\n"
        f"use it with: simimg index --model={options.model_dir} --image_dir=PATH --index_dir=PATH"
    )
    return Result(values=values, text=text)
