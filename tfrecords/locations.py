"""Tells URLs from paths of this machine, also after `pathlib.Path` has taken one of their slashes away.

`Path("s3://bucket/data")` is the relative path `s3:/bucket/data`, a folder called `s3:`. Options that are paths hold
URLs in this form, and everything that opens one asks here first, so that no such folder is ever read or made.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from pathlib import Path

from tfrecords.base_errors import UsageError

# A protocol of two or more characters, perhaps after others, as in simplecache::s3://bucket/data.
_URL = re.compile(r"((?:[A-Za-z][\w+.-]+::)*[A-Za-z][\w+.-]+):/{1,3}(?=[^/]|$)")
_LOCAL = ("file", "local")


def url_of(location: str | Path) -> str:
    """Return the URL that `location` is, "" if it is a path of this machine, as `file://` URLs are."""
    match = _URL.match(str(location))
    if match is None or match[1].lower() in _LOCAL:
        return ""
    return f"{match[1]}://{str(location)[match.end() :]}"


def path_of(location: str | Path) -> Path:
    """Return the path that `location` is, which is not a URL of another machine; `file://` is taken off."""
    match = _URL.match(str(location))
    if match is None or match[1].lower() not in _LOCAL:
        return Path(location)
    rest = str(location)[match.end() :].removeprefix("localhost/")
    plain = f"/{rest}"
    return Path(plain if os.path.lexists(plain) else urllib.parse.unquote(plain))


def location_text(location: str | Path) -> str:
    """Return a location as it was given, for messages and for files."""
    return url_of(location) or str(location)


def refuse_url(location: str | Path | None, what: str) -> None:
    """Raise UsageError if `location`, which `what` names, is a URL."""
    if location is not None and (url := url_of(location)):
        raise UsageError(
            f"{what}={url}: this has to be a path of this machine. Name a local one, and copy files from or to the "
            "store with its own tools."
        )
