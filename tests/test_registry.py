"""Which kernel serves, and what is said of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hdnn_dist.kernels import announcement


def compile_something(number: int) -> None:
    """Code that is in no cache."""
    numba = pytest.importorskip("numba", reason="numba is not installed")
    with announcement.announced():
        assert numba.njit(lambda x: x + number)(1) == 1 + number
        time.sleep(0.05)


def test_compiling_is_announced_once_in_a_process(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many kernels, for other types or kinds of layers, are compiled one after the other."""
    monkeypatch.setattr(announcement, "QUICK", 0.0)
    announcement._announce.cache_clear()
    for number in range(3):
        compile_something(number)
    assert [record.message.partition(" ")[0] for record in caplog.records] == ["compiling"]


def test_one_rank_of_a_machine_says_so(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcement, "QUICK", 0.0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    announcement._announce.cache_clear()
    compile_something(7)
    assert not caplog.records


def test_a_kernel_from_the_cache_is_not_announced(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a busy machine takes to read it."""
    monkeypatch.setattr(announcement, "QUICK", 0.0)
    announcement._announce.cache_clear()
    with announcement.announced():
        time.sleep(0.05)
    assert not caplog.records


def test_the_cache_is_named_after_every_file_whose_constants_are_compiled() -> None:
    """A slope, a tile's width or the fields of a table that change must not meet code compiled with the old ones."""
    functions = pytest.importorskip("hdnn_dist.support.compiled.functions", reason="numba is not installed")
    names = {str(path.relative_to(functions.ROOT)) for path in functions.sources()}
    assert {"kernels/cpu/passes.py", "propagation/activations.py", "kernels/block_tables.py"} <= names
    used = {
        module
        for folder in functions.FOLDERS
        for path in (functions.ROOT / folder).glob("*.py")
        for module in re.findall(r"^from hdnn_dist\.([\w.]+)", path.read_text(), re.M)
    }
    assert {module.replace(".", "/") + ".py" for module in used} <= names


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
import hdnn_dist.kernels.cuda.graphs
from hdnn_dist.cli import main
sys.argv = ["hdnn-dist", "train", "--set", "epochs=2", "--set", "data.samples=200", "--set", "network.layers=4",
            "--run-dir", sys.argv[1]]
main()
"""


def test_without_numba_the_portable_kernel_trains(tmp_path: Path) -> None:
    """And what needs no compiler can be imported, CUDA graphs among it."""
    command = [sys.executable, "-c", WITHOUT_NUMBA, str(tmp_path / "run")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "the slower torch kernel serves" in ended.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == 2


def test_numba_that_does_not_compile_serves_no_kernel(tmp_path: Path) -> None:
    """Of no network, whole or with exchanges between its layers."""
    sizes = [word for key in ("epochs=1", "data.samples=200", "network.layers=4") for word in ("--set", key)]
    command = [sys.executable, "-m", "hdnn_dist", "train", *sizes, "--run-dir", str(tmp_path / "run")]
    variables = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, env=variables)
    assert ended.returncode == 0, ended.stderr
    assert "as NUMBA_DISABLE_JIT is set); the slower torch kernel serves" in ended.stderr
