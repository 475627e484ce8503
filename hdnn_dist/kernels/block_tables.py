"""Where the blocks of a layout lie, as plain arrays that compiled code can walk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hdnn_dist.support.arrays import ranges
from hdnn_dist.weights.blocks import BlockLayout

TILE = 128  # columns that are worked on at a time: few enough that the rows at hand stay in cache
BLOCK = np.dtype(
    [(name, np.int64) for name in ["row", "height", "bias", "reads", "reads_end", "returns", "returns_end"]]
)


class Tables(NamedTuple):
    """The blocks of one layout, and the terms of the products with K.

    ``blocks``: (blocks,) ``BLOCK``, that of the k-th local agent at place k, those of the halo after them. Each has its
    ``row`` in a buffer, its ``height``, and its terms in ``returns``, from ``returns`` to ``returns_end``; an agent's
    also those in ``reads``, and where its ``bias`` begins. A term is a buffer row and an entry of K: ``reads``,
    (terms, 2), has for every column of K_i the row that it multiplies and its first entry; ``returns``, (terms, 2), has
    for every block the rows of its readers, ascending, and the entry of its first column in each. ``pairs``:
    (pairs, 2), a block and the agent that reads it, in the order of ``returns``. ``agents``: how many are local.
    """

    blocks: np.ndarray
    reads: np.ndarray
    returns: np.ndarray
    pairs: np.ndarray
    agents: int


class Schedule(NamedTuple):
    """The order of the steps: k is the response of agent k, ~k settles its block, see ``kernels.cpu.half_steps``.

    ``steps``: (steps,) all of them; ``piece``: (pieces + 1,) where the pieces begin that one thread walks through;
    ``start``: (phases + 1,) where the phases begin, pieces that may be walked through at the same time. ``range``:
    (ranges + 1,) where the ranges of agents begin for other loops.

    A response that is needed for a short while only lies in rows that the next ones take over, so that it does not
    leave the cache. ``slots``: (agents,) where the rows of each begin; ``returns``: as in ``Tables``, with these rows;
    ``rows``: (1,) how many there are, in an array so that all parts are arrays.
    """

    steps: np.ndarray
    piece: np.ndarray
    start: np.ndarray
    range: np.ndarray
    slots: np.ndarray
    returns: np.ndarray
    rows: np.ndarray


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
    slots, rows = _slots(tables, cuts, np.where(early, last, agents))
    own = tables.blocks[:agents]
    moved = slots - own["row"]
    returns = tables.returns.copy()
    returns[:, 0] += np.repeat(moved[tables.pairs[:, 1]], own["height"][tables.pairs[:, 1]])
    steps, piece = np.concatenate([steps, ~late]), np.concatenate([pieces, late_pieces])
    return Schedule(steps, piece, np.array(start), cuts, slots, returns, np.array([rows]))


def _slots(tables: Tables, cuts: np.ndarray, settled: np.ndarray) -> tuple[np.ndarray, int]:
    """(agents,) the first row of each response, and the number of rows. ``settled``: (blocks,) after which response a
    block is settled, ``agents`` for those of the second phase.

    Every range has a ring of as many slots as an agent and those after it until its response is done with; what lasts
    longer has a slot of its own. The length of the rings is the one that makes the fewest slots.
    """
    own, agents, rings = tables.blocks[: tables.agents], np.arange(tables.agents), len(cuts) - 1
    until = agents.copy()
    np.maximum.at(until, tables.pairs[:, 1], settled[tables.pairs[:, 0]])
    span = np.where(until < len(agents), until - agents + 1, len(agents) + 1)
    lengths = np.unique(span)
    counts = rings * lengths + len(agents) - np.searchsorted(np.sort(span), lengths, side="right")
    height = int(own["height"].max(initial=1))
    if not len(agents) or counts.min() * height >= own["height"].sum():
        return own["row"].copy(), int(own["height"].sum())
    length = lengths[counts.argmin()]
    ring = np.searchsorted(cuts, agents, side="right") - 1
    place = ring * length + (agents - cuts[ring]) % length
    lasting = span > length
    place[lasting] = rings * length + np.arange(lasting.sum())
    return place * height, int(counts.min()) * height


def tables_of(layout: BlockLayout) -> Tables:
    """The tables of a layout."""
    halo = layout.halo
    present = np.flatnonzero(halo.offsets >= 0)
    present = present[np.argsort(halo.offsets[present], kind="stable")]
    blocks = np.zeros(len(present), dtype=BLOCK)
    blocks["row"], blocks["height"] = halo.offsets[present], halo.sizes[present]
    reads = _fill_reads(layout, blocks[: len(halo.agents.local)])
    pairs, returns = _fill_returns(layout, present, blocks, reads)
    return Tables(blocks, reads, returns, pairs, len(halo.agents.local))


def no_tables() -> Tables:
    """Those of no agent."""
    none = np.zeros((0, 2), dtype=np.int64)
    return Tables(np.zeros(0, dtype=BLOCK), none, none, none, 0)


def _fill_reads(layout: BlockLayout, agents: np.ndarray) -> np.ndarray:
    """The terms of K_i, agent after agent; where they and the bias begin in ``agents``."""
    width, entry = np.zeros((2, len(agents)), dtype=np.int64)
    members = [np.searchsorted(layout.halo.agents.local, group.agents) for group in layout.groups]
    for group, who in zip(layout.groups, members, strict=True):
        place = np.arange(len(who))
        width[who] = group.columns
        entry[who] = group.entries.start + place * group.rows * group.columns
        agents["bias"][who] = group.place.start + place * group.rows
    agents["reads_end"] = np.cumsum(width)
    agents["reads"] = agents["reads_end"] - width
    rows = np.empty(layout.slots, dtype=np.int64)
    for group, who in zip(layout.groups, members, strict=True):
        places = agents["reads"][who][:, np.newaxis] + np.arange(group.columns)
        rows[places] = group.slots.cpu().numpy().reshape(places.shape)
    return np.column_stack([rows, ranges(entry, width)])


def _fill_returns(
    layout: BlockLayout, present: np.ndarray, blocks: np.ndarray, reads: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(block, local reader) pairs and the terms of K^T, block after block; where they begin and end in ``blocks``."""
    halo, pattern = layout.halo, layout.pattern
    number = np.full(len(halo.sizes), -1)
    number[present] = np.arange(len(present))
    own = np.isin(pattern.rows, halo.agents.local)
    agent, read = np.searchsorted(halo.agents.local, pattern.rows[own]), pattern.columns[own]
    before = np.cumsum(halo.sizes[read]) - halo.sizes[read]  # patterns are sorted by agent, then by block
    order = np.lexsort((agent, number[read]))
    pairs = np.column_stack([number[read], agent])[order]
    reader, entry = blocks[pairs[:, 1]], reads[before[order], 1]
    terms = np.repeat(np.arange(len(pairs)), reader["height"])
    down = ranges(np.zeros(len(pairs), dtype=np.int64), reader["height"])
    width = (reader["reads_end"] - reader["reads"])[terms]
    counts = np.bincount(pairs[:, 0], reader["height"], len(blocks)).astype(np.int64)
    blocks["returns_end"] = np.cumsum(counts)
    blocks["returns"] = blocks["returns_end"] - counts
    return pairs, np.column_stack([reader["row"][terms] + down, entry[terms] + down * width])


def _needs(tables: Tables) -> np.ndarray:
    """(pairs, 2): an agent's block, and whose response it waits for: its own, its readers', that of those it reads."""
    pairs, own = tables.pairs, np.arange(tables.agents)
    reads = pairs[pairs[:, 0] < tables.agents, ::-1]
    return np.concatenate([pairs, reads, np.column_stack([own, own])])
