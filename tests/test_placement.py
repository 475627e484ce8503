"""Who owns which agent."""

from __future__ import annotations

import gc
import importlib.util
from weakref import ref

import numpy as np
import pytest
from test_halo import Seat

from hdnn_dist import CommunicationGraph, connect, place


@pytest.mark.parametrize("method", ["auto", "metis", "contiguous"])
@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_every_rank_owns_agents_and_every_agent_a_rank(method: str, size: int) -> None:
    pytest.importorskip("pymetis")
    graph = CommunicationGraph.grid(4, 4)
    placed = [place(graph, Seat(rank, size), method) for rank in range(size)]
    assert all(len(agents) for agents in placed)
    assert sorted(np.concatenate([agents.local for agents in placed]).tolist()) == list(range(16))
    assert all(np.array_equal(agents.owner, placed[0].owner) for agents in placed)


def test_metis_cuts_few_edges() -> None:
    """Two communities joined by one edge, numbered so that contiguous ranks would cut them badly."""
    pytest.importorskip("pymetis")
    even = [(i, k) for i in range(0, 16, 2) for k in range(i + 2, 16, 2)]
    odd = [(i + 1, k + 1) for i, k in even]
    graph = CommunicationGraph(16, sorted([*even, *odd, (0, 1)]))
    owner = place(graph, Seat(0, 2)).owner
    assert (owner[graph.edges[:, 0]] != owner[graph.edges[:, 1]]).sum() == 1


@pytest.mark.parametrize(("graph", "ranks"), [("torus:6x6", 11), ("grid:6x6", 13), ("erdos_renyi:20,0.3", 15)])
def test_bisection_serves_where_metis_leaves_a_rank_empty(graph: str, ranks: int) -> None:
    """And cuts fewer edges than ranks in order."""
    pytest.importorskip("pymetis")
    given = CommunicationGraph.parse(graph)
    cuts = {}
    for method in ("metis", "contiguous"):
        owner = place(given, Seat(0, ranks), method).owner
        assert set(owner.tolist()) == set(range(ranks))
        cuts[method] = (owner[given.edges[:, 0]] != owner[given.edges[:, 1]]).sum()
    assert cuts["metis"] < cuts["contiguous"]


def test_a_placement_that_metis_does_not_find_is_said_by_one_rank(recwarn: pytest.WarningsRecorder) -> None:
    pytest.importorskip("pymetis")
    graph = CommunicationGraph.ring(20)
    placed = [place(graph, Seat(rank, 19), "metis") for rank in range(19)]
    assert placed[0].owner.tolist() == place(graph, Seat(0, 19), "contiguous").owner.tolist()
    assert [str(said.message)[:38] for said in recwarn] == ["METIS leaves a rank without agents: 20"]


def test_one_agent_a_rank_is_in_order() -> None:
    assert place(CommunicationGraph.ring(8), Seat(0, 8)).owner.tolist() == list(range(8))


def test_by_hand() -> None:
    agents = place(CommunicationGraph.ring(4), Seat(1, 2), [1, 0, 1, 0])
    assert agents.local.tolist() == [0, 2]
    assert agents.owns(2)
    assert not agents.owns(1)
    assert agents.neighbours(0).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("size", "method", "message"),
    [
        (9, "auto", "9 ranks were started for 8 agents"),
        (2, "random", "unknown placement 'random'"),
        (2, [0, 1], "placement has 2 entries for 8 agents"),
        (2, [0.5] * 8, "one whole number"),
        (2, [0, 1, 2, 0, 1, 0, 1, 0], "puts agent 2 on rank 2, but the ranks are 0 to 1"),
        (3, [0, 1, 0, 0, 1, 0, 1, 0], "leaves rank 2 without agents"),
    ],
)
def test_wrong_placements_are_refused(size: int, method, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        place(CommunicationGraph.ring(8), Seat(0, size), method)


def test_metis_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pymetis, which is not installed"):
        place(CommunicationGraph.ring(8), Seat(0, 2), "metis")
    assert place(CommunicationGraph.ring(8), Seat(0, 2)).owner.tolist() == [0] * 4 + [1] * 4


def test_a_world_that_nobody_holds_goes() -> None:
    """With its groups of ranks and the memory of its edges."""
    world = connect("local")
    place(CommunicationGraph.ring(8), world)
    held = ref(world)
    del world
    gc.collect()
    assert held() is None
