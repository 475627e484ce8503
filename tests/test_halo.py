"""The halo and the tree in one process; battery.py holds them to the same across ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hdnn_dist import CommunicationGraph, connect, place
from hdnn_dist.exchange.halo import Halo
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.support.arrays import ranges
from hdnn_dist.weights.blocks import BlockLayout

WORLD = connect("local")


class Seat(type(WORLD)):
    """A rank of a larger world that nobody else attends: enough to look at its tables."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(torch.device("cpu"))
        self.rank, self.size = rank, size


def seats(graph: CommunicationGraph, size: int, method="contiguous") -> list[Agents]:
    return [place(graph, Seat(rank, size), method) for rank in range(size)]


def test_ranges() -> None:
    assert ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert ranges(np.array([]), np.array([], dtype=int)).tolist() == []


@pytest.mark.parametrize("size", [2, 3, 8])
def test_what_one_rank_sends_is_what_the_other_expects(size: int) -> None:
    """Both sides of every message are computed apart, from the same graph: their blocks and their order must agree."""
    graph = CommunicationGraph.erdos_renyi(12, 0.4, seed=1)
    sizes = np.arange(1, 13)
    owner = np.random.default_rng(0).permutation(np.arange(12) % size)
    agents = seats(graph, size, owner.tolist())
    halos = [Halo(each, graph.pattern(), sizes) for each in agents]
    whole = np.repeat(np.arange(12), sizes)
    for rank, halo in enumerate(halos):
        local = whole[np.isin(owner[whole], rank)]
        for peer, rows in halo.send_slices.items():
            sent = local[halo.send_rows[rows]]
            held = np.full(halos[peer].rows + halos[peer].halo_rows, -1)
            for agent in np.flatnonzero(halos[peer].offsets >= 0):
                start = halos[peer].offsets[agent]
                held[start : start + sizes[agent]] = agent
            assert np.array_equal(held[halos[peer].halo_slices[rank]], sent)


def test_a_block_is_sent_once_to_a_rank_that_reads_it_often() -> None:
    graph = CommunicationGraph.complete(8)
    halo = Halo(seats(graph, 2)[0], graph.pattern(), np.full(8, 3))
    assert len(halo.send_rows) == halo.halo_rows == 4 * 3


def test_agents_of_one_shape_are_one_group() -> None:
    """No loop over agents: a ring has one group, a path has its two ends apart."""
    for graph, groups in ((CommunicationGraph.ring(50), 1), (CommunicationGraph.path(50), 2)):
        layout = BlockLayout(Halo(place(graph, WORLD), graph.pattern(), np.full(50, 2)), graph.pattern())
        assert len(layout.groups) == groups


@pytest.mark.parametrize("size", [1, 2, 3])
def test_agents_that_read_nothing_of_other_ranks_have_groups_of_their_own(size: int) -> None:
    """They are multiplied while the halo travels, so no slot of theirs may be in it."""
    graph = CommunicationGraph.watts_strogatz(20, 4, 0.2, seed=1)
    sizes = np.arange(20) % 3 + 1
    for agents in seats(graph, size):
        layout = BlockLayout(Halo(agents, graph.pattern(), sizes), graph.pattern())
        inner, outer = layout.groups[: layout.inner], layout.groups[layout.inner :]
        assert all((group.slots < layout.halo.rows).all() for group in inner)
        assert all((group.slots.view(-1, group.columns) >= layout.halo.rows).any(1).all() for group in outer)
        assert sorted(agent for group in layout.groups for agent in group.agents) == agents.local.tolist()
        assert bool(outer) == (size > 1)


@pytest.mark.parametrize("members", [None, [8], [2, 6]])
@pytest.mark.parametrize("owner", ["contiguous", [0, 1, 2, 2, 0, 1, 1, 2, 0]])
def test_the_tree_uses_graph_edges_and_reaches_its_members(owner, members) -> None:
    graph = CommunicationGraph.grid(3, 3)
    trees = [SumTree(each, root=4, members=members) for each in seats(graph, 3, owner)]
    for tree in trees:
        child = np.flatnonzero(tree.parent >= 0)
        assert len(child) == 8
        assert graph.contains(child, tree.parent[child]).all()
        assert tree.members[[4] if members is None else [4, *members]].all()
        assert np.array_equal(tree.parent, trees[0].parent)
        inner = child[tree.members[child]]
        assert tree.members[tree.parent[inner]].all()


def test_components_of_one_rank_sum_in_memory() -> None:
    """All agents in one process: one row, no level, whatever the depth of the graph."""
    tree = SumTree(place(CommunicationGraph.path(300), WORLD), root=7)
    assert tree.parts == 1
    assert not tree._levels
    assert torch.equal(tree.sum(torch.arange(3.0)), torch.arange(3.0))


def test_a_root_that_is_no_agent_is_refused() -> None:
    with pytest.raises(ValueError, match="root 9 is not an agent: the agents are 0 to 7"):
        SumTree(place(CommunicationGraph.ring(8), WORLD), root=9)
