"""Compiled passes (``kernels.cpu.passes``) of one rank's share of a network, all layers and their exchanges at once.

They compute what the portable pass computes, half-step by half-step; that stays as the reference. The ledger is told of
the exchanges as if the portable pass had made them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from types import SimpleNamespace
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.links import SHARED
from hdnn_dist.kernels.cpu.activations import CODES
from hdnn_dist.kernels.cpu.exchanges import DONE
from hdnn_dist.kernels.cpu.flight import (
    UNMEASURED,
    Costs,
    Flight,
    best,
    chosen,
    exchange_seconds,
    in_order,
    slowest,
    tile_of,
)
from hdnn_dist.kernels.cpu.messages import Messages
from hdnn_dist.kernels.cpu.passes import LANE, SERIAL, THREADED, NetworkArrays
from hdnn_dist.kernels.cpu.waiting import Waiting
from hdnn_dist.kernels.exchange_counts import ExchangeCounts
from hdnn_dist.kernels.half_programs import About
from hdnn_dist.kernels.instructions import SEND, without_exchanges
from hdnn_dist.kernels.layouts import LayoutTables
from hdnn_dist.kernels.programs import Programs
from hdnn_dist.propagation.stepper import Gradients, Propagator, Saved, Stepper
from hdnn_dist.propagation.system import System, Weights
from hdnn_dist.support.uncompiled import uncompiled

PAGE = 4096  # bytes
RANGES_PER_THREAD = 4
WORTH_THREADS = 1 << 20  # products of a half-step on one tile: with fewer, starting threads takes longer than they save
CACHED_PROGRAMS = 64
Collect = Callable[[Sequence[float]], Tensor]


def given(truth: bool) -> bool | None:
    """What compiled code takes for true and false, so that it can leave out what is false."""
    return True if truth else None


def make(system: System, portable: Stepper, name: str) -> Propagator:
    """As ``Kernel`` says."""
    return CompiledStepper(system, portable, name)


def _places(system: System, tables: LayoutTables) -> tuple[np.ndarray, np.ndarray]:
    """(parts,) the first row of each part in a state, and (features,) the row of every feature."""
    parts = tables.span * np.arange(len(system.rows))
    rows = np.concatenate([part + np.arange(tables.rows) for part in parts])
    return parts, rows[np.argsort(np.concatenate([part.numpy() for part in system.rows.values()]))]


class Plan(NamedTuple):
    """What a number of threads makes of a system: its programs, and what the passes are told besides."""

    passes: SimpleNamespace
    programs: Programs
    net: NetworkArrays


class CompiledStepper:
    """Compiled passes of a whole system at one width; tangents are left to ``portable``."""

    def __init__(self, system: System, portable: Stepper, kernel: str) -> None:
        self.system, self.kernel = system, kernel
        self.tangent = portable.tangent
        self.width, self._dtype = portable.width, portable.dtype
        self._type = torch.empty((), dtype=portable.dtype).numpy().dtype
        self._tables = LayoutTables(system, portable.dtype)
        kinds = {half.field.gradient for half in system.architecture.layer}
        self._gradient, self._pointwise = given(True in kinds), given(False in kinds)
        self._parts, self._place = _places(system, self._tables)
        sizes = np.array([layout.size for layout in system.layers.layouts])[system.layers.which]
        self._sizes, self._starts = sizes, system.layers.operators * (np.cumsum(sizes) - sizes)
        self._entries = max(layout.entries for layout in system.layers.layouts)
        self._row_bytes = self.width * self._type.itemsize
        self._storing = system.architecture.simultaneous
        self.fly(Flight(tile_of(self.width), 1))
        self._compile()

    def fly(self, flight: Flight) -> None:
        """From now on with tiles of that width, so many in flight; the same on every rank."""
        self.flight, self._columns = flight, flight.columns
        self._tiles = -(-self.width // self._columns)
        links = self.system.layers.layouts[0].halo.agents.rank_links
        self._messages = Messages(links, *flight, self._dtype)
        self._counts = ExchangeCounts(self.system, self._tiles)
        self._plan = lru_cache(maxsize=None)(self._make_plan)
        self._sections = lru_cache(maxsize=CACHED_PROGRAMS)(self._make_sections)
        self._rooms: np.ndarray | None = None
        self._none = self._room(0, 0, len(self._place))

    def settle(self, collect: Collect) -> None:
        """Choose the tiles, with all ranks; ``collect``: the numbers of every rank, (ranks, n), for those of this."""
        if self.system.flight is not None:
            self.fly(Flight(*self.system.flight))
        if self.system.flight is not None or self._tiles == 1:
            return
        halo = self.system.layers.layouts[0].halo
        if not in_order(self.system):
            network = collect([float(set(halo.agents.links.values()) != {SHARED})]).any()
            self.fly(Flight(self._columns, min(self._tiles, UNMEASURED if network else 1)))
            return
        compute = best(self._without_exchanges) / self._exchanges
        costs = slowest(Costs(*exchange_seconds(halo, self._columns, self._dtype), compute), collect)
        self.fly(Flight(self._columns, chosen(self._tiles, costs)))

    @uncompiled
    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> Saved:
        """As ``Stepper.forward``."""
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        self._counts.record(layers, self._row_bytes, reverse=False)
        kept = self._room(self._tiles, self._kept(layers), len(self._place)) if store and self._storing else self._none
        given, gone = _array(x), _array(y)
        self._run(("forward", layers, len(kept) > 0), weights, weights, (given, gone, given, gone), kept)
        return Saved(x, y, weights, layers, [torch.from_numpy(kept)] if self._storing else [])

    def backward(self, saved: Saved, grad_y: Tensor, of_input: bool = True) -> Gradients:
        """As ``Stepper.backward``."""
        x, y, weights, layers, stored = saved
        grad_x = torch.empty_like(x if of_input else x[:0], memory_format=torch.contiguous_format)
        grad = Weights(*(torch.from_numpy(np.zeros(part.shape, self._type)) for part in weights))
        self._counts.record(layers, self._row_bytes, reverse=True)
        users = _array(x), _array(y), _array(grad_y), _array(grad_x)
        kept = stored[0].numpy() if stored else self._none
        missed = self._run(("backward", layers, of_input), weights, grad, users, kept)
        apart, largest = missed.max(1).tolist()
        return Gradients(grad_x if of_input else None, grad, None if self._storing else apart / max(largest, 1.0))

    def _kept(self, layers: range) -> int:
        """How many states are stored of so many layers."""
        return -(-len(layers) // self.system.store_every)

    def _compile(self) -> None:
        """Compile the passes, or read them from the cache, by a pass through no layer."""
        x, weights = self._nothing()
        self.backward(self.forward(x, weights, range(0), store=True), x)

    def _nothing(self) -> tuple[Tensor, Weights]:
        """An input and weights of zero."""
        layers, coupling = self.system.layers, self.system.coupling
        size = 0 if coupling.layout is None else coupling.layout.size
        blocks, A = (torch.zeros(shape, dtype=self._dtype) for shape in (layers.shape, (1, size)))
        return torch.zeros(self.width, len(self._place), dtype=self._dtype), Weights(blocks, A)

    def _without_exchanges(self) -> None:
        """One tile through one layer, as if nobody else were there."""
        x, weights = self._nothing()
        users = (_array(x),) * 4
        self._run(("forward", range(1), False), weights, weights, users, self._none, muted=True)

    @property
    def _exchanges(self) -> int:
        """Of that layer."""
        code, sections = self._sections(self._threads(), "forward", range(1), False)
        return max(1, sum(int((code["op"][first:last] == SEND).sum()) for _, first, last, _ in sections.tolist()))

    def _run(
        self,
        program: tuple[Any, ...],
        weights: Weights,
        grad: Weights,
        users: tuple[np.ndarray, ...],
        kept: np.ndarray,
        muted: bool = False,
    ) -> np.ndarray:
        """Carry a program out; (2, T) how far the rebuilt input was from the input.

        ``muted``: one tile alone, which exchanges nothing.
        """
        threads = self._threads()
        plan = self._plan(threads)
        code, sections = self._sections(threads, *program)
        missed = np.zeros((2, self._columns), dtype=self._type)
        lanes = np.zeros(self.flight.tiles, dtype=LANE)
        lanes["tile"], lanes["at"] = np.arange(self.flight.tiles), sections["first"][0]
        code = without_exchanges(code) if muted else code
        arguments = (
            code, sections, lanes, np.zeros(1, np.int64), 1 if muted else self._tiles, self.width, plan.net,
            *self._weights(weights), self._messages.wires(), self._gradient, self._pointwise, self._tables.coupling,
            users, kept, missed, *self._gradients(grad), self._rooms,
        )  # fmt: skip
        if (stopped := plan.passes.run(*arguments))[0] != DONE:
            waiting = Waiting(self._messages, code, sections, lanes, (self.width, self._columns))
            with waiting.named(program[0], self.system.architecture.layer):
                waiting.through(stopped, lambda: plan.passes.run(*arguments))
        return missed

    def _weights(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        """W and A."""
        canonical = self._tables.each[0].weights
        coupling = weights.coupling if canonical is None else canonical
        return _numbers(weights.blocks).reshape(-1), _numbers(coupling)

    def _gradients(self, grad: Weights) -> tuple[np.ndarray, np.ndarray | None]:
        """G, and G_A where it is asked for."""
        coupling = _numbers(grad.coupling) if self.system.coupling.trained else None
        return _numbers(grad.blocks).reshape(-1), coupling

    def _make_sections(self, threads: int, kind: str, layers: range, more: bool) -> tuple[np.ndarray, np.ndarray]:
        """All instructions, and the sections of one program."""
        plan = self._plan(threads)
        sections = getattr(plan.programs, kind)(layers, more)
        return plan.programs.code.table(), sections

    def _threads(self) -> int:
        """As many as torch has now, where they are worth it."""
        threads = min(torch.get_num_threads(), _most_threads(), self._tables.each[0].tables.agents // 2)
        if threads < 2 or self._entries * self._columns < WORTH_THREADS:
            return 1
        numba.set_num_threads(threads)
        return threads

    def _make_plan(self, threads: int) -> Plan:
        tables, agents = self._tables, self._tables.each[0].tables.agents
        ranges = 1 if threads == 1 else min(RANGES_PER_THREAD * threads, agents // 2)
        steps, orders = tables.order(ranges)
        programs = Programs(About(self.system, tables, orders, self._messages))
        if self._rooms is None:
            self._rooms = self._room(self.flight.tiles, programs.code.room)
        net = NetworkArrays(
            tables.half_steps, CODES[self.system.activation.name], self._place, self._parts, tables.rows, ranges,
            tables.tables, steps, self._starts, self._sizes,
        )  # fmt: skip
        return Plan(SERIAL if threads == 1 else THREADED, programs, net)

    def _room(self, *shape: int) -> np.ndarray:
        """Zeros (*shape, T), from the start of a page on.

        T is a power of two, so rows are apart by whole rows, modulo a page: no load looks like one of what was just
        stored, whose address ends in the same bits.
        """
        size = prod(shape) * self._columns
        space = np.zeros(size + PAGE // self._type.itemsize, dtype=self._type)
        start = -space.ctypes.data % PAGE // self._type.itemsize
        return space[start : start + size].reshape(*shape, self._columns)


def _numbers(x: Tensor) -> np.ndarray:
    """A view, or a copy of what is not contiguous."""
    return x.detach().contiguous().numpy()


def _array(x: Tensor) -> np.ndarray:
    """The same as (batch, features, positions)."""
    return _numbers(x)[:, :, np.newaxis] if x.dim() == 2 else _numbers(x).reshape(*x.shape[:2], -1)


def _most_threads() -> int:
    """The threads that numba has started, which is as many as can be used."""
    return int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
