"""The flags of an input pipeline, for programs that use absl: they are defined in the program's own flags.

simimg.flags.define_input(batch_size=256)

def main(_):
    train = simimg.flags.load("train", shuffle=True)
    test = simimg.flags.load("test")
"""

from __future__ import annotations

from typing import Any

from absl import flags

from simimg.api.dataset_api import load as load_split
from simimg.errors import UsageError

_DEFAULTS: dict[str, Any] = {"dataset_dir": None, "batch_size": 32, "seed": 0, "reader": "auto"}
_READERS = ("auto", "resident", "mapped", "stream")


def define_input(*, prefix: str = "", flag_values: flags.FlagValues | None = None, **defaults: Any) -> None:
    """Define `--dataset_dir`, `--batch_size`, `--seed` and `--reader`; they are shown by the program's `--help`.

    Args:
        prefix: stands before each name, such as `input_`, if the program has a flag of the same name.
        flag_values: where to define them; by default the flags of the program.
        **defaults: other defaults, by name. Without one, `--dataset_dir` is required.

    Raises:
        UsageError: a default is for none of these flags, or the program has a flag of one of these names.
    """
    flag_values = flags.FLAGS if flag_values is None else flag_values
    if unknown := sorted(set(defaults) - set(_DEFAULTS)):
        raise UsageError(f"define_input has no flag {unknown[0]!r}. It has: {', '.join(_DEFAULTS)}.")
    for name in _DEFAULTS:
        if prefix + name in flag_values:
            raise UsageError(f"the program has a flag --{prefix}{name} already. Give another prefix, as 'input_'.")
    values = {**_DEFAULTS, **defaults}
    flags.disclaim_key_flags()  # they are the flags of the module that calls this one
    folder = f"{prefix}dataset_dir"
    flags.DEFINE_string(folder, values["dataset_dir"], "folder that `simimg convert` wrote", flag_values=flag_values)
    flags.DEFINE_integer(
        f"{prefix}batch_size", values["batch_size"], "examples per batch, over all devices", 1, flag_values=flag_values
    )
    flags.DEFINE_integer(f"{prefix}seed", values["seed"], "seed of the order of the examples", flag_values=flag_values)
    flags.DEFINE_enum(f"{prefix}reader", values["reader"], _READERS, "how the shards are read", flag_values=flag_values)
    if values["dataset_dir"] is None:
        flags.mark_flag_as_required(folder, flag_values=flag_values)


def load(split: str = "train", *, prefix: str = "", flag_values: flags.FlagValues | None = None, **options: Any) -> Any:
    """Return `simimg.load` of a split, as the flags say; call it after they are parsed.

    Args:
        split: `train`, `test`, …
        prefix: as in `define_input`.
        flag_values: as in `define_input`.
        **options: further arguments of `simimg.load`, which override the flags.

    Raises:
        UsageError: `define_input` was not called; or as for `simimg.load`.
    """
    flag_values = flags.FLAGS if flag_values is None else flag_values
    if f"{prefix}dataset_dir" not in flag_values:
        raise UsageError("there are no flags of an input. Call simimg.flags.define_input() before absl.app.run.")
    given = {name: flag_values[f"{prefix}{name}"].value for name in _DEFAULTS}
    given |= options
    if given["dataset_dir"] is None:
        raise UsageError(
            f"--{prefix}dataset_dir has no value. Call load after the flags are parsed, as in absl.app.run."
        )
    return load_split(given.pop("dataset_dir"), split, **given)
