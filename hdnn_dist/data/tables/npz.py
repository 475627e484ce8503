"""NumPy's archives of arrays, read in chunks: an array (samples,) is a column, an array (samples, k) the columns
NAME_0 to NAME_k-1.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

KINDS = "biufUS"


class BrokenFile(ValueError):
    """The file is no archive of columns; says what is wrong with it."""


class Header(NamedTuple):
    """Of one array: its shape and type; what follows in the file are its rows."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def names(path: Path) -> list[str]:
    """The columns of all arrays; ``BrokenFile`` for arrays of different lengths, or of objects."""
    with _opened(path) as archive:
        headers = {_name(member): _header(archive, member) for member in archive.namelist()}
    lengths = {header.shape[0] for header in headers.values()}
    if len(lengths) > 1:
        shapes = ", ".join(f"{name} {header.shape}" for name, header in headers.items())
        raise BrokenFile(f"its arrays have different numbers of rows: {shapes}")
    return [column for name, header in headers.items() for column in _columns(name, header)]


def chunks(path: Path, wanted: Sequence[str], rows: int) -> Iterator[list[np.ndarray]]:
    """(rows,) of each wanted column, chunk after chunk; the last may be short."""
    with _opened(path) as archive, ExitStack() as stack:
        every = {_name(member): member for member in archive.namelist()}
        headers = {name: _header(archive, member) for name, member in every.items()}
        places = {
            column: (name, place) for name in headers for place, column in enumerate(_columns(name, headers[name]))
        }
        used = dict.fromkeys(places[column][0] for column in wanted)
        opened = {name: stack.enter_context(archive.open(every[name])) for name in used}
        for file in opened.values():
            _read_header(file)
        total = headers[next(iter(used))].shape[0] if used else 0
        for start in range(0, total, rows):
            count = min(rows, total - start)
            parts = {name: _rows(opened[name], headers[name], count) for name in used}
            yield [parts[name][:, place] for name, place in (places[column] for column in wanted)]


def _rows(file: IO[bytes], header: Header, count: int) -> np.ndarray:
    width = int(np.prod(header.shape[1:], dtype=np.int64))
    size = count * width * header.dtype.itemsize
    data = file.read(size)
    if len(data) < size:
        raise BrokenFile("it is cut off")
    return np.frombuffer(data, dtype=header.dtype).reshape(count, width)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise BrokenFile(f"it is no archive of arrays ({error})") from None


def _name(member: str) -> str:
    return member.removesuffix(".npy")


def _columns(name: str, header: Header) -> list[str]:
    return [name] if len(header.shape) == 1 else [f"{name}_{place}" for place in range(header.shape[1])]


def _header(archive: zipfile.ZipFile, member: str) -> Header:
    with archive.open(member) as file:
        try:
            shape, fortran, dtype = _read_header(file)
        except (ValueError, zipfile.BadZipFile) as error:
            raise BrokenFile(f"its array {_name(member)} cannot be read ({error})") from None
    if len(shape) not in (1, 2) or dtype.kind not in KINDS or (fortran and len(shape) == 2):
        order = ", column after column" if fortran else ""
        raise BrokenFile(
            f"its array {_name(member)} holds {dtype} of shape {shape}{order}: expected numbers or text, (samples,) or "
            "(samples, columns), row after row"
        )
    return Header(shape, dtype)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)
