"""One process of a host at a time, by a lock of the file system, which ends with the process that holds it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import inf
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

NAP = 0.02  # seconds between two looks

Told = Callable[[], AbstractContextManager[object]]


@contextmanager
def one_at_a_time(path: Path, patience: float = inf, told: Told = nullcontext) -> Iterator[None]:
    """Hold the lock of this file, which is made, or do without after so many seconds; ``told()``: around the wait.

    ``OSError`` where the file cannot be written, or the file system has no locks; a platform without any does without.
    """
    with path.open("w") as file:
        _wait_for(file, patience, told)
        yield


def _wait_for(file: IO[str], patience: float, told: Told) -> None:
    if fcntl is None or _taken(file):
        return
    until = time.monotonic() + patience
    with told():
        while time.monotonic() < until and not _taken(file):
            time.sleep(NAP)


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
