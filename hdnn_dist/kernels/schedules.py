"""The order in which agents respond and blocks are settled, and the rows that responses share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hdnn_dist.kernels.block_tables import Tables


class Schedule(NamedTuple):
    """The order of the steps: k is the response of agent k, ~k settles its block, see ``kernels.cpu.half_steps``.

    ``pieces``: the steps that one thread walks through; ``start``: (phases + 1,) where the phases begin, pieces that
    may be walked through at the same time.

    A response that is needed for a short while only lies in rows that the next ones take over, so that it does not
    leave the cache. ``slots``: (blocks,) where the rows of each agent's begin; ``returns``: as in ``Tables``, with
    these rows; ``rows``: how many there are.
    """

    pieces: list[np.ndarray]
    start: np.ndarray
    slots: np.ndarray
    returns: np.ndarray
    rows: int


class _Places(NamedTuple):
    """When each agent responds. ``group``, ``piece``: (agents,) in which, pieces counted through; ``number``: in it."""

    group: np.ndarray
    piece: np.ndarray
    number: np.ndarray


def whole(tables: Tables) -> list[np.ndarray]:
    """One group, (agents,) of all."""
    return [np.arange(tables.agents)]


def around_exchanges(tables: Tables) -> list[np.ndarray]:
    """Three groups, (agents of it,) each: the second read a block of another rank, or theirs is read by another.

    The first respond while those blocks travel, the third while what is returned does.
    """
    apart = np.zeros(tables.agents, dtype=bool)
    apart[tables.pairs[tables.pairs[:, 0] >= tables.agents, 1]] = True
    apart[tables.lent] = True
    inside = np.flatnonzero(~apart)
    return [inside[: len(inside) // 2], np.flatnonzero(apart), inside[len(inside) // 2 :]]


def schedule_of(tables: Tables, ranges: int, groups: Sequence[np.ndarray] | None = None) -> Schedule:
    """Groups, (agents of it,), each split into ``ranges``. There are two phases for each: its agents respond, and what
    a range can settle by itself it settles at once; then what needs several ranges.

    All blocks are settled that agents here read, those of other ranks among them.
    """
    groups = whole(tables) if groups is None else groups
    places, needs = _placed(tables.agents, groups, ranges), _needs(tables)
    last, early = _ready(len(tables.blocks), needs, places)
    pieces: list[np.ndarray] = []
    start = [0]
    for group, agents in enumerate(groups):
        settled = np.flatnonzero(places.group[last] == group)
        pieces += [_early(piece, settled[early[settled]], last, places) for piece in _cut(agents, ranges)]
        start.append(len(pieces))
        late = settled[~early[settled]]
        pieces += [~part for part in _cut(late, ranges)] if len(late) else []
        start.append(len(pieces))
    slots, rows = _slots(tables, places, last, early, ranges)
    returns = tables.returns.copy()
    moved = slots[: tables.agents] - tables.blocks["row"][: tables.agents]
    reader = tables.pairs[:, 1]
    returns[:, 0] += np.repeat(moved[reader], tables.blocks["height"][reader])
    return Schedule(pieces, np.array(start), slots, returns, rows)


def phases_of(schedule: Schedule) -> list[list[tuple[int, int]]]:
    """For each group its phases that are not empty: the first of the pieces, and the one after the last."""
    phases = list(zip(schedule.start[:-1].tolist(), schedule.start[1:].tolist(), strict=True))
    return [[phase for phase in phases[g : g + 2] if phase[0] < phase[1]] for g in range(0, len(phases), 2)]


def responses(groups: Sequence[np.ndarray], ranges: int) -> list[np.ndarray]:
    """The pieces, (steps,) each, of phases in which the agents of each group respond, ``ranges`` for each."""
    return [part for agents in groups for part in _cut(agents, ranges)]


def settlings(tables: Tables, ranges: int) -> list[np.ndarray]:
    """The pieces, (steps,) each, of the phase in which all blocks of agents here are settled."""
    return [~part for part in _cut(np.arange(tables.agents), ranges)]


def _cut(agents: np.ndarray, ranges: int) -> list[np.ndarray]:
    cuts = np.arange(ranges + 1) * len(agents) // ranges
    return [agents[first:stop] for first, stop in pairwise(cuts)]


def _placed(agents: int, groups: Sequence[np.ndarray], ranges: int) -> _Places:
    places = _Places(*np.zeros((3, agents), dtype=np.int64))
    for group, members in enumerate(groups):
        for number, part in enumerate(_cut(members, ranges)):
            places.group[part], places.piece[part] = group, group * ranges + number
            places.number[part] = np.arange(len(part))
    return places


def _ready(blocks: int, needs: np.ndarray, places: _Places) -> tuple[np.ndarray, np.ndarray]:
    """(blocks,) the agent whose response each waits for longest, and whether it can be settled in that one's piece."""
    agents = np.arange(len(places.group))
    order = np.lexsort((places.number, places.piece, places.group))
    rank = np.empty_like(agents)
    rank[order] = agents
    latest = np.zeros(blocks, dtype=np.int64)
    np.maximum.at(latest, needs[:, 0], rank[needs[:, 1]])
    last = order[latest] if len(order) else latest
    same_group = places.group[needs[:, 1]] == places.group[last[needs[:, 0]]]
    elsewhere = same_group & (places.piece[needs[:, 1]] != places.piece[last[needs[:, 0]]])
    early = np.ones(blocks, dtype=bool)
    early[needs[elsewhere, 0]] = False
    return last, early


