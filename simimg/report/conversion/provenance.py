"""How a data set was made: the command that makes it again, its options, and what else decided its bytes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from simimg.report.html_page import command, escape
from simimg.report.number_format import count_of, storage
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.format.layout import Layout
from tfrecords.format.naming import VERSION

__all__ = ["command_line", "provenance"]

_PHOTOS = "PHOTOS"
_ALWAYS = ("name", "image_size", "seed")  # said even where they are the defaults, as what people look for first


def provenance(layout: Layout) -> str:
    """Returns how the data set was made, as HTML."""
    options = {key: _text(value) for key, value in layout.config.items()}
    shards = {  # by split
        split: f"{count_of(len(infos), 'shard', 'shards')}, {storage(sum(info.num_bytes for info in infos))}"
        for split, infos in layout.splits.items()
    }
    later = "" if layout.version == VERSION else " Some of them were added later, with <code>--append</code>."
    where = f'<p class="quiet"><code>{_PHOTOS}</code> stands for the originals.{later}</p>'
    digest = {"names, classes and sizes of the files, SHA-256": layout.source_sha256}
    return (
        f"{command(command_line(layout))}{where}<h3>Options</h3>{_values(options)}<h3>Shards</h3>{_values(shards)}"
        f"<h3>Made from</h3>{_values(digest)}<h3>Made with</h3>{_values(layout.versions)}"
    )


def command_line(layout: Layout) -> str:
    """Returns the shell command that makes the data set again, with the options that are not the defaults."""
    config = layout.config
    known: dict[str, Any] = {
        "image_dir": _PHOTOS,
        **{key: config[key] for key in ("name", "image_size") if key in config},
    }
    defaults = ConvertConfig(**known).resolved().determining()
    given = {key: value for key, value in config.items() if key in _ALWAYS or value != defaults.get(key)}
    words = ["simimg", "convert", f"--image_dir={_PHOTOS}"]
    words += [f"--{key}={shlex.quote(_text(value))}" for key, value in given.items()]
    return " ".join(words)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _values(values: Mapping[str, str]) -> str:
    items = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(str(value)) or '–'}</dd></div>" for key, value in values.items()
    )
    return f'<dl class="values">{items}</dl>'
