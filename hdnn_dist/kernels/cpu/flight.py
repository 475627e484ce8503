"""How many tiles are in flight, so that one is computed while the halo of another travels.

A tile goes through the exchanges of a pass one after the other: with one in flight each of them costs its latency.
With several it costs what is computed for the others meanwhile, and what is left of its latency. All of this is
measured, and all ranks choose alike, by the slowest of them.

Results must not depend, in their last bits, on how fast the machine was. So the width of a tile follows from that of
the pass alone; and where the gradient of a weight is summed from several half-steps or layers, in the order in which
tiles come to them, the number in flight follows from the links.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hdnn_dist.exchange.halo import Halo
from hdnn_dist.kernels.block_tables import TILE
from hdnn_dist.propagation.system import System

LEAST = 32  # columns of a tile: two vectors of the widest
MOST_IN_FLIGHT = 8
REPEATED = 5
PROBES = 4  # exchanges that are under way at once, to tell what each costs from how long it takes
UNMEASURED = 4  # tiles in flight over a network
WORTH = 0.95  # more tiles have to save that share of the time


class Flight(NamedTuple):
    """``columns`` of a tile, and how many tiles are in flight."""

    columns: int
    tiles: int


def in_order(system: System) -> bool:
    """Whether gradients are summed in the same order, however many tiles are in flight: tile after tile."""
    layer = system.architecture.layer
    once = len({half.operator for half in layer}) == len(layer)
    return once and not system.coupling.trained and not any(all(half.field.coefficients) for half in layer)


class Costs(NamedTuple):
    """Seconds. ``latency``: of an exchange beyond ``message``, what it takes of this core; ``compute``: of a tile
    between two exchanges.
    """

    latency: float
    message: float
    compute: float


def tile_of(width: int) -> int:
    """Columns of the tiles of a pass of ``width`` columns."""
    tiles = -(-width // TILE)
    return max(LEAST, 1 << (-(-width // tiles) - 1).bit_length())


def chosen(tiles: int, costs: Costs) -> int:
    """How many of so many tiles to have in flight: the fewest that are about as fast as any."""
    seconds = {flying: _seconds(tiles, flying, costs) for flying in range(1, min(MOST_IN_FLIGHT, tiles) + 1)}
    return next(flying for flying, taken in seconds.items() if WORTH * taken <= min(seconds.values()))


def exchange_seconds(halo: Halo, width: int, dtype: torch.dtype) -> tuple[float, float]:
    """(latency, message) as in ``Costs``, scalars, of gathers of ``width`` columns. Every rank has to call it."""
    channels = [halo.buffer(width, dtype).gathering for _ in range(PROBES)]
    row_bytes = width * torch.empty((), dtype=dtype).element_size()

    def probe(number: int) -> None:
        for channel in channels[:number]:
            channel.count(row_bytes)
        under_way = [channel for channel in channels[:number] if channel.sends or channel.receives]
        for channel in under_way:
            channel.start()
        for channel in under_way:
            channel.finish()

    one, several = best(lambda: probe(1)), best(lambda: probe(PROBES))
    message = max(several - one, 0.0) / (PROBES - 1)
    return max(one - message, 0.0), message


def slowest(costs: Costs, collect: Callable[[Sequence[float]], Tensor]) -> Costs:
    """Of all ranks; ``collect``: the numbers of every rank, (ranks, n), for those of this one."""
    return Costs(*collect(costs).amax(0).tolist())


def best(step: Callable[[], object]) -> float:
    """Seconds of the fastest of a few calls, after one that does not count."""
    step()
    return min(_seconds_of(step) for _ in range(REPEATED))


def _seconds_of(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _seconds(tiles: int, flying: int, costs: Costs) -> float:
    """From one exchange to the next, of all tiles."""
    whole, rest = divmod(tiles, flying)
    step = costs.compute + costs.message
    return sum(max(flown * step, step + costs.latency) for flown in [flying] * whole + [rest] * (rest > 0))
