"""The order in which the steps of a half-step run, and the rows that its responses share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hdnn_dist import HDNN, CommunicationGraph, connect, place
from hdnn_dist.exchange.halo import Halo
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.world import World
from hdnn_dist.kernels.block_tables import Tables, tables_of
from hdnn_dist.kernels.schedules import Schedule, around_exchanges, schedule_of, whole
from hdnn_dist.weights.blocks import BlockLayout

SPECS = ["ring:24", "path:9", "grid:5x5", "star:9", "complete:8", "erdos_renyi:30,0.2", "tree:3x2"]
ID = 1000  # a row of a response is known by ID * agent + the row's number


class Third(World):
    """Rank 1 of 3, whose blocks are laid out and which exchanges nothing."""

    transport, rank, size = "local", 1, 3
    device = connect("local").device

    def channel(self, route, sends, receives):
        raise AssertionError("nothing is sent")


def tables_for(spec: str, features: list[int], ranks: int = 1) -> Tables:
    graph = CommunicationGraph.parse(spec)
    sizes = np.resize(features, graph.agents)
    if ranks == 1:
        return tables_of(HDNN(place(graph, connect("local")), sizes.tolist(), 1).layout)
    agents = Agents(graph, Third(), np.arange(graph.agents) % ranks)
    return tables_of(BlockLayout(Halo(agents, graph.pattern(), sizes // 2), graph.pattern()))


def walk(tables: Tables, schedule: Schedule, piece: int, before: np.ndarray) -> tuple[np.ndarray, set[int], set[int]]:
    """Run the steps of a piece on the names of rows alone: what it leaves, and the rows that it wrote and read.

    ``before``: what was there before its phase, whose other pieces run at the same time.
    """
    holds, wrote, read = before.copy(), set(), set()
    for step in schedule.pieces[piece]:
        if step >= 0:
            rows = schedule.slots[step] + np.arange(tables.blocks[step]["height"])
            holds[rows] = ID * step + np.arange(len(rows))
            wrote.update(rows.tolist())
            continue
        block = tables.blocks[~step]
        readers = tables.pairs[tables.pairs[:, 0] == ~step, 1]
        expected = [ID * reader + r for reader in readers for r in range(tables.blocks[reader]["height"])]
        rows = schedule.returns[block["returns"] : block["returns_end"], 0]
        assert holds[rows].tolist() == expected
        read.update(rows.tolist())
    return holds, wrote, read


@pytest.mark.parametrize(("ranks", "groups"), [(1, whole), (3, around_exchanges)])
@pytest.mark.parametrize("ranges", [1, 2, 3, 4])
@pytest.mark.parametrize("features", [[2], [2, 6, 4]])
@pytest.mark.parametrize("spec", SPECS)
def test_every_response_is_there_when_it_is_read(
    spec: str, features: list[int], ranges: int, ranks: int, groups: Callable[[Tables], list[np.ndarray]]
) -> None:
    """Every block is settled once, from what its readers responded; no piece of a phase writes what another touches."""
    tables = tables_for(spec, features, ranks)
    schedule = schedule_of(tables, ranges, groups(tables))
    holds = np.full(schedule.rows, -1)
    steps = np.concatenate(schedule.pieces).tolist()
    assert sorted(steps) == sorted([*range(tables.agents), *(~np.arange(len(tables.blocks))).tolist()])
    for first, last in zip(schedule.start[:-1], schedule.start[1:], strict=True):
        done = [walk(tables, schedule, piece, holds) for piece in range(first, last)]
        for number, (after, wrote, _) in enumerate(done):
            others = [rows for at, (_, *touched) in enumerate(done) if at != number for rows in touched]
            assert wrote.isdisjoint(set().union(*others))
            holds[list(wrote)] = after[list(wrote)]


@pytest.mark.parametrize("spec", SPECS)
def test_who_reads_of_another_rank_is_in_the_second_group(spec: str) -> None:
    """What is returned is settled before the third group responds, and the first reads nothing that has to come."""
    tables = tables_for(spec, [2], 3)
    groups = around_exchanges(tables)
    schedule = schedule_of(tables, 1, groups)
    apart = tables.pairs[tables.pairs[:, 0] >= tables.agents, 1]
    assert set(apart) <= set(groups[1])
    assert set(tables.lent) <= set(groups[1])
    assert sorted(np.concatenate(groups)) == list(range(tables.agents))
    before = np.concatenate(schedule.pieces[: schedule.start[4]])
    assert set(~np.arange(tables.agents, len(tables.blocks))) <= set(before)


@pytest.mark.parametrize(("spec", "most"), [("ring:512", 6), ("path:512", 4), ("grid:16x16", 36), ("complete:16", 16)])
def test_few_rows_serve_many_agents(spec: str, most: int) -> None:
    """As many responses as lie between an agent's and that of its last neighbour, so that they stay in the cache."""
    tables = tables_for(spec, [2])
    assert schedule_of(tables, 1).rows <= most * tables.blocks[0]["height"]
