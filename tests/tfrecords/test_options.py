"""One declaration an option: its default, its help, its choices, its place in JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tfrecords.base_errors import UsageError
from tfrecords.options import check_choices, option, to_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Options of all kinds."""

    folder: Path = option("Where.", positional=True)
    how: str = option("How.", "fast", choices=("fast", "slow"))
    names: tuple[str, ...] = option("Which.", ())
    count: int = option("How many.", 3)


def test_declaration() -> None:
    fields = {field.name: field for field in dataclasses.fields(Config)}
    assert fields["folder"].default is dataclasses.MISSING
    more = {"group": "", "words": {}, "flag": "", "repeated": "", "url": False, "output": False, "variable": ""}
    assert fields["folder"].metadata == {"help": "Where.", "choices": (), "positional": True, **more}
    assert fields["how"].default == "fast"
    assert fields["how"].metadata == {"help": "How.", "choices": ("fast", "slow"), "positional": False, **more}
    with pytest.raises(TypeError, match="folder"):
        Config()


def test_choices() -> None:
    check_choices(Config(folder=Path("x"), how="slow"))
    with pytest.raises(UsageError, match=r"^--how=slowly: should be one of fast, slow\.$"):
        check_choices(Config(folder=Path("x"), how="slowly"))


def test_json() -> None:
    values = to_json(Config(folder=Path("a/b"), names=("x", "y")))
    assert values == {"folder": "a/b", "how": "fast", "names": ["x", "y"], "count": 3}
    assert json.loads(json.dumps(values)) == values
