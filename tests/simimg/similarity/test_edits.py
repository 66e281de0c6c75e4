"""Kinds of edits, as flags name them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simimg.errors import UsageError
from simimg.similarity import edits as module
from simimg.similarity.edits import CONTENT, COUNTED, EDITS, EDITS_HELP, EXCHANGE, FRAMES, LABEL, PLANNED, edits_of


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), COUNTED),
        (("auto",), COUNTED),
        (("all",), frozenset(EDITS)),
        (("crop",), {"crop"}),
        (("crop", "turn", "crop"), {"crop", "turn"}),
        (("-crop",), COUNTED - {"crop"}),
        (("auto", "content"), COUNTED | {"content"}),
        (("all", "-content"), set(EDITS) - {"content"}),
        (("-content", "all"), set(EDITS) - {"content"}),
        (("crop", "-crop"), frozenset()),
        (("-exchange",), COUNTED),
        (("-all",), frozenset()),
        (("-auto",), frozenset()),
        (("all", "-auto"), {EXCHANGE, CONTENT}),
    ],
)
def test_names(names: tuple[str, ...], expected: frozenset[str]) -> None:
    assert edits_of("edits", names, COUNTED) == expected


def test_the_default_and_the_known_names_are_those_of_the_flag() -> None:
    assert edits_of("plan_edits", (), PLANNED) == {"size", "compression"}
    assert edits_of("plan_edits", ("auto", "label"), PLANNED, (*EDITS, FRAMES, LABEL)) == {
        "size",
        "compression",
        "label",
    }
    assert edits_of("plan_edits", ("all",), PLANNED, (*EDITS, FRAMES, LABEL)) == {*EDITS, FRAMES, LABEL}
    assert LABEL not in edits_of("edits", ("all",), COUNTED)


@pytest.mark.parametrize("name", ["crops", "-crops", "", "-", "--crop", "label", "Crop", "crop,turn", "none"])
def test_a_name_that_does_not_exist_is_refused(name: str) -> None:
    unsigned = name.removeprefix("-")
    with pytest.raises(UsageError) as caught:
        edits_of("edits", ("turn", name), COUNTED)
    assert str(caught.value) == (
        f"--edits={unsigned}: there is no such edit. Choose from: {', '.join(EDITS)}, all, auto."
    )


@given(st.lists(st.sampled_from([*EDITS, *(f"-{name}" for name in EDITS)]), max_size=8))
def test_the_order_does_not_matter_and_a_sign_always_counts(names: list[str]) -> None:
    found = edits_of("edits", names, COUNTED)
    assert found == edits_of("edits", names[::-1], COUNTED)
    assert not found & {name.removeprefix("-") for name in names if name.startswith("-")}
    assert found <= frozenset(EDITS)


def test_the_sets_that_commands_use() -> None:
    assert len(EDITS) == len(set(EDITS)) == 13
    assert set(EDITS) - COUNTED == {EXCHANGE, CONTENT}
    assert PLANNED < COUNTED
    assert LABEL not in EDITS
    for name in EDITS:  # both tables that a user reads list them
        assert f"    {name} " in (module.__doc__ or "")
        assert name in EDITS_HELP
