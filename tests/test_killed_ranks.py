"""A rank that is killed at any moment of training ends all others, who say which edge broke; nothing is left."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import linked_ranks
import pytest
from _pytest.mark import ParameterSet
from jobs import LAUNCHERS, by_hand, command, ranks_of, started

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"), pytest.mark.alone]
SCRIPT = str(Path(linked_ranks.__file__))
RANKS = 4
LINKS = ("auto", "network")
IN_TIME, SOON = 5.0, 1.5  # seconds
HANGS = 60  # proves that nobody waits for ever
TIMEOUT = 4.0
FOR_EVER = str(10**9)
BROKEN = re.compile(r"TransportError: (.*could not \S+ \S+ rank (\d) \(such as agent \d -> agent \d\): .+)")
MOMENTS = range(20)
USUAL = {("by hand", "auto"), ("torchrun", "auto"), ("mpiexec", "network")}  # tried at one moment, if not slow
SLOW_OVER_THE_NETWORK = ("auto", pytest.param("network", marks=pytest.mark.slow))


def kills(*launchers: str) -> list[ParameterSet]:
    return [
        pytest.param(*how, marks=() if how[:2] in USUAL and how[2] == 0 else pytest.mark.slow)
        for how in product(launchers, LINKS, MOMENTS)
    ]


class Ending(NamedTuple):
    """``seconds``: until the last of the others had ended; ``errors``: of every rank, or of the whole job at -1."""

    seconds: float
    errors: dict[int, str]


@contextlib.contextmanager
def training(launcher: str, links: str, folder: Path, timeout: float = 60) -> Iterator[list[subprocess.Popen[str]]]:
    """A job in the middle of training: its launcher, or its ranks where there is none."""
    about = {"TMPDIR": str(folder), "SECONDS_TO_WAIT": str(timeout)}
    arguments = [SCRIPT, FOR_EVER, links, "nothing", "0", str(folder)]
    if launcher == "by hand":
        job = by_hand(RANKS, *arguments, **about)
    else:
        line = command(launcher, RANKS, *arguments)
        job = one(started(line, {**os.environ, "OMP_NUM_THREADS": "1", **about}))
    with job as processes:
        try:
            begin(processes)
            yield processes
        finally:
            for pid in ranks_of(str(folder)).values():
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def one(process: contextlib.AbstractContextManager[subprocess.Popen[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    with process as job:
        yield [job]


def begin(processes: list[subprocess.Popen[str]]) -> None:
    """Wait until all ranks train."""
    for process in processes:
        for _ in range(RANKS // len(processes)):
            assert process.stdout is not None
            assert process.stdout.readline() == "trains\n", process.communicate(timeout=HANGS)[1]


def ended(processes: list[subprocess.Popen[str]], folder: Path, without: int = -1) -> Ending:
    """The others have: all processes but that of the rank ``without``, and whatever they started."""
    began = time.monotonic()
    left = {rank: process for rank, process in enumerate(processes) if rank != without}
    errors = {rank: process.communicate(timeout=HANGS)[1] for rank, process in left.items()}
    while ranks_of(str(folder)).keys() - {without}:
        assert time.monotonic() < began + HANGS, "a rank trains on"
        time.sleep(0.02)
    return Ending(time.monotonic() - began, errors)


def nothing_left(folder: Path) -> None:
    """No file, socket or not, but what the libraries keep there for each user."""
    assert not [file.name for file in folder.iterdir() if not file.name.startswith(("torchinductor_", "torchelastic_"))]
    assert not [name for name in os.listdir("/dev/shm") if "hdnn" in name]


def neighbours(rank: int) -> set[int]:
    return {(rank - 1) % RANKS, (rank + 1) % RANKS}


def broken_edge(rank: int, errors: str) -> int:
    """The neighbour that a rank names in its last line."""
    found = BROKEN.search(errors.strip().splitlines()[-1])
    assert found is not None, f"rank {rank}: {errors}"
    assert int(found[2]) in neighbours(rank)
    return int(found[2])


@pytest.mark.parametrize(("launcher", "links", "seed"), kills("by hand"))
def test_ranks_without_a_launcher(launcher: str, links: str, seed: int, tmp_path: Path) -> None:
    """Each names an edge of the rank that was killed, or of one that has ended because of it."""
    chance = random.Random(seed)
    dead = chance.randrange(RANKS)
    with training(launcher, links, tmp_path) as ranks:
        time.sleep(chance.random() / 2)
        ranks[dead].kill()
        ending = ended(ranks, tmp_path, dead)
    named = {rank: broken_edge(rank, errors) for rank, errors in ending.errors.items()}
    assert dead in named.values(), named
    assert ending.seconds < IN_TIME
    nothing_left(tmp_path)


@pytest.mark.parametrize(("launcher", "links", "seed"), kills(*LAUNCHERS))
def test_ranks_of_a_launcher(launcher: str, links: str, seed: int, tmp_path: Path) -> None:
    """It may end the others before they have seen that one has: who says something says an edge."""
    chance = random.Random(seed)
    dead = chance.randrange(RANKS)
    with training(launcher, links, tmp_path) as (job,):
        time.sleep(chance.random() / 2)
        os.kill(ranks_of(str(tmp_path))[dead], signal.SIGKILL)
        ending = ended([job], tmp_path)
    assert job.returncode != 0
    said = [line for line in ending.errors[0].splitlines() if "TransportError" in line]
    assert all(BROKEN.search(line) for line in said), said
    assert ending.seconds < IN_TIME
    nothing_left(tmp_path)


@pytest.mark.parametrize("links", SLOW_OVER_THE_NETWORK)
def test_a_rank_that_is_stopped(links: str, tmp_path: Path) -> None:
    """Ends the others at the timeout; who waits for it says so."""
    with training("by hand", links, tmp_path, TIMEOUT) as ranks:
        ranks[1].send_signal(signal.SIGSTOP)
        ending = ended(ranks, tmp_path, 1)
    assert TIMEOUT - 0.1 < ending.seconds < TIMEOUT + IN_TIME
    named = {rank: broken_edge(rank, errors) for rank, errors in ending.errors.items()}
    assert 1 in named.values(), named


@pytest.mark.parametrize("links", SLOW_OVER_THE_NETWORK)
def test_ctrl_c_while_a_rank_waits(links: str, tmp_path: Path) -> None:
    """At once in shared memory; gloo does not let Python hear it, and the watch ends the rank."""
    with training("by hand", links, tmp_path) as ranks:
        ranks[1].send_signal(signal.SIGSTOP)
        time.sleep(0.5)  # until it waits
        ranks[0].send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = ranks[0].communicate(timeout=HANGS)
        seconds = time.monotonic() - began
    assert ranks[0].returncode == 130
    assert "interrupted" in errors
    assert seconds < (SOON if links == "auto" else IN_TIME)
