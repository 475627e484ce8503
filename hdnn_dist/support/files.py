"""Whole files or none: what is written appears under its name when it is complete, never in part."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write: a name beside ``path``, which takes its place at the end of the block, or is removed."""
    with whole_files([path]) as (partial,):
        yield partial


@contextmanager
def whole_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """The same for several files, none of which takes its place before all are written.

    An ``OSError`` names the file, not the one beside it.
    """
    partial = [path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp") for path in paths]
    with ExitStack() as stack:
        for written in partial:
            stack.callback(_remove, written)
        try:
            yield partial
            for written, path in zip(partial, paths, strict=True):
                os.replace(written, path)
        except OSError as error:
            _name_whole_file(error, dict(zip(map(str, partial), paths, strict=True)))
            raise


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """As ``whole_file``, open for writing; it is on the disk when it takes its place, whatever is killed then."""
    with whole_file(path) as partial, partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    with suppress(OSError):
        entry = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)


def write_whole(path: Path, text: str) -> Path:
    """Write a text file so that a reader finds the old or the new one; returns its path."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def _name_whole_file(error: OSError, paths: Mapping[str, Path]) -> None:
    path = paths.get(str(error.filename))
    if path is not None:
        error.filename, error.filename2 = str(path), None


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
