"""All layouts of a system's layers as one set of tables, and the order in which its agents take part in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from hdnn_dist.kernels.block_tables import bases, joined
from hdnn_dist.kernels.layer_tables import LayerTables
from hdnn_dist.kernels.schedules import Schedule, around_exchanges, phases_of, responses, schedule_of, settlings, whole
from hdnn_dist.propagation.system import System

Phase = tuple[int, int]  # the first of its pieces, and the one after the last


class Order(NamedTuple):
    """Of one layout, group by group of agents: phases in which they respond and blocks are settled as soon as they can
    be (``walk``), or the agents respond (``respond``), and those in which their blocks are settled (``settle``).
    """

    walk: list[list[Phase]]
    respond: list[Phase]
    settle: Phase


class Steps(NamedTuple):
    """As in ``Schedule``, of all layouts together: (steps,), (pieces + 1,), (blocks,), (terms, 2)."""

    steps: np.ndarray
    piece: np.ndarray
    slots: np.ndarray
    returns: np.ndarray


class LayoutTables:
    """Of one rank's share of a system.

    ``each``: the tables of its layouts; ``tables``, ``coupling``: those joined, of K, and of C if it has blocks;
    ``bases``, ``coupling_bases``: where the blocks of each begin; ``half_steps``: (layouts * half-steps,)
    ``HALF_STEP``; ``rows``: local rows of a part, ``span``: with the largest halo.
    """

    def __init__(self, system: System, dtype: torch.dtype) -> None:
        numbers = range(len(system.layers.layouts))
        self.each = [LayerTables(system, number, dtype) for number in numbers]
        self.half_steps = np.concatenate([layer.half_steps for layer in self.each])
        own = [layer.tables for layer in self.each]
        self.tables, self.bases = joined(own), bases(own)
        couplings = [layer.coupling for layer in self.each if layer.coupling is not None]
        self.coupling = joined(couplings) if couplings else None
        self.coupling_bases = bases(couplings) if couplings else []
        halos = [layout.halo for layout in (*system.layers.layouts, *system.coupling.layouts)]
        self.rows = halos[0].rows
        self.span = self.rows + max(halo.halo_rows for halo in halos)

    def order(self, ranges: int) -> tuple[Steps, list[Order]]:
        """The steps for so many ranges of agents that are worked on at the same time, (steps,), and where they are."""
        pieces: list[np.ndarray] = []
        slots, returns, orders = [], [], []
        for layer, base in zip(self.each, self.bases, strict=True):
            groups = around_exchanges(layer.tables) if _apart(layer) else whole(layer.tables)
            schedule = schedule_of(layer.tables, ranges, groups)
            slots.append(schedule.slots)
            returns.append(schedule.returns)
            alone, settle = responses(groups, ranges), settlings(layer.tables, ranges)
            orders.append(_order(schedule, len(pieces), ranges, len(groups)))
            pieces += [_shifted(piece, base) for piece in (*schedule.pieces, *alone, *settle)]
        listed = np.concatenate([np.empty(0, dtype=np.int64), *pieces])
        begins = np.cumsum([0, *map(len, pieces)])
        return Steps(listed, begins, np.concatenate(slots), np.concatenate(returns)), orders


def _order(schedule: Schedule, before: int, ranges: int, groups: int) -> Order:
    """Where its pieces stand when ``before`` come first, then those in which agents respond only, then the settling."""
    walk = [[(before + first, before + last) for first, last in phases] for phases in phases_of(schedule)]
    alone = before + len(schedule.pieces)
    respond = [(alone + ranges * group, alone + ranges * (group + 1)) for group in range(groups)]
    settle = alone + ranges * groups
    return Order(walk, respond, (settle, settle + ranges))


def _shifted(piece: np.ndarray, base: int) -> np.ndarray:
    """Steps of blocks that are counted from ``base`` on."""
    return np.where(piece < 0, piece - base, piece + base)


def _apart(layer: LayerTables) -> bool:
    """Whether a rank reads blocks of another, or the other way round."""
    return len(layer.tables.blocks) > layer.tables.agents or len(layer.tables.lent) > 0
