"""The options of commands whose tasks run in this process or on Ray: `index`, `duplicates`, and `leaks`."""

from __future__ import annotations

import dataclasses

from simimg.errors import UsageError
from tfrecords.convert.plan.convert_config import RAY_ADDRESS_HELP
from tfrecords.options import check_choices, option
from tfrecords.storage.object_cache import CacheOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineOptions(CacheOptions):
    """Raises UsageError if an option is for an engine that was not chosen, or if nodes could not see the index."""

    engine: str = option(
        "Where images are read, embedded and compared: in this process, or by tasks on Ray (extra `ray`), which need "
        "--index_dir.",
        "local",
        choices=("local", "ray"),
        group="workers",
    )
    ray_address: str = option(RAY_ADDRESS_HELP, "", group="workers")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        if self.engine == "local" and self.ray_address:
            raise UsageError(f"--ray_address={self.ray_address} needs --engine=ray.")
        if self.engine != "local" and getattr(self, "index_dir", None) is None:
            raise UsageError(f"--engine={self.engine} needs --index_dir=PATH, a folder that all nodes see, or a URL.")
