"""The exception tree is the one that its docstring draws."""

import pytest

from tfrecords import base_errors


@pytest.mark.parametrize(
    ("name", "parent", "exit_code"),
    [
        ("SimimgError", "Exception", 3),
        ("UsageError", "SimimgError", 2),
        ("ConversionError", "SimimgError", 3),
        ("Interrupted", "ConversionError", 130),
        ("DataError", "SimimgError", 3),
        ("CorruptRecordError", "DataError", 3),
    ],
)
def test_tree(name: str, parent: str, exit_code: int) -> None:
    error = getattr(base_errors, name)
    assert error.__base__.__name__ == parent
    assert error.exit_code == exit_code
    assert name in (base_errors.__doc__ or "")
    assert str(error("a message")) == "a message"
