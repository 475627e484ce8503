"""Where the blocks of a layout lie, as plain arrays that compiled code can walk."""

from __future__ import annotations

from collections.abc import Sequence
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
    (pairs, 2), a block and the agent that reads it, in the order of ``returns``. ``lent``: those of the agents whose
    block another rank reads; ``agents``: how many are local.
    """

    blocks: np.ndarray
    reads: np.ndarray
    returns: np.ndarray
    pairs: np.ndarray
    lent: np.ndarray
    agents: int


def tables_of(layout: BlockLayout) -> Tables:
    """The tables of a layout."""
    halo = layout.halo
    present = np.flatnonzero(halo.offsets >= 0)
    present = present[np.argsort(halo.offsets[present], kind="stable")]
    blocks = np.zeros(len(present), dtype=BLOCK)
    blocks["row"], blocks["height"] = halo.offsets[present], halo.sizes[present]
    reads = _fill_reads(layout, blocks[: len(halo.agents.local)])
    pairs, returns = _fill_returns(layout, present, blocks, reads)
    local = halo.agents.local
    apart = np.flatnonzero(halo.agents.owner != halo.agents.world.rank)
    read = layout.pattern.columns[np.isin(layout.pattern.rows, apart)]
    lent = np.flatnonzero(np.isin(local, read))
    return Tables(blocks, reads, returns, pairs, lent, len(local))


def joined(each: Sequence[Tables]) -> Tables:
    """The tables of several layouts as those of one; the blocks of the n-th begin at ``bases(each)[n]``."""
    reads = np.cumsum([0, *[len(tables.reads) for tables in each]])
    returns = np.cumsum([0, *[len(tables.returns) for tables in each]])
    blocks = []
    for number, tables in enumerate(each):
        part = tables.blocks.copy()
        for name, shift in (("reads", reads[number]), ("returns", returns[number])):
            part[name] += shift
            part[f"{name}_end"] += shift
        blocks.append(part)
    pairs = [tables.pairs + base for tables, base in zip(each, bases(each), strict=True)]
    return Tables(
        np.concatenate(blocks),
        np.concatenate([tables.reads for tables in each]),
        np.concatenate([tables.returns for tables in each]),
        np.concatenate(pairs),
        np.concatenate([tables.lent + base for tables, base in zip(each, bases(each), strict=True)]),
        each[0].agents,
    )


def bases(each: Sequence[Tables]) -> list[int]:
    """Where the blocks of each of several tables begin, when they are joined."""
    return np.cumsum([0, *[len(tables.blocks) for tables in each]])[:-1].tolist()  # type: ignore[no-any-return]


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
