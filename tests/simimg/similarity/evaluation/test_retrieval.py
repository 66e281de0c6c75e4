"""The figures of a retrieval against ones that were worked out by hand, and the command on drawn pictures."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simimg.cli import main
from simimg.commands import calibrate as command
from simimg.similarity.evaluation.image_edits import EDITS
from simimg.similarity.evaluation.retrieval import (
    Retrieval,
    average_precision,
    mean_kind_precision,
    precision_and_recall,
)
from simimg.similarity.search_index import SearchIndex

FEW = "resized recompressed recoloured mirrored cropped_to_80 text_bars".split()  # of the edits
RIGHT = np.array([True, False, True, False, True])


def test_average_precision_counts_what_was_never_found() -> None:
    assert average_precision(RIGHT, 3) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert average_precision(RIGHT, 6) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 6)


def test_precision_and_recall() -> None:
    precision, recall = precision_and_recall(RIGHT, 4)
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3, 1 / 2, 3 / 5])
    np.testing.assert_allclose(recall, [1 / 4, 1 / 4, 2 / 4, 2 / 4, 3 / 4])


def retrieval(similarity: list[float], right: list[bool]) -> Retrieval:
    scored = {"similarity": (np.array(similarity), np.array(right))}
    return Retrieval(10, 5, {}, scored, 4, ())


def test_the_threshold_is_the_least_that_is_precise_enough() -> None:
    assert retrieval([0.9, 0.8, 0.7, 0.6], [True, True, True, False]).threshold(0.99) == 0.7
    assert retrieval([0.9, 0.8, 0.7, 0.6], [True, True, True, False]).threshold(0.75) == 0.6
    assert retrieval([0.9, 0.4], [True, True]).threshold(0.99) == 0.9  # below 0.5 nothing is verified
    assert retrieval([0.9, 0.8], [False, True]).threshold(0.99) is None
    assert retrieval([1.0, 0.8], [True, False]).threshold(0.99) == 1.0
    # One of two equal scores is wrong: the score is not precise, whichever is sorted first.
    assert retrieval([0.9, 0.8, 0.8], [True, False, True]).threshold(0.99) == 0.9


def test_recall_at_precision_90() -> None:
    assert retrieval([0.9, 0.8, 0.7], [True, True, False]).micro("similarity") == (0.5, 0.5)
    assert retrieval([0.9], [False]).micro("similarity") == (0.0, 0.0)


def test_mean_kind_precision_leaves_the_query_and_the_clutter_out() -> None:
    vectors = np.array([[1, 0], [0.9, 0.1], [0.8, 0.3], [0, 1]], np.float32)
    labels = np.array(["cat", "clutter", "cat", "clutter"])
    # Each cat finds the clutter at (0.9, 0.1) before the other cat.
    assert mean_kind_precision(vectors, labels, np.ones(4, bool), clutter="clutter") == pytest.approx(1 / 2)
    assert mean_kind_precision(vectors, labels, np.zeros(4, bool), clutter="clutter") == 0


def test_calibrate(
    tmp_path: Path,
    scene: Callable[..., Image.Image],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in set(EDITS) - set(FEW):
        monkeypatch.delitem(EDITS, name)
    for seed in range(12):
        (tmp_path / "photos" / "ab"[seed % 2]).mkdir(parents=True, exist_ok=True)
        scene(seed).save(tmp_path / "photos" / "ab"[seed % 2] / f"{seed}.jpg", quality=95)
    scene(3).resize((300, 225), Image.Resampling.BICUBIC).save(tmp_path / "photos" / "b" / "3-again.jpg")
    index_dir, picture = tmp_path / "i", tmp_path / "curves.png"
    assert main(["index", f"--image_dir={tmp_path / 'photos'}", f"--index_dir={index_dir}"]) == 0
    capsys.readouterr()
    arguments = [f"--index_dir={index_dir}", f"--picture={picture}", "--num_queries=5", "--rivals", "--json"]
    arguments.append(f"--failures={tmp_path / 'failures.png'}")
    assert main(["calibrate", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["recall"]) == {"similarity", "cosine", "pHash", "dHash"}
    assert np.mean(list(found["recall"]["similarity"].values())) > 0.9
    assert set(found["recall"]["similarity"]) == set(EDITS)
    assert found["recall"]["pHash"]["mirrored"] < 0.5  # it can fail
    # Though one is there twice. A drawing whose colors were clipped may count as one with other colors.
    assert found["micro"]["similarity"]["recall_at_precision_90"] >= 0.98
    assert found["micro"]["similarity"]["uap"] > found["micro"]["cosine"]["uap"] - 0.05
    assert 0.5 <= found["threshold"] < 0.99
    assert SearchIndex.open(index_dir).info.thresholds == {"copy": found["threshold"], "pairs": found["pair_threshold"]}
    assert 0.5 <= found["pair_threshold"] < 0.99
    assert SearchIndex.open(index_dir).copy_threshold == found["pair_threshold"]
    assert Image.open(picture).width > 500
    assert (tmp_path / "failures.png").exists() == bool(found["failures"])
    assert main(["calibrate", f"--index_dir={index_dir}", "--num_queries=7"]) == 2
    assert "need 14" in capsys.readouterr().err


def test_where_nothing_is_right_no_threshold_is_stored(
    tmp_path: Path,
    scene: Callable[..., Image.Image],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor is one of an index that was updated meanwhile; what was measured is shown all the same."""
    for seed in range(10):
        (tmp_path / "photos").mkdir(exist_ok=True)
        scene(seed).save(tmp_path / "photos" / f"{seed}.jpg", quality=95)
    index_dir = tmp_path / "i"
    assert main(["index", f"--image_dir={tmp_path / 'photos'}", f"--index_dir={index_dir}"]) == 0
    SearchIndex.open(index_dir).with_thresholds(pairs=0.8)
    arguments = ["calibrate", f"--index_dir={index_dir}", "--num_queries=5", f"--picture={tmp_path / 'curves.png'}"]
    measured = retrieval([0.9, 0.8], [False, True])
    nothing = {"cosine": measured.scored["similarity"], "normalised": measured.scored["similarity"]}
    nothing |= measured.scored | {"pairs": measured.scored["similarity"]}
    measured = dataclasses.replace(measured, scored=nothing, recall={"similarity": dict.fromkeys(EDITS, 0.0)})
    monkeypatch.setattr(command, "measure_retrieval", lambda *arguments, **options: measured)
    capsys.readouterr()
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    assert "no threshold for search: at no similarity are 99% of the matches correct; there is none" in shown
    assert (
        "no threshold for duplicates and leaks: at no similarity are 99% of the matches correct; it stays 0.8" in shown
    )
    assert SearchIndex.open(index_dir).info.thresholds == {"pairs": 0.8}

    def updating(*arguments: object, **options: object) -> Retrieval:
        scene(20).save(tmp_path / "photos" / "new.jpg")
        main(["index", f"--image_dir={tmp_path / 'photos'}", f"--index_dir={index_dir}"])
        good = (np.array([0.9]), np.array([True]))
        return dataclasses.replace(measured, scored=dict.fromkeys(nothing, good))

    monkeypatch.setattr(command, "measure_retrieval", updating)
    assert main([*arguments, "--json"]) == 1
    output = capsys.readouterr()
    assert json.loads(output.out.splitlines()[-1])["threshold"] == 0.9
    assert "was updated after it was opened" in output.err
    assert SearchIndex.open(index_dir).info.thresholds == {"pairs": 0.8}
