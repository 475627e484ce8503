"""How a benchmark starts its ranks on this machine: under torchrun, under mpiexec, or one process alone."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RANK = ["-m", "hdnn_dist.bench.rank_process"]
ALONE = "alone"


@dataclass(frozen=True)
class Launcher:
    """``transport``: of its ranks; ``command``: that starts so many of them, with a folder for what it writes.

    ``lacks``: what is not installed, empty where nothing is.
    """

    transport: str
    command: Callable[[int, Path], list[str]]
    lacks: Callable[[], str]


@dataclass(frozen=True)
class Kind:
    """A group of ranks: how many, who starts them, and which links they ask for."""

    ranks: int
    launcher: str
    links: str

    def __str__(self) -> str:
        return f"{self.ranks} ranks under {self.launcher} with links {self.links!r}"


def alone(_: int, __: Path) -> list[str]:
    """This interpreter."""
    return [sys.executable, *RANK]


def torchrun(ranks: int, folder: Path) -> list[str]:
    """As launch/torchrun.sh: a private file and the loopback, where --standalone listens on every interface."""
    meeting = ["--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file", "--rdzv-endpoint", f"{folder}/meeting"]
    quiet = ["--local-addr", "127.0.0.1", "--log-dir", str(folder), "--monitor-interval", "1"]
    start = [sys.executable, "-m", "torch.distributed.run", *meeting, *quiet, "--nproc-per-node", str(ranks)]
    return [*start, *RANK]


def mpiexec(ranks: int, _: Path) -> list[str]:
    """As launch/mpirun.sh: an exception on one rank ends all."""
    return [_mpiexec() or "mpiexec", "-n", str(ranks), sys.executable, "-m", "mpi4py", *RANK]


def _mpiexec() -> str | None:
    """That of this environment, such as the mpich wheel's, before any other."""
    return shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def _no_mpi() -> str:
    missing = [
        name
        for name, found in (("mpi4py", importlib.util.find_spec("mpi4py")), ("mpiexec", _mpiexec()))
        if found is None
    ]
    return f"{missing[0]} is not installed: pip install 'hdnn-dist[mpi]'" if missing else ""


LAUNCHERS = {
    "torchrun": Launcher("c10d", torchrun, lambda: ""),
    "mpiexec": Launcher("mpi", mpiexec, _no_mpi),
}
LINKS = ("auto", "network")
HELD = ("held", "held-1")  # the network, with every message held; and with one tile in flight
ONE_PROCESS = Launcher("local", alone, lambda: "")


def launcher_of(kind: Kind) -> Launcher:
    """Its launcher."""
    return ONE_PROCESS if kind.launcher == ALONE else LAUNCHERS[kind.launcher]


def environment(threads: int) -> dict[str, str]:
    """Of every rank."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
