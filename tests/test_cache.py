"""Compiled code on the disk: processes that compile at once, and files that are cut off, never give a wrong result."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="numba is not installed")
from hdnn_dist.support import locks
from hdnn_dist.support.compiled import cache

# Each process compiles one function for a type of its own; what it returns tells which code has run.
RACE = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[4])
from raced import size
Path(sys.argv[2]).touch()
while not Path(sys.argv[3]).exists():
    pass
x = np.zeros(3, dtype=sys.argv[1])
assert size(x) == 3 * x.itemsize, (sys.argv[1], size(x))
assert "came from the cache" not in sys.argv or size.stats.cache_hits, size.stats
"""
RACED = """
from numba import njit
from hdnn_dist.support.compiled.cache import shared

@shared
@njit(cache=True)
def size(x):
    return x.size * x.itemsize
"""
TYPES = ("int8", "int16", "float32", "float64")
PASS = """
import torch
from hdnn_dist import HDNN, CommunicationGraph, connect, place
net = HDNN(place(CommunicationGraph.ring(8), connect("local")), 2, 3)
print(net.kernel_for(5))
"""


NETWORK = """
import sys
from pathlib import Path
import numpy as np
import torch
from hdnn_dist import HDNN, CommunicationGraph, connect, place
agents = place(CommunicationGraph.ring(8), connect("local"))
Path(sys.argv[2]).touch()
while not Path(sys.argv[3]).exists():
    pass
x = torch.as_tensor(np.random.default_rng(0).standard_normal((5, 16)))
found = []
for kernel in ("torch", "auto"):
    net = HDNN(agents, 2, 3, 0.3, sys.argv[1], dtype=torch.float64, kernel=kernel)
    own = x.clone().requires_grad_()
    y = net(own)
    y.square().sum().backward()
    found.append((y.detach(), own.grad, net.weights.grad))
for first, second in zip(*found):
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)
print(net.kernel_for(5))
"""
ARCHITECTURES = ("H2", "MS1", "H1-J1", "MLP")


def start(code: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    variables = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def at_once(code: str, here: Path, folder: Path, kinds: Sequence[str], *more: str) -> list[tuple[str, str]]:
    """Output and errors of a process for each kind, all of which begin to compile together, then of all once more."""
    ready, go = [here / f"ready-{kind}" for kind in kinds], here / "go"
    started = [start(code, folder, kind, str(flag), str(go), *more) for kind, flag in zip(kinds, ready, strict=True)]
    while not all(flag.exists() for flag in ready):
        assert all(process.poll() is None for process in started)
    go.touch()
    outcomes = [process.communicate(timeout=600) for process in started]
    again = [start(code, folder, kind, str(here / "again"), str(go), *more) for kind in kinds]
    return outcomes + [process.communicate(timeout=600) for process in again]


def test_functions_that_are_compiled_at_once(tmp_path: Path) -> None:
    """An entry may be lost; none may be another one's."""
    for number in range(2):
        here = tmp_path / str(number)
        here.mkdir()
        (here / "raced.py").write_text(RACED)
        outcomes = at_once(RACE, here, tmp_path / f"cache{number}", TYPES, str(here))
        assert [errors for _, errors in outcomes] == [""] * 8


def test_processes_that_need_the_same_compile_it_once(tmp_path: Path) -> None:
    """The first does, and says so on its standard output; the others wait for it and read."""
    (tmp_path / "raced.py").write_text(RACED)
    code = f"{RACE.replace('dtype=sys.argv[1]', 'dtype=float')}\nprint(sum(size.stats.cache_misses.values()))"
    code = code.replace("sys.argv[1], size(x)", "size(x)")
    outcomes = at_once(code, tmp_path, tmp_path / "cache", "abcd", str(tmp_path))
    assert [errors for _, errors in outcomes] == [""] * 8
    assert sorted(output.strip() for output, _ in outcomes) == [*["0"] * 7, "1"]


@pytest.mark.parametrize("has_locks", [True, False])
def test_a_lock_is_not_waited_for_for_ever(has_locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that holds it may have been stopped, and a file system may have none."""

    def none(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(cache, "PATIENCE", 0.1)
    if not has_locks:
        monkeypatch.setattr(locks.fcntl, "flock", none)
    file = cache.SharedCacheFile(str(tmp_path / "new"), "function", "stamp")
    with file.alone("a signature"), file.alone("another one"):
        began = time.monotonic()
        with file.alone("a signature"):
            assert (time.monotonic() - began >= 0.05) == has_locks


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_networks_that_are_compiled_at_once(tmp_path: Path) -> None:
    """Four architectures, into one empty cache, 20 times: every result is right, then and afterwards, and compiled."""
    for number in range(20):
        here = tmp_path / str(number)
        here.mkdir()
        outcomes = at_once(NETWORK, here, tmp_path / f"cache{number}", ARCHITECTURES)
        assert [output.strip() for output, _ in outcomes] == ["fused"] * 8, outcomes
        assert not any("cannot be used" in errors or "damaged" in errors for _, errors in outcomes), outcomes


@pytest.mark.parametrize("suffix", [".nbi", pytest.param(".nbc", marks=pytest.mark.slow)])
def test_a_file_that_is_cut_off_is_compiled_again(suffix: str, tmp_path: Path) -> None:
    """The line names the file; the next process finds it mended."""
    outcomes = [start(PASS, tmp_path).communicate(timeout=250)]
    for path in tmp_path.rglob(f"*{suffix}"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    outcomes += [start(PASS, tmp_path).communicate(timeout=250) for _ in range(2)]
    assert [output.strip() for output, _ in outcomes] == ["fused"] * 3
    assert "is damaged" in outcomes[1][1]
    assert suffix in outcomes[1][1]
    assert "damaged" not in outcomes[2][1]
