"""Around code that is being compiled: a line that says so, by one process of a machine, and Ctrl-C that is heard."""

from __future__ import annotations

import logging
import os
import signal
import sys
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


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` at the end, if not before, where Ctrl-C was pressed in the block.

    llvmlite calls back into Python, and what is raised there is printed and lost.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    heard = threading.Event()
    unraisable = sys.unraisablehook

    def handler(number: int, frame: Any) -> None:
        heard.set()
        previous(number, frame)

    signal.signal(signal.SIGINT, handler)
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else unraisable(lost)
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        signal.signal(signal.SIGINT, previous)
    if heard.is_set():
        raise KeyboardInterrupt


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