def _early(piece: np.ndarray, settled: np.ndarray, last: np.ndarray, places: _Places) -> np.ndarray:
    """The responses of a piece, and every block of ``settled`` right after the last response it waits for."""
    here = settled[np.isin(last[settled], piece)]
    # the settling of a block comes after the last response it waits for, so 2 n + 1 among the 2 n of the responses
    keys = np.concatenate([2 * places.number[piece], 2 * places.number[last[here]] + 1])
    return np.concatenate([piece, ~here])[np.argsort(keys, kind="stable")]


def _slots(tables: Tables, places: _Places, last: np.ndarray, early: np.ndarray, ranges: int) -> tuple[np.ndarray, int]:
    """(blocks,) the first row of each agent's response, -1 for other blocks, and the number of rows.

    Every range has a ring of as many slots as an agent and those after it until its response is done with; what lasts
    longer than its piece has a slot of its own. The length of the rings is the one that makes the fewest slots.
    """
    own, agents = tables.blocks[: tables.agents], tables.agents
    slots = np.full(len(tables.blocks), -1)
    slots[:agents] = own["row"]
    block, reader = tables.pairs.T
    until = places.number.copy()
    inside = early[block] & (places.piece[last[block]] == places.piece[reader]) if agents else early[block]
    np.maximum.at(until, reader[inside], places.number[last[block[inside]]])
    span = until - places.number + 1
    span[reader[~inside]] = agents + 1
    lengths = np.unique(span)
    counts = ranges * lengths + agents - np.searchsorted(np.sort(span), lengths, side="right")
    height = int(own["height"].max(initial=1))
    if not agents or counts.min() * height >= own["height"].sum():
        return slots, int(own["height"].sum())
    length = lengths[counts.argmin()]
    ring = places.piece % ranges
    place = ring * length + places.number % length
    lasting = span > length
    place[lasting] = ranges * length + np.arange(lasting.sum())
    slots[:agents] = place * height
    return slots, int(counts.min()) * height


def _needs(tables: Tables) -> np.ndarray:
    """(pairs, 2): a block, and whose response it waits for: its own, its readers', that of those it reads."""
    pairs, own = tables.pairs, np.arange(tables.agents)
    reads = pairs[pairs[:, 0] < tables.agents, ::-1]
    return np.concatenate([pairs, reads, np.column_stack([own, own])])
