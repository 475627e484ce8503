"""Files of columns with names, read in chunks of rows: CSV, Parquet, NPZ. All come as record batches of pyarrow."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdnn_dist.data.tables import npz
from hdnn_dist.support.arguments import one_line, shown

CHUNK = 65_536  # rows
BLOCK = 4 << 20  # bytes of CSV
NOT_INSTALLED = "tables are read with pyarrow, which is not installed: pip install 'hdnn-dist[tables]'"
Batches = Iterator[Any]


def arrow(part: str = "") -> Any:
    """pyarrow, or a part of it; ``ValueError`` that names the extra where it is not installed."""
    try:
        return importlib.import_module(f"pyarrow{part}")
    except ImportError:
        raise ValueError(NOT_INSTALLED) from None


@dataclass(frozen=True)
class TableFile:
    """One file; ``whose`` says in errors whom it belongs to, such as "agent 3 (Frankfurt)"."""

    path: Path
    whose: str
    delimiter: str = ","

    def names(self) -> list[str]:
        """Its columns; ``ValueError`` for a file that is none, is empty, or has a column twice."""
        names = self._tried(lambda: self._format.names(self))
        if not names:
            raise self.error("is empty: expected columns with names, and a row for each sample")
        again = next((name for place, name in enumerate(names) if name in names[:place]), None)
        if again is not None:
            raise self.error(f"has the column {shown(again)} twice: give each a name of its own")
        return names

    def chunks(self, names: Sequence[str], texts: Sequence[str]) -> Iterator[Any]:
        """Record batches of some columns; those of CSV come as numbers, but for ``texts``.

        ``ValueError`` for what cannot be read, with the row and the column where there is one.
        """
        batches = self._tried(lambda: self._format.chunks(self, names, texts))
        while True:
            batch = self._tried(lambda: next(batches, None))
            if batch is None:
                return
            yield batch

    def error(self, text: str) -> ValueError:
        """An error that begins with the file and whose it is."""
        return ValueError(f"{self.path} of {self.whose} {text}")

    @property
    def _format(self) -> Format:
        suffix = self.path.suffix.lower()
        if suffix not in FORMATS:
            raise self.error(f"has the suffix {suffix!r}: tables are read from {', '.join(FORMATS)}")
        return FORMATS[suffix]

    def _tried(self, read: Callable[[], Any]) -> Any:
        """What goes wrong in a library, as one line."""
        pa = arrow()
        try:
            return read()
        except FileNotFoundError:
            raise self.error("does not exist: give an existing file") from None
        except npz.BrokenFile as error:
            raise self.error(f"cannot be read: {one_line(error)}") from None
        except (pa.ArrowException, OSError) as error:
            if "Empty CSV" in str(error):
                raise self.error("is empty: expected names in the first row, and a row for each sample") from None
            raise self.error(f"cannot be read: {one_line(error)[:300]}") from None


@dataclass(frozen=True)
class Format:
    """``names(file)``: of the columns; ``chunks(file, names, texts)``: record batches of some of them."""

    names: Callable[[TableFile], list[str]]
    chunks: Callable[[TableFile, Sequence[str], Sequence[str]], Batches]


def _csv_reader(file: TableFile, types: dict[str, Any], names: Sequence[str] | None) -> Any:
    csv = arrow(".csv")
    return csv.open_csv(
        file.path,
        read_options=csv.ReadOptions(block_size=BLOCK, use_threads=False),
        parse_options=csv.ParseOptions(delimiter=file.delimiter),
        convert_options=csv.ConvertOptions(column_types=types, include_columns=list(names) if names else None),
    )


def csv_names(file: TableFile) -> list[str]:
    """Of the first row; a byte order mark is no part of it."""
    with file.path.open("rb") as opened:
        first = opened.readline(1 << 20)
    if not first.strip(b"\xef\xbb\xbf\r\n \t"):
        return []
    types: dict[str, Any] = {}
    names: list[str] = _csv_reader(file, types, None).schema.names
    return names


def csv_texts(file: TableFile, names: Sequence[str]) -> Batches:
    """The cells as they are written."""
    text = arrow().string()
    yield from _csv_reader(file, dict.fromkeys(names, text), names)


def _csv_chunks(file: TableFile, names: Sequence[str], texts: Sequence[str]) -> Batches:
    pa = arrow()
    types = {name: pa.string() if name in texts else pa.float64() for name in names}
    try:
        yield from _csv_reader(file, types, names)
    except pa.ArrowInvalid as error:
        if "conversion error" not in str(error):
            raise
        _refuse_text(file, names, texts)
        raise


def _refuse_text(file: TableFile, names: Sequence[str], texts: Sequence[str]) -> None:
    """``ValueError`` for the first cell that is no number."""
    pa, row = arrow(), 0
    pc, numbers = arrow(".compute"), [name for name in names if name not in texts]
    nothing = pa.array(arrow(".csv").ConvertOptions().null_values)
    for batch in csv_texts(file, names):
        for name in numbers:
            column = batch.column(name)
            cells = pc.if_else(pc.is_in(column, nothing), pa.scalar(None, pa.string()), column)
            place = _first_text(cells)
            if place is not None:
                at, given = row + place + 1, shown(column[place].as_py())
                ids = f" (id {batch.column(names[0])[place]})" if names[0] in texts else ""
                raise file.error(f"has {given} in row {at}{ids}, column {shown(name)}: expected a number") from None
        row += batch.num_rows


def _first_text(cells: Any) -> int | None:
    try:
        cells.cast(arrow().float64())
    except arrow().ArrowInvalid:
        if len(cells) == 1:
            return 0
        half = len(cells) // 2
        first = _first_text(cells[:half])
        return first if first is not None else half + (_first_text(cells[half:]) or 0)
    return None


def _parquet(file: TableFile) -> Any:
    return arrow(".parquet").ParquetFile(file.path, memory_map=False, buffer_size=1 << 20, pre_buffer=False)


def _parquet_names(file: TableFile) -> list[str]:
    with _parquet(file) as opened:
        names: list[str] = opened.schema_arrow.names
    return names


def _parquet_chunks(file: TableFile, names: Sequence[str], texts: Sequence[str]) -> Batches:
    with _parquet(file) as opened:
        yield from opened.iter_batches(batch_size=CHUNK, columns=list(names), use_threads=False)


def _npz_names(file: TableFile) -> list[str]:
    return npz.names(file.path)


def _npz_chunks(file: TableFile, names: Sequence[str], texts: Sequence[str]) -> Batches:
    pa = arrow()
    for columns in npz.chunks(file.path, names, CHUNK):
        yield pa.record_batch([pa.array(column) for column in columns], names=list(names))


FORMATS = {
    ".csv": Format(csv_names, _csv_chunks),
    ".parquet": Format(_parquet_names, _parquet_chunks),
    ".npz": Format(_npz_names, _npz_chunks),
}
