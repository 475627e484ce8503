"""Real processes for tests: a script or module on n ranks, under torchrun or mpiexec."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
LAUNCHERS = ("torchrun", "mpiexec")


def command(launcher: str, ranks: int, *arguments: str) -> list[str]:
    """The command line that starts ``arguments`` (a script, or -m and a module) on so many ranks."""
    if launcher == "torchrun":
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        return [*start, *arguments]
    return [mpiexec(), "-n", str(ranks), sys.executable, "-m", "mpi4py", *arguments]


def mpiexec() -> str:
    """The launcher of the mpich wheel, or any other; the test is skipped where there is none."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed: pip install 'hdnn-dist[mpi]'")
    found = shutil.which("mpiexec", path=f"{BIN}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("no mpiexec here: pip install 'hdnn-dist[mpi]'")
    return found


def run(
    launcher: str, ranks: int, *arguments: str, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end; the limit only stops a job that hangs."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    line = command(launcher, ranks, *arguments)
    with started(line, variables) as process:
        output, errors = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(line, process.returncode, output, errors)


def free_port() -> str:
    """Of the loopback, free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


@contextlib.contextmanager
def by_hand(
    ranks: int, *arguments: str, within: Mapping[int, list[str]] | None = None, **environment: str
) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each rank, with torchrun's variables and no launcher; those that are left are killed.

    ``within``: rank -> what its command line starts with, such as unshare.
    """
    meeting = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    about = {**os.environ, "OMP_NUM_THREADS": "1", **meeting}
    lines = [[*(within or {}).get(rank, []), sys.executable, *arguments] for rank in range(ranks)]
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(started(line, {**about, "RANK": str(rank), **environment}))
            for rank, line in enumerate(lines)
        ]


@contextlib.contextmanager
def started(line: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, which is killed in the end."""
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def ranks_of(word: str) -> dict[int, int]:
    """Rank to process, of the ranks of a launcher, or by hand, whose command line has that word."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = ((entry / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
        except OSError:
            continue
        own = [line.partition(b"=")[2] for line in variables if line.startswith((b"RANK=", b"PMI_RANK="))]
        if own and b"python" in words[0] and word.encode() in words:
            found[int(own[0])] = int(entry.name)
    return found
