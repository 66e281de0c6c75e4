"""`show`: the page of a dataset, of a part of it, and of one example."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simimg.commands.show import Options, run
from simimg.errors import DataError, UsageError
from tfrecords.format.manifest import read_manifest

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The words of a page, whose tags have to be balanced, and its images."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words, self.images = "", []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script", "title"} & set(self.open):
            self.words += f" {data}"


@pytest.fixture(scope="module")
def zoo(write_dataset: Callable[..., Path], make_file: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 examples of two classes: one image under both, one near-duplicate; and three rejected files."""
    ants = [make_file(path=f"ant/{i}.jpg", split="test" if i % 4 == 3 else "train") for i in range(20)]
    bees = [make_file(path=f"bee/{i}.jpg", label=1, split="test" if i % 4 == 3 else "train") for i in range(8)]
    copies = [
        make_file(path="bee/same_as_ant_0.jpg", label=1, shows=0, file=0, group=0),
        make_file(path="ant/like_1.jpg", group=1, size=(30, 20)),
    ]
    refused = [
        make_file(path="ant/half.jpg", reason="truncated", detail="it ends early"),
        make_file(path="bee/none.jpg", label=1, reason="empty", detail="the file has no bytes"),
        make_file(path="<b>loose.txt", label=-1, reason="no_class_folder", detail="move it into one"),
    ]
    files = [*ants, *bees, *copies, *refused]
    return write_dataset(tmp_path_factory.mktemp("show") / "zoo", files, ("ant", "bee"))


def shown(folder: Path, page: Path, **options: Any) -> tuple[dict[str, Any], str, Page]:
    result = run(Options(dataset_dirs=(str(folder),), page=page, **options))
    return result.values, result.text, Page(page)


def test_everything(zoo: Path, tmp_path: Path) -> None:
    before = sorted(zoo.iterdir())
    values, text, page = shown(zoo, tmp_path / "new" / "page.html")
    assert (values["num_examples"], values["classes"], values["num_refused"]) == (30, {"ant": 21, "bee": 9}, 3)
    assert values["splits"] == {"train": 23, "test": 7}
    assert values["reasons"] == {"empty": 1, "truncated": 1, "no_class_folder": 1}
    conflict = {"ids": [0, 56], "paths": ["ant/0.jpg", "bee/same_as_ant_0.jpg"], "classes": ["ant", "bee"]}
    assert values["label_conflicts"] == [conflict]
    assert (values["num_groups"], values["example"]) == (2, None)
    for words in (
        "images with several labels: 1, e.g. ant/0.jpg, bee/same",
        "groups of copies: 2 with 4",
        "new/page.html",
    ):
        assert words in text
    for words in (
        "30 examples 3 files rejected 1 label conflict 1 group of near-duplicates",
        "Samples", "Originals", "Label conflicts 1 group with 2 images", "2 classes: ant, bee",
        "it ends early", "<b>loose.txt",
    ):  # fmt: skip
        assert words in page.words
    assert any(image["alt"].startswith("ant/like_1.jpg") for image in page.images)
    assert "Edits" not in page.words
    assert sorted(zoo.iterdir()) == before  # nothing is written into the dataset


def test_a_part(zoo: Path, tmp_path: Path) -> None:
    values, text, page = shown(zoo, tmp_path / "page.html", class_name="bee", split="test")
    assert (values["num_examples"], values["splits"], values["classes"]) == (2, {"test": 2}, {"bee": 2})
    assert "2 examples (2 test)" in text
    assert "zoo Version 1.0.0: class bee, split test" in page.words
    assert "id 46, test, bee" in page.words
    assert "Label conflicts" not in page.words
    values, _, page = shown(zoo, tmp_path / "page.html", class_name="bee")
    assert len(values["label_conflicts"]) == 1
    assert any(image["alt"].startswith("ant/0.jpg") for image in page.images)  # of another class, in the same group
    values, text, page = shown(zoo, tmp_path / "page.html", reason="truncated")
    assert (values["num_examples"], values["reasons"]) == (0, {"truncated": 1})
    assert "rejected (truncated): ant/half.jpg" in text
    assert "the file has no bytes" not in page.words
    values, text, _ = shown(zoo, tmp_path / "page.html", reason="truncated", class_name="bee")
    assert "no file" in text


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_one_example(
    zoo: Path, write_dataset: Callable[..., Path], make_file: Any, pixels_of: Any, tmp_path: Path, encoding: str
) -> None:
    folder = zoo
    if encoding != "raw":
        folder = write_dataset(tmp_path / "png", [make_file(path="a"), make_file(path="b")], ("x",), encoding=encoding)
    values, text, page = shown(folder, tmp_path / "page.html", id=2)
    row = next(row for row in read_manifest(folder) if row.id == 2)
    example = values["example"]
    assert (example["path"], example["sha256"], example["class"]) == (
        row.path,
        row.sha256,
        "ant" if encoding == "raw" else "x",
    )
    assert (example["position"], example["encoding"]) == (row.position, encoding)
    assert re.search(rf"^sha256 +{row.sha256}$", text, re.M)
    assert row.sha256 in page.words
    image = Image.open(io.BytesIO(base64.b64decode(page.images[0]["src"].partition(",")[2])))
    assert np.array_equal(np.asarray(image)[::32, ::32], pixels_of(1, 8))
    if encoding == "raw":
        assert example["copies"] == [58]
        assert any("ant/like_1.jpg" in image["alt"] for image in page.images)
        values, _, page = shown(folder, tmp_path / "page.html", id=60)
        assert (values["example"]["reason"], values["example"]["detail"]) == ("truncated", "it ends early")
        assert "None: the file was rejected." in page.words


def test_what_cannot_be_shown(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"class_name": "bees"}, "--class=bees: .* has no such class. Did you mean 'bee'"),
        ({"split": "validation"}, "no such split. It has: train, test"),
        ({"reason": "corrupt"}, "no such reason. It has: empty, truncated, no_class_folder"),
        ({"id": 3}, "--id=3: .* has no such id. Its 33 ids are 0 to 64"),
        ({"id": 2, "split": "test"}, "leave out --class, --split and --reason"),
    ]
    for options, message in mistakes:
        with pytest.raises(UsageError, match=message):
            run(Options(dataset_dir=zoo, **options))
    with pytest.raises(UsageError, match="name one dataset folder"):
        run(Options(dataset_dirs=("a", "b")))
    with pytest.raises(UsageError, match=r"is not a dataset of .* Name one that"):
        run(Options(dataset_dir=tmp_path))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "zoo").mkdir()
    for path in zoo.iterdir():
        (tmp_path / "zoo" / path.name).write_bytes(
            path.read_bytes()[:-1] if "train" in path.name else path.read_bytes()
        )
    with pytest.raises(DataError, match="Convert"):
        run(Options(dataset_dir=tmp_path / "zoo"))
    assert [path.name for path in tmp_path.iterdir()] == ["zoo"]
    assert run(Options(dataset_dir=zoo, id=0)).values["page"] == "zoo-1.0.0-0.html"
