"""Ctrl-C, and signals to launchers and ranks, in the middle of a real training run."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jobs import BIN, by_hand, command, free_port, mpiexec, ranks_of, started

from hdnn_dist.kernels.announcement import interruptible

LAUNCH = Path(__file__).parents[1] / "launch"
CONFIG = str(LAUNCH / "configs" / "double_circles_ring8.toml")
SETTINGS = ["--set", "epochs=100000", "--set", "network.layers=4", "--set", "network.kernel=torch"]
HANGS = 25  # seconds: less than the 30 after which torchrun kills what does not end
INTERRUPTED = "interrupted"
SCRIPTS = [pytest.param(script, marks=pytest.mark.slow) for script in ("torchrun.sh", "mpirun.sh")]
pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"), pytest.mark.alone]


def wait_until_trained(folder: Path) -> None:
    """An epoch."""
    metrics, limit = folder / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text()):
        assert time.monotonic() < limit, "no epoch ends"
        time.sleep(0.05)


@contextmanager
def training(launcher: str, folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Two ranks in the middle of a run; ``launcher``: one of jobs.py, or a script of launch/."""
    run = ["train", *SETTINGS, "--run-dir", str(folder)]
    if launcher.endswith(".sh"):
        line = [str(LAUNCH / launcher), "2", CONFIG, *run[1:]]
    else:
        line = command(launcher, 2, "-m", "hdnn_dist", *run)
    about = {"PATH": f"{BIN}:{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent), "OMP_NUM_THREADS": "1"}
    with started(line, {**os.environ, **about, **environment}) as process:
        try:
            wait_until_trained(folder)
            yield process
        finally:
            for pid in ranks_of(str(folder)).values():  # which are in sessions of their own
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.mark.parametrize("launcher", ["torchrun", "mpiexec", *SCRIPTS])
def test_an_interrupted_launcher(launcher: str, folder: Path) -> None:
    """The ranks end by themselves, and say so."""
    mpiexec()
    with training(launcher, folder) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=HANGS)
    assert process.returncode != 0
    assert f"hdnn-dist: {INTERRUPTED}" in errors, errors
    assert "hdnn-dist: failed" not in errors or launcher.startswith("torchrun")
    if launcher.endswith(".sh"):
        assert process.returncode == 130
        assert "Traceback" not in errors


@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("mpiexec", marks=pytest.mark.slow), *SCRIPTS])
def test_a_launcher_that_is_killed(launcher: str, folder: Path) -> None:
    """Its ranks are not left to train on."""
    mpiexec()
    with training(launcher, folder) as process:
        assert ranks_of(str(folder)).keys() == {0, 1}
        process.kill()
        process.communicate(timeout=HANGS)
        limit = time.monotonic() + HANGS
        while ranks_of(str(folder)):
            assert time.monotonic() < limit, "a rank trains on"
            time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.parametrize("script", ["torchrun.sh", SCRIPTS[1]])
def test_a_rank_that_is_killed(script: str, number: signal.Signals, folder: Path) -> None:
    """The script says which, or the rank beside it does."""
    mpiexec()
    with training(script, folder) as process:
        os.kill(ranks_of(str(folder))[1], number)
        _, errors = process.communicate(timeout=HANGS)
    assert process.returncode != 0
    assert "rank 1" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_script_leaves_no_file_behind(number: signal.Signals, folder: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with training("torchrun.sh", folder, TMPDIR=str(temporary)) as process:
        process.send_signal(number)
        process.communicate(timeout=HANGS)
    assert process.returncode == 128 + number
    left = [file.name for file in temporary.iterdir()]
    assert all(name.startswith("torchinductor_") for name in left), "of torch, one for each user"


@pytest.mark.parametrize("script", ["torchrun.sh", SCRIPTS[1]])
def test_a_script_passes_our_line_on_and_no_page(script: str, tmp_path: Path) -> None:
    mpiexec()
    about = {"PATH": f"{BIN}:{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent), "TMPDIR": str(tmp_path)}
    line = [str(LAUNCH / script), "2", CONFIG, "--set", "network.layer=3"]
    with started(line, {**os.environ, **about}) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    lines = [line for line in errors.splitlines() if not line.startswith("Abort(2) on node ")]
    assert lines
    assert all("unknown key 'network.layer'" in line for line in lines), errors


def test_a_meeting_place_that_is_unknown() -> None:
    about = {"PATH": f"{BIN}:{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent)}
    about |= {"NODES": "2", "RENDEZVOUS": "no.such.host:29400"}
    with started([str(LAUNCH / "torchrun.sh"), "2", CONFIG], {**os.environ, **about}) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors == "RENDEZVOUS is 'no.such.host:29400': expected host:port of a machine that this one knows\n"


def test_a_rank_that_waits_in_gloo_hears_ctrl_c(folder: Path) -> None:
    """It waits for one that is stopped, with 300 s to go."""
    with by_hand(2, "-m", "hdnn_dist", "train", *SETTINGS, "--run-dir", str(folder)) as (first, second):
        wait_until_trained(folder)
        second.send_signal(signal.SIGSTOP)
        first.send_signal(signal.SIGINT)
        _, errors = first.communicate(timeout=HANGS)
    assert first.returncode == 130
    assert INTERRUPTED in errors


def test_ctrl_c_while_ranks_join(tmp_path: Path) -> None:
    """Rank 0 listens, and nobody comes."""
    port = free_port()
    about = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    line = [sys.executable, "-m", "hdnn_dist", "train", "--run-dir", str(tmp_path / "run")]
    with started(line, {**os.environ, **about}) as process:
        while not listens(port):
            time.sleep(0.05)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 130
    assert INTERRUPTED in errors


def listens(port: str) -> bool:
    """Whether somebody listens on it, by the table of the system, so that no connection is made."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(line[3] == "0A" and int(line[1].split(":")[1], 16) == int(port) for line in lines)


def test_ctrl_c_in_a_first_compile(tmp_path: Path) -> None:
    about = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    line = [sys.executable, "-m", "hdnn_dist", "train", "--run-dir", str(tmp_path / "run")]
    with started(line, {**os.environ, **about}) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("compiling the fused kernel")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=HANGS)
    assert process.returncode == 130
    assert errors == "hdnn-dist: interrupted; the run folder holds what was finished\n"


def test_an_interrupt_that_a_callback_swallows() -> None:
    """As llvmlite's do, at some moments of a compile."""
    callback = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))
    reached = []

    def compile_something() -> None:
        with interruptible():
            callback()
            reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        compile_something()
    assert reached, "this callback swallows nothing"
    with interruptible():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
