import pytest

from simimg.report.number_format import (
    duration,
    epoch_ticks,
    mistaken,
    percent,
    points,
    printable,
    shortened,
    spread,
    storage,
    ticks,
    value_range,
)


@pytest.mark.parametrize(
    ("share", "decimals", "text"),
    [
        (0.914, 0, "91\u00a0%"),
        (0.914, 1, "91.4\u00a0%"),
        (1.0, 1, "100.0\u00a0%"),
        (0.99999, 1, "99.9\u00a0%"),
        (0.996, 0, "99\u00a0%"),
        (0.0001, 0, "1\u00a0%"),
        (0.0, 0, "0\u00a0%"),
        (None, 0, "–"),
        (float("nan"), 0, "–"),
    ],
)
def test_percentages_never_round_up_to_all_or_down_to_nothing(share, decimals, text):
    assert percent(share, decimals) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.02, "20 ms"), (0.41, "0.4 s"), (9.94, "9.9 s"), (9.96, "10 s"), (192, "3 min 12 s"), (7500, "2 h 5 min")],
)
def test_durations_have_the_unit_that_suits_them(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (29_356_251, "29.4 MB"),
        (99_960, "100 kB"),
        (999_600, "1.0 MB"),
        (2_500_000_000_000_000, "2,500 TB"),
    ],
)
def test_storage_has_the_unit_that_suits_it(num_bytes, text):
    assert storage(num_bytes) == text


def test_hostile_names_become_printable():
    assert printable("caf\udce9\n\x1b[31m\u202egpj.exe") == "caf\\xe9\\n\\x1b[31m\\u202egpj.exe"
    assert printable("Żółw 日本 $x_{1}$.jpg") == "Żółw 日本 $x_{1}$.jpg"
    printable("".join(map(chr, range(0x11000)))).encode("utf-8")


@pytest.mark.parametrize("length", [1, 2, 7, 8, 20])
def test_shortened_names_keep_both_ends(length):
    name = shortened("dolphin/image_0038.jpg", length)
    assert len(name) == length
    assert "…" in name
    if length >= 8:
        assert name.startswith("dol")
        assert name.endswith("jpg")


def test_a_name_that_fits_is_left_alone():
    assert shortened("a.jpg", 5) == "a.jpg"


def test_spread_moves_only_what_is_too_close_and_keeps_the_order():
    assert spread([0.0, 10.0], 2.0) == [0.0, 10.0]
    assert spread([5.0, 5.0], 2.0) == [4.0, 6.0]
    moved = spread([3.0, 0.0, 3.1, 2.9], 1.0)
    assert moved[1] < moved[3] < moved[0] < moved[2]
    assert min(b - a for a, b in zip(sorted(moved), sorted(moved)[1:], strict=False)) >= 1.0 - 1e-9


def test_ticks_are_round():
    assert ticks(0.0, 1.6, 5) == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert ticks(0.9, 1.0, 5) == pytest.approx([0.9, 0.92, 0.94, 0.96, 0.98, 1.0])
    assert epoch_ticks(1, 1) == [1]
    assert epoch_ticks(1, 2) == [1, 2]
    assert epoch_ticks(1, 30) == [5, 10, 15, 20, 25, 30]


def test_axes_start_where_the_values_need_it():
    assert value_range([0.43, 0.99], share=True) == (0.4, 1.0)
    assert value_range([0.99, 1.0], share=True) == (0.9, 1.0)
    assert value_range([0.0], share=False) == (0.0, 1.0)


@pytest.mark.parametrize("highest", [0.0013, 0.46, 0.99, 1.0, 1.01, 2.4, 7.2, 9.99, 137.0])
def test_the_highest_tick_is_above_the_curve(highest):
    low, high = value_range([highest / 3, highest], share=False)
    found = ticks(low, high, 5)
    assert found[0] == 0
    assert found[-1] == pytest.approx(high)
    assert highest <= high * (1 + 1e-9) <= 2 * highest


def test_points_leave_out_what_is_missing_or_no_number():
    history = [{"epoch": 1, "loss": 2.0}, {"epoch": 2}, {"epoch": 3, "loss": float("nan")}, {"epoch": 4, "loss": 1.0}]
    assert points(history, "loss") == [(1, 2.0), (4, 1.0)]


def test_mistakes_come_most_frequent_first_without_what_is_right():
    assert mistaken(["a", "b"], [[9, 1], [3, 0]], 5) == [(3, "b", "a"), (1, "a", "b")]
    assert mistaken(["a", "b"], [[9, 1], [3, 0]], 1) == [(3, "b", "a")]
