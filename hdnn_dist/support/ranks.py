"""Ranks of a job on this machine, started by a command that is none of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

GRACE = 10.0  # seconds in which a launcher ends its ranks
# On Linux, end with the process that has started it, whatever ends that: prctl(PR_SET_PDEATHSIG, SIGTERM).
LEASHED = """
import ctypes, os, sys
getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)(1, 15)
os.execvp(sys.argv[1], sys.argv[1:])
"""
NO_MPIEXEC = "transport 'mpi' needs mpiexec, which is not installed: pip install 'hdnn-dist[mpi]'"


def command(transport: str, ranks: int, module: Sequence[str], folder: Path) -> list[str]:
    """The line that starts ``python -m MODULE ...`` on so many ranks; ``transport``: "c10d" or "mpi".

    ``folder``: for what the launcher leaves behind. ``ValueError`` where there is no launcher.
    """
    if transport == "mpi":
        return [_mpiexec(), "-n", str(ranks), sys.executable, "-m", "mpi4py", "-m", *module]
    meet = ["--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file", "--rdzv-endpoint", str(folder / "meeting")]
    where = ["--local-addr", "127.0.0.1", "--log-dir", str(folder), "--nproc-per-node", str(ranks)]
    return [sys.executable, "-m", "torch.distributed.run", *meet, *where, "-m", *module]


@contextlib.contextmanager
def started(line: Sequence[str], environment: Mapping[str, str], errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The launcher, in a session of its own, with its standard error in a file; it is ended with the block."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", **environment}
    leashed = [sys.executable, "-I", "-S", "-c", LEASHED, *line]
    with errors.open("wb") as written:
        process = subprocess.Popen(
            leashed, env=variables, stdin=subprocess.DEVNULL, stdout=written, stderr=written, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def _mpiexec() -> str:
    """Beside this Python, else the first of the path."""
    found = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        raise ValueError(NO_MPIEXEC)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask its group to end, then make it."""
    for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(seconds)
