"""The exchanges of passes that the ledger does not see, because they are compiled: told to the ledger all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from hdnn_dist.exchange.halo import Halo
from hdnn_dist.exchange.ledger import Route
from hdnn_dist.propagation.architectures import HalfStep
from hdnn_dist.propagation.system import System

CACHED = 64
Recorded = tuple[Route, int, int, int, int]  # route, bytes of a row, messages and bytes on the wire, times


class ExchangeCounts:
    """What the portable pass would exchange; ``tiles``: in how many parts every message crosses between ranks."""

    def __init__(self, system: System, tiles: int = 1) -> None:
        self._system, self._tiles = system, tiles
        self._exchanges = lru_cache(maxsize=CACHED)(self._listed)

    def record(self, layers: range, row_bytes: int, reverse: bool, passes: int = 1) -> None:
        """Tell the ledger of passes through these layers; ``passes`` below zero take some back."""
        for route, size, wire_messages, wire_bytes, times in self._exchanges(layers, row_bytes, reverse):
            route.record(size, wire_messages, wire_bytes, passes * times)

    def _listed(self, layers: range, row_bytes: int, reverse: bool) -> list[Recorded]:
        """What has to be recorded of one pass."""
        self._list: list[Recorded] = []
        self._record_layers(layers, row_bytes, reverse)
        if reverse:
            self._record_layers(self._system.again(layers), row_bytes, reverse=False)
        return self._list

    def _record_layers(self, layers: Iterable[int], row_bytes: int, reverse: bool) -> None:
        for layout, count in Counter(self._system.layers.which[layer] for layer in layers).items():
            for half in self._system.architecture.layer:
                self._record_field(half, layout, count, row_bytes, reverse)
                if half.coupled and self._system.coupling.layouts:
                    self._record_coupling(half, layout, count, row_bytes, reverse)

    def _record_field(self, half: HalfStep, layout: int, layers: int, row_bytes: int, reverse: bool) -> None:
        L, halo = half.field.coefficients, self._system.layers.layouts[layout].halo
        if reverse and half.field.gradient:  # twice as wide, the state beside the gradient
            self._gather(halo, 2 * row_bytes, layers)
            self._scatter(halo, (1 + self._system.rebuilds(half)) * row_bytes, layers)
            return
        gathers, scatters = L.gathers, L.scatters + half.field.gradient
        if reverse:  # L as in the forward pass, and its adjoint
            gathers = scatters = L.gathers + L.scatters
        self._gather(halo, row_bytes, gathers * layers)
        self._scatter(halo, row_bytes, scatters * layers)

    def _record_coupling(self, half: HalfStep, layout: int, layers: int, row_bytes: int, reverse: bool) -> None:
        halo, C = self._system.coupling.layouts[layout].halo, self._system.coupling.coefficients(half)
        applied = int(not reverse or self._system.rebuilds(half))
        self._gather(halo, row_bytes, (applied * C.gathers + reverse * C.scatters) * layers)
        self._scatter(halo, row_bytes, (applied * C.scatters + reverse * C.gathers) * layers)

    def _gather(self, halo: Halo, row_bytes: int, times: int) -> None:
        wire = len(halo.send_slices) * self._tiles, len(halo.send_rows) * row_bytes
        self._list += [(halo.gather_route, row_bytes, *wire, times)] if times else []

    def _scatter(self, halo: Halo, row_bytes: int, times: int) -> None:
        wire = len(halo.halo_slices) * self._tiles, halo.halo_rows * row_bytes
        self._list += [(halo.scatter_route, row_bytes, *wire, times)] if times else []
