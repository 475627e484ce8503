"""The contract across real processes: every check of battery.py, on 2, 3, 4 and 8 ranks, under torchrun and mpiexec.

Over shared memory and over the network: each launcher over both of them, each number of ranks at least once; all other
pairs where slow tests are asked for.
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

RANKS = (2, 3, 4, 8)
USUAL = {
    ("torchrun", 2, "auto"),
    ("mpiexec", 2, "network"),
    ("torchrun", 3, "network"),
    ("mpiexec", 4, "auto"),
    ("torchrun", 8, "auto"),
}
pytestmark = pytest.mark.timeout(700)
JOBS = [
    pytest.param(*job, marks=() if job in USUAL else pytest.mark.slow)
    for job in product(LAUNCHERS, RANKS, ("auto", "network"))
]
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


@pytest.mark.parametrize(("launcher", "ranks", "links"), JOBS)
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
