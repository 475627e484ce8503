"""Real processes for tests: a script or module on n ranks, under torchrun or mpiexec."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
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
    started = command(launcher, ranks, *arguments)
    with subprocess.Popen(
        started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what is left of a job that hung
    return subprocess.CompletedProcess(started, process.returncode, output, errors)
