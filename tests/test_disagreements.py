"""Ranks that are given different things are refused, all with the same line: none trains a wrong network in silence."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import disagreements
import pytest
from jobs import LAUNCHERS, run

import hdnn_dist
from hdnn_dist import CommunicationGraph, connect, place


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory):
    @lru_cache
    def of(launcher: str) -> list[dict[str, str]]:
        folder = tmp_path_factory.mktemp(launcher)
        process = run(launcher, 2, str(Path(disagreements.__file__)), str(folder))
        assert process.returncode == 0, process.stdout + process.stderr
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]

    return of


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("case", disagreements.CASES)
def test_a_difference_is_refused_on_both_ranks(results, launcher: str, case: str) -> None:
    """One line that names what differs, and both values."""
    first, second = (found[case] for found in results(launcher))
    assert first == second
    assert first.startswith(f"the ranks disagree: {disagreements.CASES[case][0]} is ")
    assert " on rank 0, but " in first
    assert first.endswith(" on rank 1; give every rank the same")
    assert "\n" not in first
    value, other = first.split(" is ", 1)[1].split(" on rank 0, but ")
    assert value != other.removesuffix(" on rank 1; give every rank the same")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_ranks_are_in_step_afterwards(results, launcher: str) -> None:
    first, second = (found["afterwards"] for found in results(launcher))
    assert first == second


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, "MASTER_PORT is not: start with torchrun"),
        ({"SLURM_NTASKS": "4"}, "SLURM_NTASKS is 4, but no launcher has started this process"),
        ({"PMI_SIZE": "3"}, "PMI_SIZE announces 3 ranks, but 1 met by transport 'mpi'"),
    ],
    ids=["half of torchrun's variables", "a Slurm allocation", "another MPI library"],
)
def test_a_launcher_that_announces_more_ranks(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody trains alone in silence; the line says how to."""
    if "PMI_SIZE" in variables:
        pytest.importorskip("mpi4py.MPI", reason="mpi4py is not installed", exc_type=ImportError)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words) as refused:
        connect()
    assert "--transport local" in str(refused.value)
    with connect("local") as world:
        assert world.size == 1


def test_what_is_not_a_world_or_agents_is_refused() -> None:
    ring = CommunicationGraph.ring(8)
    with pytest.raises(TypeError, match=r"world is None: expected what hdnn_dist\.connect\(\) returns"):
        place(ring, None)
    with pytest.raises(TypeError, match=r"expected what hdnn_dist\.place\(graph, world\) returns"):
        hdnn_dist.HDNN(ring, 2)
