"""The exchanges of passes that make none, or that the ledger does not see: told to the ledger all the same."""

from __future__ import annotations

from hdnn_dist.propagation.architectures import HalfStep
from hdnn_dist.propagation.system import System


class ExchangeCounts:
    """What the portable pass would exchange, for a system whose layers are alike."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._halo = system.layers.layouts[0].halo

    def record(self, layers: int, row_bytes: int, reverse: bool, passes: int = 1) -> None:
        """Tell the ledger of passes through some layers; ``passes`` below zero take some back."""
        self._record(passes * layers, row_bytes, reverse)
        if reverse and (again := self._system.again(layers)):
            self._record(passes * again, row_bytes, reverse=False)

    def _record(self, layers: int, row_bytes: int, reverse: bool) -> None:
        for half in self._system.architecture.layer:
            self._record_field(half, layers, row_bytes, reverse)
            if half.coupled and self._system.coupling.layout is not None:
                self._record_coupling(half, layers, row_bytes, reverse)

    def _record_field(self, half: HalfStep, layers: int, row_bytes: int, reverse: bool) -> None:
        L, gather, scatter = half.field.coefficients, self._halo.gather_route, self._halo.scatter_route
        if reverse and half.field.gradient:  # twice as wide, the state beside the gradient
            gather.record(2 * row_bytes, 0, 0, layers)
            scatter.record((1 + self._rebuilds(half)) * row_bytes, 0, 0, layers)
            return
        gathers, scatters = L.gathers, L.scatters + half.field.gradient
        if reverse:  # L as in the forward pass, and its adjoint
            gathers = scatters = L.gathers + L.scatters
        gather.record(row_bytes, 0, 0, gathers * layers)
        scatter.record(row_bytes, 0, 0, scatters * layers)

    def _rebuilds(self, half: HalfStep) -> bool:
        """Whether the reverse of this half-step needs F once more."""
        trained = self._system.coupling.trained and half.coupled is not None
        return trained or not self._system.architecture.simultaneous

    def _record_coupling(self, half: HalfStep, layers: int, row_bytes: int, reverse: bool) -> None:
        assert self._system.coupling.layout is not None
        halo, C = self._system.coupling.layout.halo, self._system.coupling.coefficients(half)
        applied = int(not reverse or self._rebuilds(half))
        halo.gather_route.record(row_bytes, 0, 0, (applied * C.gathers + reverse * C.scatters) * layers)
        halo.scatter_route.record(row_bytes, 0, 0, (applied * C.scatters + reverse * C.gathers) * layers)
