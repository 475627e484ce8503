"""A group of ranks that a benchmark has started: they sleep until they are told what to measure.

Each rank connects to a socket of the benchmark and reads its orders there, a line of JSON each, and answers with one.
A rank that waits for an order sleeps in that read, so that the groups can take turns on the same cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from hdnn_dist.bench.launching import Kind, environment, launcher_of
from hdnn_dist.support.arguments import one_line

Answer = dict[str, Any]
START_SECONDS = 180.0  # until all ranks have connected
ANSWER_SECONDS = 900.0
END_SECONDS = 5.0  # until a group that was let go is killed
LOOK_SECONDS = 0.2


class GroupError(RuntimeError):
    """A group did not start, or did not do what it was told; ``wrong_input``: because of what was asked for."""

    def __init__(self, message: str, wrong_input: bool = False) -> None:
        super().__init__(one_line(message))
        self.wrong_input = wrong_input


class Line:
    """The way to one rank: orders there, answers back."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._stream = connection, connection.makefile("rw", encoding="utf-8")

    def tell(self, order: Answer) -> None:
        """A line to it."""
        self._stream.write(json.dumps(order) + "\n")
        self._stream.flush()

    def hear(self) -> Answer:
        """A line from it. ``EOFError`` where it has gone, ``TimeoutError`` where it says nothing."""
        line = self._stream.readline()
        if not line.endswith("\n"):
            raise EOFError
        answer: Answer = json.loads(line)
        return answer

    def close(self) -> None:
        """The rank ends."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._connection.close()


class Group:
    """Starts the ranks; ``close`` ends them. Raises ``GroupError`` where they do not come.

    ``process``: that of their launcher.
    """

    def __init__(self, kind: Kind, threads: int) -> None:
        self._lines: list[Line] = []
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hdnn-dist-")))
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(folder / "orders"))
            server.listen(kind.ranks)
            server.settimeout(LOOK_SECONDS)
            self._said = folder / "said"
            self.process = self._start(kind, threads, folder)
            stack.callback(self._end)
            self._accept(server, kind.ranks)
            (folder / "orders").unlink()  # nobody else comes
            self._answers()
            self._resources = stack.pop_all()

    def ask(self, order: Answer) -> list[Answer]:
        """The answer of every rank, in their order; all are told before one is heard."""
        try:
            for line in self._lines:
                line.tell(order)
        except OSError as error:
            raise self._ended() from error
        return self._answers()

    def close(self) -> None:
        """End the ranks; those that do not go are killed."""
        self._resources.close()

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self, kind: Kind, threads: int, folder: Path) -> subprocess.Popen[bytes]:
        launcher = launcher_of(kind)
        told = [str(folder / "orders"), launcher.transport, kind.links, str(threads)]
        with self._said.open("wb") as said:
            return subprocess.Popen(
                [*launcher.command(kind.ranks, folder), *told],
                env=environment(threads),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def _accept(self, server: socket.socket, ranks: int) -> None:
        began = time.monotonic()
        while len(self._lines) < ranks:
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                connection.settimeout(ANSWER_SECONDS)
                self._lines.append(Line(connection))
            if self.process.poll() is not None:
                self._answers()  # a rank may have said why
                raise self._ended()
            if time.monotonic() - began > START_SECONDS:
                raise GroupError(f"{len(self._lines)} of {ranks} ranks have come within {START_SECONDS:g} s")

    def _answers(self) -> list[Answer]:
        """Of all ranks; where one has said what failed, that is raised, whoever else has ended with it."""
        heard = [self._answer(line) for line in self._lines]
        answers = [answer for answer in heard if answer is not None]
        for answer in answers:
            if "error" in answer:
                raise GroupError(answer["error"], answer["wrong_input"])
        if len(answers) < len(heard):
            raise self._ended()
        return sorted(answers, key=lambda answer: int(answer["rank"]))

    def _answer(self, line: Line) -> Answer | None:
        try:
            return line.hear()
        except TimeoutError as error:
            raise GroupError(f"a rank has not answered for {ANSWER_SECONDS:g} s") from error
        except (EOFError, OSError):
            return None

    def _ended(self) -> GroupError:
        """With the last line that the group has said for itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_SECONDS)
        lines = [line for line in self._said.read_text(errors="replace").splitlines() if line.strip()]
        own = [line for line in lines if line.startswith("hdnn-dist: ")]
        return GroupError(f"a rank has ended: {(own or lines or ['it said nothing'])[-1]}")

    def _end(self) -> None:
        for line in self._lines:
            line.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
