"""A line that says that code is being compiled: only when it is, and by one process of a machine."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

QUICK = 1.5  # seconds of compiling that nobody needs to be told of
LOCAL_RANKS = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
log = logging.getLogger("hdnn_dist")


@contextmanager
def announced() -> Iterator[None]:
    """Say so if numba compiles in the block, and does not read everything from its cache; nothing without numba."""
    try:
        from numba.core import event
    except ImportError:
        yield
        return
    timer = _Timer()
    listener = event.TimingListener()
    listener.on_start = timer.start  # type: ignore[method-assign]
    listener.on_end = lambda _: None  # type: ignore[method-assign]
    with event.install_listener("numba:compile", listener):
        try:
            yield
        finally:
            timer.cancel()


class _Timer:
    """Starts with the first function that is compiled."""

    def __init__(self) -> None:
        self._timer = threading.Timer(QUICK, _announce)
        self._timer.daemon = True

    def start(self, _: Any) -> None:
        if not self._timer.is_alive() and not self._timer.finished.is_set():
            self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()


@cache
def _announce() -> None:
    """Once for a process, which may compile for several kinds of layers."""
    if all(os.environ.get(name, "0") == "0" for name in LOCAL_RANKS):
        log.warning("compiling the fused kernel for this machine; this is done once, and kept in a cache")
