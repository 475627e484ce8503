"""Where the blocks of a layout lie, as plain arrays that compiled code can walk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hdnn_dist.blocks import BlockLayout

TILE = 128  # columns that are worked on at a time: few enough that the rows at hand stay in cache
BLOCK = np.dtype([(name, np.int64) for name in ["row", "height", "width", "entry", "bias", "slot", "readers", "end"]])
READER = np.dtype([(name, np.int64) for name in ["agent", "column"]])


class Tables(NamedTuple):
    """The blocks of one layout.

    ``blocks``: that of the k-th local agent at place k, those of the halo after them. Each has its ``row`` in a field,
    its ``height``, and its readers from ``readers`` to ``end``; an agent's also the ``width`` of K_i, and where its
    entries (``entry``), its bias and its slots begin. ``slots``: field rows that are read, agent after agent;
    ``rows``: all field rows, 0, 1, ... ``readers``: the ``agent`` that reads a block, ascending, and the block's first
    ``column`` in its K_i. ``agents``: how many are local.
    """

    blocks: np.ndarray
    slots: np.ndarray
    rows: np.ndarray
    readers: np.ndarray
    agents: int


class Schedule(NamedTuple):
    """The order of the steps: k is the response of agent k, ~k settles its block, see ``half_steps``.

    ``steps``: all of them; ``piece``: where the pieces begin that one thread walks through; ``start``: where the phases
    begin, pieces that may run at the same time. ``range``: where the ranges of agents begin for other loops.
    """

    steps: np.ndarray
    piece: np.ndarray
    start: np.ndarray
    range: np.ndarray


def schedule_of(tables: Tables, ranges: int) -> Schedule:
    """Agents split into ``ranges``: what a range can settle by itself it settles early, the rest in a second phase."""
    agents, blocks = tables.agents, len(tables.blocks)
    cuts = np.arange(ranges + 1) * agents // ranges
    needs = _needs(tables)
    first, last = np.full(blocks, agents), np.zeros(blocks, dtype=np.int64)
    np.minimum.at(first, needs[:, 0], needs[:, 1])
    np.maximum.at(last, needs[:, 0], needs[:, 1])
    early = np.searchsorted(cuts, first, side="right") == np.searchsorted(cuts, last, side="right")
    # the settling of a block comes after the last response it waits for, so 2 last + 1 among the 2 k of the responses
    keys = np.concatenate([2 * np.arange(agents), 2 * last[early] + 1])
    order = np.argsort(keys, kind="stable")
    steps = np.concatenate([np.arange(agents), ~np.flatnonzero(early)])[order]
    late = np.flatnonzero(~early)
    pieces = np.searchsorted(keys[order], 2 * cuts)
    late = late[np.argsort(last[late], kind="stable")]
    late_pieces = len(steps) + np.searchsorted(last[late], cuts[1:])
    start = [0, ranges, 2 * ranges] if len(late) else [0, ranges]
    return Schedule(np.concatenate([steps, ~late]), np.concatenate([pieces, late_pieces]), np.array(start), cuts)


def tables_of(layout: BlockLayout) -> Tables:
    """The tables of a layout."""
    halo = layout.halo
    present = np.flatnonzero(halo.offsets >= 0)
    present = present[np.argsort(halo.offsets[present], kind="stable")]
    blocks = np.zeros(len(present), dtype=BLOCK)
    blocks["row"], blocks["height"] = halo.offsets[present], halo.sizes[present]
    slots = _slots(layout, _fill_agents(layout, blocks[: len(halo.agents.local)]))
    rows = np.arange(halo.rows + halo.halo_rows)
    return Tables(blocks, slots, rows, _readers(layout, present, blocks), len(halo.agents.local))


def _fill_agents(layout: BlockLayout, agents: np.ndarray) -> np.ndarray:
    """Width, entry, bias and slot of every local agent."""
    for group in layout.groups:
        members, place = np.searchsorted(layout.halo.agents.local, group.agents), np.arange(len(group.agents))
        agents["width"][members] = group.columns
        agents["entry"][members] = group.entries.start + place * group.rows * group.columns
        agents["bias"][members] = group.place.start + place * group.rows
    agents["slot"] = np.cumsum(agents["width"]) - agents["width"]
    return agents


def _slots(layout: BlockLayout, agents: np.ndarray) -> np.ndarray:
    """The slots of the groups, agent after agent."""
    slots = np.empty(layout.slots, dtype=np.int64)
    for group in layout.groups:
        members = np.searchsorted(layout.halo.agents.local, group.agents)
        places = agents["slot"][members][:, np.newaxis] + np.arange(group.columns)
        slots[places] = group.slots.cpu().numpy().reshape(len(members), -1)
    return slots


def _needs(tables: Tables) -> np.ndarray:
    """(pairs, 2): an agent's block, and whose response it waits for: its own, its readers', that of those it reads."""
    blocks = tables.blocks
    read = np.repeat(np.arange(len(blocks)), blocks["end"] - blocks["readers"])
    pairs = np.column_stack([read, tables.readers["agent"]])
    own, reads = np.arange(tables.agents), pairs[pairs[:, 0] < tables.agents, ::-1]
    return np.concatenate([pairs, reads, np.column_stack([own, own])])


def _readers(layout: BlockLayout, present: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """The local readers of every block, and where they begin and end in ``blocks``."""
    halo, pattern = layout.halo, layout.pattern
    number = np.full(len(halo.sizes), -1)
    number[present] = np.arange(len(present))
    own = np.isin(pattern.rows, halo.agents.local)
    agent, read = np.searchsorted(halo.agents.local, pattern.rows[own]), pattern.columns[own]
    before = np.cumsum(halo.sizes[read]) - halo.sizes[read]  # patterns are sorted by agent, then by block
    column = before - before[np.searchsorted(agent, agent)]
    order = np.lexsort((agent, number[read]))
    readers = np.empty(len(agent), dtype=READER)
    readers["agent"], readers["column"] = agent[order], column[order]
    blocks["end"] = np.cumsum(np.bincount(number[read], minlength=len(blocks)))
    blocks["readers"][1:] = blocks["end"][:-1]
    return readers
