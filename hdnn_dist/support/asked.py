"""Whether this process was asked to leave: by SIGTERM, as schedulers do before they kill, or by SIGUSR1."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PATIENCE = 20.0  # seconds after SIGTERM in which the ranks have to agree; it is 30 s until SIGKILL nearly everywhere


class Asked:
    """Inside its block, signals are noted and the process goes on; where it does not heed SIGTERM in time, it ends.

    Schedulers and launchers may both send one, so another says nothing new. Outside the main thread, signals do what
    they always did.
    """

    def __init__(self) -> None:
        self._heard: set[int] = set()
        self._previous: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Asked:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self.heeded()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def flags(self) -> list[float]:
        """A number for each signal: 1 where this process has got it."""
        return [float(number in self._heard) for number in SIGNALS]

    def told_by(self, flags: Sequence[float]) -> int:
        """The first signal of which the ``flags`` of all ranks, summed, say that it was heard; else 0."""
        return next((int(number) for number, count in zip(SIGNALS, flags, strict=True) if count), 0)

    def heeded(self) -> None:
        """The process is about to leave, and does not have to be ended."""
        if self._timer is not None:
            self._timer.cancel()

    def wake(self, number: int) -> None:
        """As the signal's handler, from a thread: the main one may hang in a library."""
        if number == signal.SIGTERM and self._timer is None:
            self._timer = threading.Timer(PATIENCE, os._exit, [128 + number])
            self._timer.daemon = True
            self._timer.start()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard.add(number)
        self.wake(number)
