"""Passes of a network whose agents all live here, compiled (``kernels.cpu.passes``), all layers at once.

They compute what the portable pass computes, half-step by half-step; that stays as the reference. Every exchange stays
inside this process, and the ledger is told of it as if it had been made.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from hdnn_dist.kernels.block_tables import TILE, Schedule, schedule_of
from hdnn_dist.kernels.cpu.activations import CODES
from hdnn_dist.kernels.cpu.passes import SERIAL, THREADED, NetworkArrays
from hdnn_dist.kernels.exchange_counts import ExchangeCounts
from hdnn_dist.kernels.layer_tables import LayerTables
from hdnn_dist.propagation.stepper import Gradients, Propagator, Saved, Stepper
from hdnn_dist.propagation.system import System, Weights

LANES = 32  # the least number of columns in a tile: two vectors of the widest
PAGE = 4096  # bytes
RANGES_PER_THREAD = 4
WORTH_THREADS = 1 << 20  # products of a half-step on one tile: with fewer, starting threads takes longer than they save


def given(truth: bool) -> bool | None:
    """What compiled code takes for true and false, so that it can leave out what is false."""
    return True if truth else None


def make(system: System, portable: Stepper, name: str) -> Propagator:
    """As ``Kernel`` says."""
    return CompiledStepper(system, portable, name)


class CompiledStepper:
    """Compiled passes of a whole system at one width; tangents are left to ``portable``."""

    def __init__(self, system: System, portable: Stepper, kernel: str) -> None:
        self.system, self.kernel = system, kernel
        self.tangent = portable.tangent
        self.width = portable.width
        self.layer = LayerTables(system, system.layers.layouts[0], portable.dtype)
        self._counts = ExchangeCounts(system)
        kinds = {half.field.gradient for half in system.architecture.layer}
        self._gradient, self._pointwise = given(True in kinds), given(False in kinds)
        self._activation = CODES[system.activation.name]
        self._place = np.argsort(np.concatenate([rows.numpy() for rows in system.rows.values()]))
        self._tiles = -(-self.width // TILE)
        self._columns = max(LANES, 1 << (-(-self.width // self._tiles) - 1).bit_length())
        self._rows = self.layer.layout.halo.rows
        self._states = self._room(portable.dtype, 4, self._rows * len(system.rows))
        self._work = self._room(portable.dtype, 4, self._rows)
        self._schedule = lru_cache(maxsize=None)(self._make_schedule)
        self._compile(portable.dtype)

    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> Saved:
        """As ``Stepper.forward``."""
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        passes, schedule = self._threads()
        about = self._about(weights, layers)
        self._counts.record(len(layers), self._row_bytes(x), reverse=False)
        if not self.system.architecture.simultaneous:
            passes.forward(_array(x), _array(y), **about, schedule=schedule)
            return Saved(x, y, weights, layers, [])
        every = self.system.store_every
        count = -(-len(layers) // every) if store else 0
        stored = self._room(x.dtype, self._tiles if count else 0, count, len(self._place))
        passes.euler_forward(_array(x), _array(y), stored, every, **about, schedule=schedule)
        return Saved(x, y, weights, layers, [torch.from_numpy(stored)])

    def backward(self, saved: Saved, grad_y: Tensor, of_input: bool = True) -> Gradients:
        """As ``Stepper.backward``."""
        x, y, weights, layers, stored = saved
        grad_x = torch.empty_like(x if of_input else x[:0], memory_format=torch.contiguous_format)
        grad = Weights(*(torch.from_numpy(np.zeros(part.shape, self._work.dtype)) for part in weights))
        passes, schedule = self._threads()
        about = self._about(weights, layers) | self._gradients(grad)
        self._counts.record(len(layers), self._row_bytes(x), reverse=True)
        if not self.system.architecture.simultaneous:
            missed = np.zeros((2, self._columns), dtype=self._work.dtype)
            passes.backward(_array(x), _array(y), _array(grad_y), _array(grad_x), missed, **about, schedule=schedule)
            apart, largest = missed.max(1).tolist()
            return Gradients(grad_x if of_input else None, grad, apart / max(largest, 1.0))
        segment = self._room(x.dtype, self.system.store_every, len(self._place))
        passes.euler_backward(_array(grad_y), _array(grad_x), stored[0].numpy(), segment, **about, schedule=schedule)
        return Gradients(grad_x if of_input else None, grad, None)

    def _compile(self, dtype: torch.dtype) -> None:
        """Compile the passes, or read them from the cache, by a pass through no layer."""
        layers, none = self.system.layers, range(0)
        coupling = self.system.coupling
        x = torch.zeros(self.width, len(self._place), dtype=dtype)
        weights = Weights(
            torch.zeros(0, layers.operators, layers.layouts[0].size, dtype=dtype),
            torch.zeros(1, 0 if coupling.layout is None else coupling.layout.size, dtype=dtype),
        )
        self.backward(self.forward(x, weights, none, store=True), x)

    def _about(self, weights: Weights, layers: range) -> dict[str, Any]:
        """What every pass is told."""
        layer = self.layer
        coupling = weights.coupling if layer.weights is None else layer.weights
        blocks, A = (part.detach().contiguous().numpy() for part in (weights.blocks, coupling))
        return {
            "layers": (layers.start, layers.stop),
            "net": NetworkArrays(layer.half_steps, self._activation, self._place, layer.tables, blocks, A),
            "gradient": self._gradient,
            "pointwise": self._pointwise,
            "coupling": layer.coupling,
            "states": self._states,
            "work": self._work,
        }

    def _gradients(self, grad: Weights) -> dict[str, Any]:
        """Where the gradients of the weights go."""
        return {"G": grad.blocks.numpy(), "G_A": grad.coupling.numpy() if self.system.coupling.trained else None}

    def _threads(self) -> tuple[SimpleNamespace, Schedule]:
        """The passes, and who does what, for the number of threads that torch has now."""
        threads = min(torch.get_num_threads(), _most_threads(), self.layer.tables.agents // 2)
        if threads < 2 or self.layer.layout.entries * self._columns < WORTH_THREADS:
            return SERIAL, self._schedule(1)
        numba.set_num_threads(threads)
        return THREADED, self._schedule(threads)

    def _make_schedule(self, threads: int) -> Schedule:
        agents = self.layer.tables.agents
        return schedule_of(self.layer.tables, 1 if threads == 1 else min(RANGES_PER_THREAD * threads, agents // 2))

    def _room(self, dtype: torch.dtype, *shape: int) -> np.ndarray:
        """Zeros (*shape, T), from the start of a page on.

        T is a power of two, so rows are apart by whole rows, modulo a page: no load looks like one of what was just
        stored, whose address ends in the same bits.
        """
        size = prod(shape) * self._columns
        item = torch.empty((), dtype=dtype).numpy()
        space = np.zeros(size + PAGE // item.itemsize, dtype=item.dtype)
        start = -space.ctypes.data % PAGE // item.itemsize
        return space[start : start + size].reshape(*shape, self._columns)

    def _row_bytes(self, x: Tensor) -> int:
        return self.width * x.element_size()


def _array(x: Tensor) -> np.ndarray:
    """A view, or a copy of what is not contiguous: (batch, features, positions)."""
    return x.detach().contiguous().view(*x.shape[:2], prod(x.shape[2:])).numpy()


def _most_threads() -> int:
    """The threads that numba has started, which is as many as can be used."""
    return int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
