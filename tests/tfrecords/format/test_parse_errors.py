"""What a parser raises about a damaged file is one error about the file; what is not the file's fault is left alone."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tfrecords.base_errors import DataError, Interrupted, UsageError
from tfrecords.format.parse_errors import parser_errors, readable
from tfrecords.format.quarantine import Reason, Refusal


def damaged(fault: str) -> DataError:
    return DataError(f"a.bin is damaged: {fault}.")


def deep(levels: int = 0) -> int:
    return deep(levels + 1)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (lambda: int("x"), "a.bin is damaged: invalid literal for int() with base 10: 'x'."),
        (lambda: {}["splits"], "a.bin is damaged: KeyError: 'splits'."),
        (lambda: b"".decode(1), "a.bin is damaged: TypeError: "),  # type: ignore[arg-type]
        (lambda: (1 << 64).to_bytes(8, "little"), "a.bin is damaged: OverflowError: int too big to convert."),
        (lambda: struct.unpack("<Q", b""), "a.bin is damaged: error: unpack requires a buffer of 8 bytes."),
        (lambda: zlib.decompress(b"x"), "a.bin is damaged: error: Error -"),
        (lambda: b"\xff".decode(), "a.bin is damaged: UnicodeDecodeError: "),
        (lambda: 1 / 0, "a.bin is damaged: ZeroDivisionError: division by zero."),
        (deep, "a.bin is damaged: RecursionError: "),
    ],
)
def test_whatever_a_parser_raises(parse: Callable[[], object], text: str) -> None:
    with pytest.raises(DataError) as caught, parser_errors(damaged):
        parse()
    assert str(caught.value).startswith(text)
    assert caught.value.__cause__ is not None  # for whoever looks for a mistake of ours


def test_a_long_text_is_cut_off() -> None:
    with pytest.raises(DataError) as caught, parser_errors(damaged):
        raise ValueError("x" * 10_000 + "\n")
    assert len(str(caught.value)) < 300


def test_an_error_of_a_library_that_has_no_number_is_about_the_file() -> None:
    with pytest.raises(DataError, match="OSError: cannot identify image file"), parser_errors(damaged):
        raise OSError("cannot identify image file")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        MemoryError(),
        KeyboardInterrupt(),
        Refusal(Reason.EMPTY, "it has no bytes"),
        UsageError("it does not exist."),
        Interrupted("interrupted."),
    ],
)
def test_what_is_not_the_fault_of_the_file_is_passed_on(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, parser_errors(damaged):
        raise error
    assert caught.value is error


def test_it_decorates_a_function_that_is_called_again() -> None:
    read = parser_errors(damaged)(int)
    assert read("7") == 7
    for _ in range(2):
        with pytest.raises(DataError, match="invalid literal"):
            read("x")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x is missing\. Convert"), readable(tmp_path / "x"):
        (tmp_path / "x").read_bytes()
    with pytest.raises(DataError, match=r"cannot be read: Is a directory\. Make it readable"), readable(tmp_path):
        tmp_path.read_bytes()
