"""The contract across real processes: every check of battery.py, on 2, 3, 4 and 8 ranks, under torchrun and mpiexec.

Over shared memory and over the network: each number of ranks over one of them by one launcher and over the other by the
other, the rest where slow tests are asked for.
"""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import product
from pathlib import Path

import battery
import pytest
import wrapped
from jobs import LAUNCHERS, run

SHARED_BY = {2: "torchrun", 3: "mpiexec", 4: "mpiexec", 8: "torchrun"}  # ranks -> the launcher of "auto", if not slow
pytestmark = pytest.mark.timeout(700)
TRANSPORT = {"torchrun": "c10d (gloo)", "mpiexec": "mpi"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory):
    """The results of one job, which is run when they are first asked for."""

    @lru_cache
    def of(launcher: str, ranks: int, links: str) -> list[dict[str, str]]:
        folder = tmp_path_factory.mktemp(f"{launcher}{ranks}{links}")
        process = run(launcher, ranks, str(Path(battery.__file__)), str(folder), timeout=600, LINKS=links)
        written = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
        failed = [result for result in written if process.returncode]  # others may have been stopped before they wrote
        assert len(written) == ranks or failed, process.stdout + process.stderr
        return written

    return of


def jobs():
    for launcher, ranks, links in product(LAUNCHERS, SHARED_BY, ("auto", "network")):
        usual = (launcher == SHARED_BY[ranks]) == (links == "auto")
        yield pytest.param(launcher, ranks, links, marks=() if usual else pytest.mark.slow)


@pytest.mark.parametrize(("launcher", "ranks", "links"), jobs())
@pytest.mark.parametrize("check", [check.__name__ for check in battery.CHECKS])
def test_contract(results, launcher: str, ranks: int, links: str, check: str) -> None:
    for rank, result in enumerate(results(launcher, ranks, links)):
        assert result["transport"] == TRANSPORT[launcher]
        assert result.get(check, "not reached: see the check before") == "ok", f"rank {rank}\n{result.get(check)}"


@pytest.mark.parametrize("check", battery.CHECKS, ids=lambda check: check.__name__)
def test_contract_in_one_process(check) -> None:
    check(battery.ALONE)


def test_a_network_in_the_wrappers_of_torch() -> None:
    """torch.compile and autocast change nothing; DistributedDataParallel is refused."""
    process = run("torchrun", 2, str(Path(wrapped.__file__)))
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count("right") == 2
