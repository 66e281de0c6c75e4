"""The rows of a table that is a parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

from tfrecords.base_errors import UsageError
from tfrecords.convert.sources.table_cells import cell_text
from tfrecords.convert.sources.table_columns import MULTI_LABEL
from tfrecords.convert.sources.table_rows import SAMPLE, reading_errors

_BATCH = 65_536  # rows per read


class ParquetRows:
    """The rows of a parquet file."""

    kind = "parquet table"

    def __init__(self, file: BinaryIO, table: str) -> None:
        import pyarrow.parquet as pq  # not at the top: it takes a third of a second

        self._table = table
        with self._errors():
            self._file = pq.ParquetFile(file)

    def sample(self) -> tuple[list[str] | None, list[list[str]]]:
        """Return the names of the columns, and the first rows as texts; a cell with a list is "?"."""
        names = list(self._file.schema_arrow.names)
        flat = [name for name in names if not self._is_nested(name)]
        with self._errors():
            batch = next(self._file.iter_batches(SAMPLE, columns=flat), None) if flat else None
        sample = []
        if batch is not None:
            columns = [batch.column(name).to_pylist() if name in flat else ["?"] * batch.num_rows for name in names]
            sample = [list(map(cell_text, row)) for row in zip(*columns, strict=True)]
        return names, sample

    def check_types(self, path: int, labels: Sequence[int], lists: bool) -> None:
        """Raise UsageError if these columns cannot have paths and labels; `lists` says if labels may be lists."""
        for at in (path, *labels):
            self._check_type(self._file.schema_arrow.field(at), at == path, lists)

    def read(self, columns: Sequence[int]) -> Iterator[tuple[int, Sequence[Any]]]:
        """Yield the number of each row, from 1, and its cells in these columns."""
        names = [self._file.schema_arrow.names[at] for at in columns]
        number = 0
        with self._errors():
            for batch in self._file.iter_batches(_BATCH, columns=names):
                for cells in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
                    number += 1
                    yield number, cells

    def notes(self) -> list[str]:
        """Return no notes."""
        return []

    def close(self) -> None:
        """Leave the file to its owner."""

    def _errors(self) -> AbstractContextManager[None]:
        import pyarrow as pa

        def as_error(error: Exception) -> Exception:
            if isinstance(error, OSError) and error.errno is not None:  # not of the parser
                return error
            return UsageError(f"--table={self._table} is not a valid parquet file: {error}. Write it again.")

        return reading_errors((pa.ArrowException, OSError), as_error)

    def _is_nested(self, name: str) -> bool:
        import pyarrow as pa

        return bool(pa.types.is_nested(self._file.schema_arrow.field(name).type))

    def _check_type(self, field: Any, is_path: bool, lists: bool) -> None:
        import pyarrow as pa

        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            if lists and not is_path and not pa.types.is_nested(kind.value_type):
                return
            if lists and not is_path:
                raise UsageError(
                    f"--table={self._table}: column {field.name!r} should have plain values, or lists of them. "
                    f"Received: {field.type}. Flatten the lists, or write them as text."
                )
            raise UsageError(f"--table={self._table}: column {field.name!r} has lists ({field.type}). {MULTI_LABEL}.")
        texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        texts += (pa.types.is_binary, pa.types.is_large_binary) if is_path else ()
        if pa.types.is_nested(kind) or (is_path and not any(is_kind(kind) for is_kind in texts)):
            raise UsageError(
                f"--table={self._table}: column {field.name!r} should have plain values, a path as text. "
                f"Received: {field.type}"
            )
