"""The order in which the steps of a half-step run, and the rows that its responses share."""

from __future__ import annotations

import numpy as np
import pytest

from hdnn_dist import HDNN, CommunicationGraph, connect, place
from hdnn_dist.kernels.block_tables import Schedule, Tables, schedule_of, tables_of

SPECS = ["ring:24", "path:9", "grid:5x5", "star:9", "complete:8", "erdos_renyi:30,0.2", "tree:3x2"]
ID = 1000  # a row of a response is known by ID * agent + the row's number


def tables_for(spec: str, features: list[int]) -> Tables:
    agents = place(CommunicationGraph.parse(spec), connect("local"))
    net = HDNN(agents, np.resize(features, agents.graph.agents).tolist(), 1)
    return tables_of(net.layout)


def walk(tables: Tables, schedule: Schedule, piece: int, before: np.ndarray) -> tuple[np.ndarray, set[int], set[int]]:
    """Run the steps of a piece on the names of rows alone: what it leaves, and the rows that it wrote and read.

    ``before``: what was there before its phase, whose other pieces run at the same time.
    """
    holds, wrote, read = before.copy(), set(), set()
    for step in schedule.steps[schedule.piece[piece] : schedule.piece[piece + 1]]:
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


@pytest.mark.parametrize("ranges", [1, 2, 3, 4])
@pytest.mark.parametrize("features", [[2], [2, 6, 4]])
@pytest.mark.parametrize("spec", SPECS)
def test_every_response_is_there_when_it_is_read(spec: str, features: list[int], ranges: int) -> None:
    """Every block is settled once, from what its readers responded; no piece of a phase writes what another touches."""
    tables = tables_for(spec, features)
    schedule = schedule_of(tables, ranges)
    holds = np.full(int(schedule.rows[0]), -1)
    assert sorted(schedule.steps.tolist()) == sorted([*range(tables.agents), *(~np.arange(tables.agents)).tolist()])
    for first, last in zip(schedule.start[:-1], schedule.start[1:], strict=True):
        done = [walk(tables, schedule, piece, holds) for piece in range(first, last)]
        for number, (after, wrote, _) in enumerate(done):
            others = [rows for at, (_, *touched) in enumerate(done) if at != number for rows in touched]
            assert wrote.isdisjoint(set().union(*others))
            holds[list(wrote)] = after[list(wrote)]


@pytest.mark.parametrize(("spec", "most"), [("ring:512", 6), ("path:512", 4), ("grid:16x16", 36), ("complete:16", 16)])
def test_few_rows_serve_many_agents(spec: str, most: int) -> None:
    """As many responses as lie between an agent's and that of its last neighbour, so that they stay in the cache."""
    tables = tables_for(spec, [2])
    assert schedule_of(tables, 1).rows[0] <= most * tables.blocks[0]["height"]
