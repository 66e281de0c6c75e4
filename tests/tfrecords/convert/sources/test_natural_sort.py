"""The natural order, the class names and the digest of a source."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources import Source, natural_key, printable
from tfrecords.convert.sources.class_folders import source_of_folders
from tfrecords.convert.sources.image_folder import FolderFiles
from tfrecords.convert.sources.labels import FileListing, some_of, source_of_labels
from tfrecords.convert.sources.natural_sort import natural_order
from tfrecords.convert.sources.source import MAX_FILE_BYTES, class_name
from tfrecords.format.quarantine import Reason, Refusal

TEXT = st.text(alphabet="ab01٣².éB벌 _", max_size=8) | st.text(max_size=12) | st.text("0123\0/٣", max_size=6)
NAMES = st.text("ab/.019é", max_size=8) | st.integers(0, 10**140).map(str) | st.text("0", max_size=130)


@given(st.lists(TEXT, max_size=8), st.randoms())
@settings(max_examples=200)
def test_natural_order_is_total(texts: list[str], shuffler: random.Random) -> None:
    in_order = sorted(texts, key=natural_key)
    shuffled = list(texts)
    shuffler.shuffle(shuffled)
    assert sorted(shuffled, key=natural_key) == in_order  # only one order is possible
    assert all((natural_key(a) == natural_key(b)) == (a == b) for a in texts for b in texts)


@given(st.text("ab_/", max_size=5), st.integers(0, 10**20), st.integers(0, 10**20), st.text("ab_", max_size=4))
def test_natural_order_counts(before: str, a: int, b: int, after: str) -> None:
    keys = [natural_key(f"{before}{number}{after}") for number in (a, b)]
    assert (keys[0] < keys[1]) == (a < b)


@given(st.lists(NAMES | TEXT, max_size=12))
@settings(max_examples=500)
def test_the_fast_order_is_the_natural_one(texts: list[str]) -> None:
    assert [texts[at] for at in natural_order(texts)] == sorted(texts, key=natural_key)


@given(st.lists(st.text("a10.", max_size=6), max_size=12))
@settings(max_examples=500)
def test_the_fast_order_of_plain_names(texts: list[str]) -> None:
    """None of these takes the slow way, so zeros and lengths are under test."""
    assert [texts[at] for at in natural_order(texts)] == sorted(texts, key=natural_key)


def test_natural_order_of_names() -> None:
    expected = ["1.jpg", "2.jpg", "10.jpg", "image_2.jpg", "image_10.jpg", "image_b.jpg"]
    backwards = expected[::-1]
    assert sorted(backwards, key=natural_key) == expected
    assert [backwards[at] for at in natural_order(backwards)] == expected
    assert sorted(["a01", "a1", "a001"], key=natural_key) == ["a001", "a01", "a1"]
    assert natural_order(["a1", "a001", "a01"]) == [1, 2, 0]
    assert natural_order(["00", "0", "000"]) == [1, 0, 2]


def source_of(rows: list[tuple[str, str, int]], names: tuple[str, ...] = ("a", "b"), splits: str = "") -> Source:
    return Source(
        location="here",
        class_names=names,
        paths=[path for path, _, _ in rows],
        labels=np.array([names.index(label) if label else -1 for _, label, _ in rows], np.int32),
        sizes=np.array([size for *_, size in rows], np.int64),
        stamps=np.zeros(len(rows), np.int64),
        files=FolderFiles("/"),
        splits=list(splits) or None,
    )


ROWS = [("a/1.jpg", "a", 1), ("b/2.jpg", "b", 2), ("README", "", 3), ("a/\udcff.jpg", "a", -1)]


@given(st.permutations(ROWS))
def test_the_digest_does_not_depend_on_the_order_of_ids(rows: list[tuple[str, str, int]]) -> None:
    assert source_of(rows).sha256() == source_of(ROWS).sha256()


def test_the_digest_depends_on_everything_else() -> None:
    """The value is pinned: whoever changes it has every unfinished conversion begin anew."""
    digests = [
        source_of(ROWS).sha256(),
        source_of([("a/2.jpg", "a", 1), *ROWS[1:]]).sha256(),
        source_of([("a/1.jpg", "b", 1), *ROWS[1:]]).sha256(),
        source_of([("a/1.jpg", "", 1), *ROWS[1:]]).sha256(),
        source_of([("a/1.jpg", "a", 7), *ROWS[1:]]).sha256(),
        source_of(ROWS[1:]).sha256(),
        source_of(ROWS, names=("b", "a")).sha256(),
        source_of(ROWS, splits="tttv").sha256(),
        source_of(ROWS, splits="ttvv").sha256(),
    ]
    assert len(set(digests)) == len(digests)
    assert digests[0] == "e1d848f88de9c00a24010d519b30e23131a34c58f43df481ef751e314562bcaf"


def test_usable_leaves_the_refused_out() -> None:
    source = source_of(ROWS)
    assert source.usable().tolist() == [0, 1, 2, 3]
    source.refused[2] = Refusal(Reason.NO_CLASS_FOLDER, "")
    source.refused[0] = Refusal(Reason.UNREADABLE, "")
    assert source.usable().tolist() == [1, 3]
    assert source.usable().dtype == np.int64


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\rb", "a\n"])
def test_names_that_a_list_of_labels_cannot_hold(name: str) -> None:
    with pytest.raises(UsageError, match=r"a class name should not be blank or have a line break\. Rename the folder"):
        class_name(name)


def test_printable_shows_bytes_that_are_no_utf8() -> None:
    assert printable("caf\udce9/벌.jpg") == "caf\\xe9/벌.jpg"
    assert class_name("caf\udce9") == "caf\\xe9"


def labeled(*labels: str) -> FileListing:
    found = FileListing()
    for number, label in enumerate(labels):
        found.add(f"{number}.jpg", 1, label=label)
    return found


def test_whole_numbers_are_ordered_by_their_value_and_names_naturally() -> None:
    files = FolderFiles("/")
    source = source_of_labels(labeled("10", "-1", "9", "10"), location="t", files=files)
    assert source.class_names == ("-1", "9", "10")
    assert source.labels.tolist() == [2, 0, 1, 2]
    source = source_of_labels(labeled("c10", "c9", "b", "7"), location="t", files=files)
    assert source.class_names == ("7", "b", "c9", "c10")


def test_labels_that_are_chosen() -> None:
    source = source_of_labels(
        labeled("a", "b", "", "c", "a"), location="t", files=FolderFiles("/"), categories=("c", "a")
    )
    assert source.class_names == ("c", "a")
    assert source.paths == ["0.jpg", "3.jpg", "4.jpg"]
    assert source.labels.tolist() == [1, 0, 1]
    with pytest.raises(UsageError, match=r"t has no class 'cat'\. It has: a, b"):
        source_of_labels(labeled("a", "b"), location="t", files=FolderFiles("/"), categories=("cat",))


def test_no_label_at_all() -> None:
    with pytest.raises(
        UsageError, match=r"has no image file that can be used \(2 files; the first was rejected: it has no"
    ):
        source_of_labels(labeled("", ""), location="t", files=FolderFiles("/"))


def test_two_classes_of_one_name() -> None:
    with pytest.raises(UsageError, match=r"t has two classes named 'caf\\\\xe9'\. Rename one"):
        source_of_labels(labeled("caf\udce9", "caf\\xe9"), location="t", files=FolderFiles("/"))


def test_huge_files_are_refused() -> None:
    found = FileListing()
    found.add("a.jpg", MAX_FILE_BYTES, label="a")
    found.add("b.jpg", MAX_FILE_BYTES + 1, label="a")
    source = source_of_labels(found, location="t", files=FolderFiles("/"))
    assert {id: refusal.reason for id, refusal in source.refused.items()} == {1: Reason.TOO_LARGE}


def test_a_file_that_is_replaced_is_left_out_with_all_that_belongs_to_it() -> None:
    found = FileListing(replaced={0, 1})
    for number in range(4):
        refused = Refusal(Reason.UNREADABLE, str(number)) if number % 2 else None
        found.add(f"a/{number % 2}.jpg", number, number, (number, 0, 1), refused=refused)
    source = source_of_folders(found, location="t", files=FolderFiles("/"), name="t")
    assert source.paths == ["a/0.jpg", "a/1.jpg"]
    assert (source.sizes.tolist(), source.stamps.tolist()) == ([2, 3], [2, 3])
    assert source.places is not None
    assert source.places.tolist() == [[2, 0, 1], [3, 0, 1]]
    assert {id: refusal.detail for id, refusal in source.refused.items()} == {1: "3"}


def test_long_lists_are_cut() -> None:
    assert some_of(["a", "b\n"]) == "a, 'b\\n'"
    assert some_of([str(number) for number in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


def test_more_digits_than_an_integer_is_read_from() -> None:
    ten = "1" + "0" * 5000
    texts = ["x" + ten, "x9", f"x{'9' * 5000}", f"x0{ten}", f"x{'٣' * 4400}", "x"]
    expected = ["x", "x9", f"x{'9' * 5000}", f"x0{ten}", "x" + ten, f"x{'٣' * 4400}"]
    assert sorted(texts, key=natural_key)[:2] == expected[:2]
    assert sorted(texts[:4], key=natural_key) == ["x9", f"x{'9' * 5000}", f"x0{ten}", "x" + ten]
    assert [texts[at] for at in natural_order(texts)] == sorted(texts, key=natural_key)
