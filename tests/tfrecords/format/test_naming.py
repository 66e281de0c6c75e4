"""Names are spelled as TensorFlow Datasets spells them."""

from pathlib import Path

import pytest

from tfrecords.base_errors import UsageError
from tfrecords.format.naming import check_file_name, check_name, check_split, check_splits, dataset_dir, shard_name


def test_folder_and_shards() -> None:
    assert dataset_dir(Path("data"), "caltech5") == Path("data/caltech5/1.0.0")
    assert shard_name("caltech5", "train", 0, 8) == "caltech5-train.tfrecord-00000-of-00008"
    assert shard_name("caltech5", "test", 123456, 200000) == "caltech5-test.tfrecord-123456-of-200000"


@pytest.mark.parametrize("name", ["a", "Zoo", "caltech5", "a_b_1", "x_"])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "1zoo", "_zoo", "a-b", "a b", "a/b", "..", "zoo\n", "새", "é", "a."])
def test_bad_names_are_shown(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert f"--name={name}: " in str(caught.value)
    assert "--name=caltech5" in str(caught.value)


@pytest.mark.parametrize("split", ["train", "test", "part_2", "2024", "A"])
def test_good_splits(split: str) -> None:
    assert check_split(split) == split


@pytest.mark.parametrize(
    "split", ["", "a-b", "a b", "train\n", "tráin", "a.b", "a/b", "all", "train+test", "../../x", "x" * 101]
)
def test_bad_splits_are_shown(split: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_split(split)
    assert repr(split) in str(caught.value)


def test_no_more_splits_than_the_manifest_can_number() -> None:
    check_splits([f"s{number}" for number in range(127)])
    with pytest.raises(UsageError, match=r"at most 127 splits\. Received: 128"):
        check_splits([f"s{number}" for number in range(128)])
    with pytest.raises(UsageError, match="split 'my split'"):
        check_splits(["train", "my split"])


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/x", "../x", "a/b", "a\0"])
def test_a_file_name_leads_nowhere_else(name: str) -> None:
    assert check_file_name("..a") == "..a"
    with pytest.raises(ValueError, match="should have no folder in it"):
        check_file_name(name)
