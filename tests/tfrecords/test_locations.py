"""What is a URL, what is a path, and what `pathlib` makes of a URL."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tfrecords.base_errors import UsageError
from tfrecords.locations import location_text, path_of, refuse_url, url_of


@pytest.mark.parametrize(
    "url", ["s3://bucket/data/zoo", "gs://bucket", "memory://a/b", "abfs+x://a", "simplecache::s3://bucket/a"]
)
def test_a_url_and_what_pathlib_makes_of_it(url: str) -> None:
    assert url_of(url) == url_of(Path(url)) == location_text(Path(url)) == url
    with pytest.raises(UsageError, match=f"--there={re.escape(url)}: this has to be a path of this machine"):
        refuse_url(Path(url), "--there")


@pytest.mark.parametrize("path", ["data/zoo", "/data/a:/b", "a:b", "c:/x", "./x", "", "photo: 1/2", "s3", "~/x:/y"])
def test_a_path(path: str) -> None:
    assert url_of(path) == url_of(Path(path)) == ""
    assert path_of(path) == Path(path)
    assert location_text(Path(path)) == str(Path(path))
    refuse_url(path, "--there")


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a%20b").touch()
    for url in (f"file://{tmp_path}", f"file://localhost{tmp_path}", f"local://{tmp_path}", Path(f"file://{tmp_path}")):
        assert url_of(url) == ""
        assert path_of(url) == tmp_path
    assert path_of(f"file://{tmp_path}/a%20b") == tmp_path / "a%20b"  # which exists
    assert path_of(f"file://{tmp_path}/c%20d") == tmp_path / "c d"
