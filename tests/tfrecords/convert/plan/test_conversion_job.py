"""What a conversion has to do: ids, labels and splits of its files, also of those that are added to a dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrecords.base_errors import UsageError
from tfrecords.convert.output.publish import _made_from
from tfrecords.convert.plan.conversion_job import ConversionJob, make_job
from tfrecords.convert.plan.convert_config import ConvertConfig
from tfrecords.convert.plan.previous_version import PreviousVersion
from tfrecords.convert.plan.shard_plan import PlannedShard
from tfrecords.convert.sources import Source
from tfrecords.convert.state.receipts import Receipt
from tfrecords.format.layout import Layout, ShardInfo
from tfrecords.format.manifest import Manifest
from tfrecords.format.quarantine import Reason, Refusal
from tfrecords.format.record_layout import Offsets

Files: Any = object()


def a_source(paths: list[str], **changed: Any) -> Source:
    """Returns a source whose classes are the folders of `paths`, in the order of the alphabet."""
    names = tuple(sorted({path.split("/")[0] for path in paths}))
    values: dict[str, Any] = {
        "location": "zoo",
        "class_names": names,
        "paths": paths,
        "labels": np.array([names.index(path.split("/")[0]) for path in paths], np.int32),
        "sizes": np.arange(len(paths)) + 1000,
        "stamps": np.arange(len(paths)) + 5000,
        "files": Files,
        **changed,
    }
    return Source(**values)


def inputs(job: ConversionJob, planned: PlannedShard) -> str:
    return job.source.digest(planned.rows, job.ids, job.labels)


def photos(name: str, count: int) -> list[str]:
    return [f"{name}/{number}.png" for number in range(count)]


def a_job(
    source: Source, existing: PreviousVersion | None = None, listed: Source | None = None, **options: Any
) -> ConversionJob:
    config = ConvertConfig(image_dir="zoo", image_size=8, **options).resolved()
    return make_job(config, source, existing, listed or source)


def an_existing(paths: list[str], splits: list[str], class_names: tuple[str, ...]) -> PreviousVersion:
    """Returns a dataset of these files; those of split "" were refused. Each has a digest of its own, and no hash."""
    names = tuple(dict.fromkeys(split for split in splits if split))
    count = len(paths)
    ok = np.array([bool(split) for split in splits])
    manifest = Manifest(
        ids=np.arange(count),
        paths=paths,
        sha256=digests_of_rows(range(1, count + 1)),
        pixels_sha256=digests_of_rows(range(1, count + 1)),
        phash=np.zeros(count, np.uint64),
        widths=np.zeros(count, np.int32),
        heights=np.zeros(count, np.int32),
        labels=np.array([class_names.index(path.split("/")[0]) for path in paths], np.int32),
        split_names=names,
        splits=np.array([names.index(split) if split else -1 for split in splits], np.int8),
        shards=np.where(ok, 0, -1).astype(np.int32),
        positions=np.where(ok, np.arange(count), -1),
        groups=np.arange(count),
        reason_names=("empty",),
        reasons=np.where(ok, -1, 0).astype(np.int8),
    )
    shards: dict[str, tuple[ShardInfo, ...]] = {
        name: (ShardInfo(file=name, num_examples=splits.count(name), num_bytes=1, sha256=""),) for name in names
    }
    layout = Layout(
        name="zoo",
        version="1.0.0",
        encoding="raw",
        image_size=8,
        class_names=class_names,
        offsets=Offsets.of("raw", 8),
        splits=shards,
        config={},
        source_sha256="",
        versions={},
        files={},
    )
    return PreviousVersion(Path("data/zoo/1.0.0"), layout, manifest)


def digests_of_rows(values: Any) -> np.ndarray:
    found = np.zeros((len(values), 32), np.uint8)
    found[:, 0] = values
    return found


def a_receipt(job: ConversionJob, digests: list[int]) -> Receipt:
    """Returns a receipt that says that all files were converted, with these digests; of 0, that one was refused."""
    receipt = Receipt(len(digests))
    receipt.sha256[:] = digests_of_rows(digests)
    for planned in job.plan.shards:
        rows = planned.rows[np.array(digests)[planned.rows] > 0]
        receipt.positions[rows] = np.arange(len(rows))
    return receipt


def splits_of(job: ConversionJob, shards: tuple[PlannedShard, ...]) -> dict[str, str]:
    return {job.source.paths[row]: shard.split for shard in shards for row in shard.rows.tolist()}


# A new dataset


def test_rows_become_ids_and_labels_stay() -> None:
    source = a_source([*photos("ant", 8), *photos("bee", 4)], refused={3: Refusal(Reason.UNKNOWN_SUFFIX, "")})
    job = a_job(source)
    assert job.ids.tolist() == list(range(12))
    assert job.labels.tolist() == [0] * 8 + [1] * 4
    assert (job.class_names, job.splits, job.plan.num_before) == (("ant", "bee"), ("train", "test"), {})
    planned = splits_of(job, job.plan.shards)
    assert sorted(planned) == sorted(set(source.paths) - {"ant/3.png"})
    assert list(planned.values()).count("test") == 3  # of 7 and 4


def test_a_job_depends_on_names_and_seed_and_nothing_else() -> None:
    source = a_source(photos("ant", 40))
    rows = [shard.rows.tolist() for shard in a_job(source).plan.shards]
    for part in rows:
        assert part == sorted(part, key=a_job(source).ranks[:, 1].__getitem__)
    other = dataclasses.replace(source, sizes=source.sizes + 1, stamps=source.stamps * 0)
    assert [shard.rows.tolist() for shard in a_job(other, num_workers=7).plan.shards] == rows
    assert [shard.rows.tolist() for shard in a_job(source, seed=1).plan.shards] != rows


def test_the_splits_of_the_source() -> None:
    refused = {3: Refusal(Reason.EMPTY, "")}
    source = a_source(photos("ant", 4), splits=["b", "a", "b", "never"], refused=refused)
    job = a_job(source, splits="source")
    assert job.splits == ("b", "a")
    assert splits_of(job, job.plan.shards) == {"ant/0.png": "b", "ant/1.png": "a", "ant/2.png": "b"}
    with pytest.raises(
        UsageError, match=r"--splits=source: zoo has no splits of its own\. Give e\.g\. --splits=train=0\.75,test"
    ):
        a_job(a_source(photos("ant", 4)), splits="source")


def test_select_takes_all_columns_along() -> None:
    refused = {1: Refusal(Reason.EMPTY, "one"), 4: Refusal(Reason.TEXT, "four")}
    places = np.arange(15).reshape(5, 3)
    source = a_source([*photos("ant", 3), *photos("bee", 2)], refused=refused, places=places, splits=list("abcde"))
    part = source.select(np.array([4, 0, 2]))
    assert part.paths == ["bee/1.png", "ant/0.png", "ant/2.png"]
    assert part.labels.tolist() == [1, 0, 0]
    assert part.sizes.tolist() == [1004, 1000, 1002]
    assert part.stamps.tolist() == [5004, 5000, 5002]
    assert part.places is not None
    assert part.places.tolist() == [[12, 13, 14], [0, 1, 2], [6, 7, 8]]
    assert part.splits == ["e", "a", "c"]
    assert {row: refusal.detail for row, refusal in part.refused.items()} == {0: "four"}
    assert part.class_names == ("ant", "bee")


# What tells a finished shard from that of other files


@pytest.mark.parametrize(
    "change",
    [
        lambda source: source.stamps.__setitem__(2, 0),
        lambda source: source.sizes.__setitem__(2, 0),
        lambda source: source.labels.__setitem__(2, 0),
        lambda source: source.paths.__setitem__(2, "ant/other.png"),
    ],
)
def test_a_shard_is_written_again_if_one_of_its_files_is_another(change: Callable[[Source], None]) -> None:
    paths = [*photos("ant", 2), *photos("bee", 2)]
    planned = PlannedShard("f", "train", 0, np.array([2, 0]))
    other = PlannedShard("f", "train", 0, np.array([3, 0]))
    before = a_job(a_source(paths))
    changed = a_source(list(paths))
    change(changed)
    after = a_job(changed)
    assert inputs(a_job(a_source(paths)), planned) == inputs(before, planned)
    assert inputs(after, planned) != inputs(before, planned)
    assert inputs(after, other) == inputs(before, other)
    assert inputs(before, PlannedShard("f", "train", 0, np.array([0, 2]))) != inputs(before, planned)


def test_a_shard_is_written_again_if_its_ids_are_others() -> None:
    planned = PlannedShard("f", "train", 0, np.array([1]))
    job = a_job(a_source(photos("ant", 2)))
    assert inputs(dataclasses.replace(job, ids=job.ids + 1), planned) != inputs(job, planned)


def test_names_that_are_no_text_have_inputs() -> None:
    job = a_job(a_source(["ant/\udcff.png", "ant/벌.png"]))
    assert inputs(job, PlannedShard("f", "train", 0, np.array([0]))) != inputs(
        job, PlannedShard("f", "train", 0, np.array([1]))
    )


# Copies


def test_copies_are_brought_into_one_split_and_others_stay() -> None:
    job = a_job(a_source(photos("ant", 40)))
    plan = job.plan
    first = splits_of(job, plan.shards)
    train = [row for row, path in enumerate(job.source.paths) if first[path] == "train"]
    test = [row for row, path in enumerate(job.source.paths) if first[path] == "test"]
    alone = [*range(1, 41)]
    settled = job.final_plan(a_receipt(job, alone))
    assert settled.plan is plan
    assert (settled.groups.tolist(), settled.leaks) == (list(range(40)), ())

    digests = list(alone)
    digests[test[0]] = digests[train[0]]
    settled = job.final_plan(a_receipt(job, digests))
    now = splits_of(job, settled.plan.shards)
    pair = sorted((train[0], test[0]))
    assert now[job.source.paths[pair[0]]] == now[job.source.paths[pair[1]]]
    assert settled.groups[pair].tolist() == [pair[0]] * 2
    assert sum(now[path] != first[path] for path in now) <= 2
    assert settled.leaks == ()


def test_refused_files_are_in_no_group() -> None:
    job = a_job(a_source(photos("ant", 4)))
    settled = job.final_plan(a_receipt(job, [0, 5, 0, 5]))
    assert settled.groups.tolist() == [0, 1, 2, 1]


def test_refused_files_do_not_count_for_the_fractions() -> None:
    job = a_job(a_source(photos("ant", 40)))
    digests = np.arange(1, 41)
    digests[job.split_of == 1] = 0  # all that were to go to test, and then ten of train
    digests[np.flatnonzero(digests)[:10]] = 0
    receipt = a_receipt(job, digests.tolist())
    now = splits_of(job, job.final_plan(receipt).plan.shards)
    became = [now[path] for path, ok in zip(job.source.paths, receipt.positions >= 0, strict=True) if ok]
    assert (became.count("train"), became.count("test")) == (15, 5)


def test_copies_across_the_splits_of_the_source_are_named_and_not_moved() -> None:
    job = a_job(a_source(photos("ant", 4), splits=["a", "b", "b", "b"]), splits="source")
    settled = job.final_plan(a_receipt(job, [7, 2, 7, 2]))
    assert settled.leaks == ("ant/0.png",)
    assert splits_of(job, settled.plan.shards)["ant/2.png"] == "b"
    assert settled.groups.tolist() == [0, 1, 0, 1]


# Adding


def test_ids_go_on_where_they_ended_and_a_refused_file_keeps_its_own() -> None:
    existing = an_existing(photos("ant", 4), ["train", "", "test", "train"], ("ant",))
    source = a_source(["ant/1.png", "ant/new.png", "bee/0.png"])
    job = a_job(source, existing)
    assert job.ids.tolist() == [1, 4, 5]
    source = a_source(["ant/a_new.png", "ant/1.png", "bee/0.png"])
    assert a_job(source, existing).ids.tolist() == [4, 1, 5]


def test_labels_that_are_there_stay_and_new_classes_follow() -> None:
    existing = an_existing(["bee/0.png", "dog/0.png"], ["train", "test"], ("bee", "dog"))
    source = a_source(["ant/0.png", "bee/1.png", "cow/0.png", "dog/1.png", "eel/0.png"])
    refused = {4: Refusal(Reason.EMPTY, "")}
    source.labels[4] = 4
    job = a_job(dataclasses.replace(source, refused=refused), existing)
    assert job.class_names == ("bee", "dog", "ant", "cow")  # no photo of an eel became an example
    assert job.labels.tolist() == [2, 0, 3, 1, -1]


def test_new_shards_are_counted_after_those_that_are_there() -> None:
    existing = an_existing(photos("ant", 4), ["train", "train", "test", "train"], ("ant",))
    job = a_job(a_source([f"ant/new_{number}.png" for number in range(8)]), existing)
    assert job.plan.num_before == {"train": 1, "test": 1}
    assert [(shard.file, shard.shard) for shard in job.plan.shards] == [
        ("zoo-train.tfrecord-00001-of-00002", 1),
        ("zoo-test.tfrecord-00001-of-00002", 1),
    ]


def test_a_copy_of_a_photo_that_is_there_goes_where_that_one_is() -> None:
    existing = an_existing(photos("ant", 3), ["test", "train", ""], ("ant",))
    job = a_job(a_source([f"ant/new_{number}.png" for number in range(12)]), existing)
    for digest, split, id in ((1, "test", 0), (2, "train", 1)):  # of ant/0.png and of ant/1.png
        digests = [digest, digest, *range(100, 110)]
        settled = job.final_plan(a_receipt(job, digests))
        now = splits_of(job, settled.plan.shards)
        assert (now["ant/new_0.png"], now["ant/new_1.png"]) == (split, split)
        assert settled.groups.tolist() == [id, id, *range(5, 15)]
        assert settled.leaks == ()
    settled = job.final_plan(a_receipt(job, [3, 0, *range(100, 110)]))  # of the one that was refused
    assert settled.groups.tolist() == list(range(3, 15))


def test_copies_that_old_splits_tear_are_named() -> None:
    existing = an_existing(photos("ant", 3), ["", "train", "test"], ("ant",))
    existing.manifest.sha256[2] = existing.manifest.sha256[1]
    job = a_job(a_source(["ant/new.png"]), existing)
    assert job.final_plan(a_receipt(job, [50])).leaks == ("ant/1.png",)


def test_the_splits_of_the_source_go_on_with_those_that_are_there() -> None:
    existing = an_existing(photos("ant", 2), ["b", "a"], ("ant",))
    job = a_job(a_source(["ant/5.png", "ant/6.png"], splits=["c", "a"]), existing, splits="source")
    assert job.splits == ("b", "a", "c")
    assert job.split_of.tolist() == [2, 1]


def test_made_from_is_what_the_manifest_has() -> None:
    existing = an_existing(photos("ant", 3), ["a", "a", "b"], ("ant",))
    listed = a_source([*photos("ant", 3), "ant/new.png", "ant/\udcff.png"])
    job = a_job(listed.select(np.array([3])), existing, listed)
    assert _made_from(job, existing.manifest).paths == photos("ant", 3)
    manifest = dataclasses.replace(existing.manifest, paths=["ant/0.png", "ant/\\xff.png", "ant/new.png"])
    assert _made_from(job, manifest).paths == ["ant/0.png", "ant/new.png", "ant/\udcff.png"]
    new = a_job(listed)
    assert _made_from(new, existing.manifest) is listed
