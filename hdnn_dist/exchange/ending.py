"""How a rank of a job of several ends: at once where it failed or was interrupted, and not after its launcher.

A library that waits for another rank lets Python's handlers run when it returns, which may be never. So a thread of
this process is woken by Ctrl-C, and looks after the launcher besides.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TypeVar

GRACE = 3.0  # seconds for a rank to end by itself, once it was interrupted
LAST_WORDS = 10.0  # seconds for it once it has failed, and writes what it has
LOOK = 1000  # milliseconds between two looks after the launcher
LONGEST = 1e6  # seconds that C libraries are given at most
FAILED, INTERRUPTED = 1, 130
LAUNCHED = ("TORCHELASTIC_RUN_ID", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")  # whose ranks are its children
WATCH = """
import os, select, sys
if not select.select([0], [], [], float(sys.argv[1]))[0]:
    os.write(2, sys.argv[2].encode() + b"\\n")
    os.kill(os.getppid(), 9)
"""
Result = TypeVar("Result")


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """What ``call`` returns or raises; ``TimeoutError`` where it takes longer. Ctrl-C is heard meanwhile."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(min(seconds, LONGEST))
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer for {seconds:g} s")
    return results[0]


@contextmanager
def ended_after(seconds: float, line: str) -> Iterator[None]:
    """End this process with a line if the block takes longer, though it may hold the interpreter all the time."""
    watch = [sys.executable, "-I", "-S", "-c", WATCH, str(min(seconds, LONGEST)), line]
    with subprocess.Popen(watch, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL):
        yield


def guard(rank: int, leave: Callable[[int], object]) -> None:
    """Let this rank end with its job; ``leave(status)``: so that no other rank, and no library, waits for it."""
    if _guard.leave is None:
        _guard.start(rank)
    _guard.leave = leave


def on_signal(call: Callable[[int], object]) -> None:
    """Let a thread call this with the number of each signal that Python has a handler for; the main one may hang."""
    _guard.calls[call] = None


def failed() -> None:
    """An exchange has failed: whoever catches the error, the end of this process waits for no other rank."""
    _guard.failed = True
    _tell()


def tell_others(tell: Callable[[], object]) -> None:
    """Call it when an exchange has failed, or this process ends by an error: its last lines may take seconds."""
    _guard.tellers[tell] = None


def has_failed() -> bool:
    """Whether one has."""
    return _guard.failed


def end(status: int) -> None:
    """Let no other rank wait for this one, which ends with that status. Returns where it is the only one."""
    if _guard.leave is None:
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _tell()
    _flush()
    _guard.leave(status)


def end_now(status: int) -> None:
    """As ``end``, without what is left for the end of the process. For commands, which leave nothing for it."""
    if _guard.leave is not None:
        end(status)
        os._exit(status)


def end_soon(status: int) -> None:
    """The end of this process, by itself or by an alarm: a group of ranks can wait in its last lines for ever."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, GRACE if status == INTERRUPTED else LAST_WORDS)


class _Guard:
    """Of this process."""

    def __init__(self) -> None:
        self.leave: Callable[[int], object] | None = None
        self.failed = False
        self.tellers: dict[Callable[[], object], None] = {}
        self.calls: dict[Callable[[int], object], None] = {}
        self._rank = 0
        self._heard = threading.Event()
        self._handler: Callable[[int, FrameType | None], object] | None = None
        self._parent = os.getppid() if any(name in os.environ for name in LAUNCHED) else None

    def start(self, rank: int) -> None:
        self._rank, self._poll = rank, select.poll()
        self._uncaught, sys.excepthook = sys.excepthook, self._on_exception
        atexit.register(self._on_exit)
        self._hear_interrupts()
        self._hear_launcher()
        threading.Thread(target=self._watch, name="hdnn-dist watch", daemon=True).start()

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """What nobody has caught ends the job."""
        self._uncaught(kind, error, trace)
        end(INTERRUPTED if issubclass(kind, KeyboardInterrupt) else FAILED)

    def _on_exit(self) -> None:
        if self.failed:
            end(FAILED)

    def _hear_interrupts(self) -> None:
        """Ctrl-C wakes the watch, unless somebody else has asked to be woken."""
        previous = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(previous):
            return

        def handler(number: int, frame: FrameType | None) -> None:
            self._heard.set()
            previous(number, frame)

        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        other = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        if other != -1:
            signal.set_wakeup_fd(other)
            return
        self._handler = handler
        signal.signal(signal.SIGINT, handler)
        self._poll.register(self._reader, select.POLLIN)

    def _hear_launcher(self) -> None:
        """MPI's proxies hold a socket to each rank, which closes when they die, whoever stands between."""
        proxy = os.environ.get("PMI_FD", "")
        self._proxy = int(proxy) if proxy.isdecimal() else -1
        if self._proxy >= 0:
            self._poll.register(self._proxy, 0)

    def _watch(self) -> None:
        while True:
            events = dict(self._poll.poll(LOOK))
            if events.get(self._proxy, 0) & select.POLLNVAL:  # closed here
                self._poll.unregister(self._proxy)
            if events.get(self._proxy, 0) & select.POLLHUP or self._parent not in (None, os.getppid()):
                self._end_now(f"rank {self._rank} ends, as its launcher has", FAILED)
            if self._handler is not None and self._reader in events:
                self._heed(os.read(self._reader, 1)[0])

    def _heed(self, number: int) -> None:
        """Ctrl-C: end, if Python's handler, which must still be ours, does not come to run."""
        for call in list(self.calls):
            call(number)
        if number != signal.SIGINT:
            return
        heard = self._heard.wait(GRACE)
        self._heard.clear()
        if not heard and signal.getsignal(signal.SIGINT) is self._handler:
            self._end_now(f"rank {self._rank} was interrupted while it waited for another", INTERRUPTED)

    def _end_now(self, line: str, status: int) -> None:
        os.write(2, f"hdnn-dist: {line}\n".encode())
        os._exit(status)


def _tell() -> None:
    for tell in _guard.tellers:
        tell()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


_guard = _Guard()
