"""One half-step as instructions, forward and in reverse, the exchanges among them.

With no neighbour on another rank there is no exchange, and agents respond in one go. With some, those that need nothing
of another rank respond while halos are under way.

Legend as in ``propagation.vector_fields``: u enters the reverse of a half-step, v leaves it, f = F(x).
"""

from __future__ import annotations

from typing import NamedTuple

from hdnn_dist.kernels.instructions import (
    ADD,
    COUPLE,
    COUPLE_GRADIENT,
    GRADIENT,
    GRADIENT_REVERSE,
    NONE,
    POINTWISE,
    POINTWISE_REVERSE,
    RETURN,
    SEND,
    TAKE,
    ZERO,
    Code,
    Exchanges,
    Numbered,
)
from hdnn_dist.kernels.layouts import LayoutTables, Order, Phase
from hdnn_dist.propagation.system import System


class About(NamedTuple):
    """What half-steps are made of: a system, its tables, the orders of its agents, (layouts,), the numbers of its
    messages.
    """

    system: System
    tables: LayoutTables
    orders: list[Order]
    exchanges: Exchanges


class Work(NamedTuple):
    """Buffers that all half-steps share: responses s and q, w of other ranks, f before and u after the coupling."""

    s: int
    q: int
    w: int
    f: int
    u: int


class Half:
    """The instructions of one half-step in one layout, forward and in reverse."""

    def __init__(self, about: About, code: Code, work: Work, layout: int, number: int) -> None:
        system, tables = about.system, about.tables
        half = system.architecture.layer[number]
        self._about, self._code, self._work, self._half, self._system = about, code, work, half, system
        self._number = layout * len(system.architecture.layer) + number
        self._n, self._tables, self._layout = tables.rows, tables.each[layout].tables, layout
        self._order, self._halo = about.orders[layout], system.layers.layouts[layout].halo
        self._coupled = half.coupled is not None and tables.coupling is not None
        layouts = system.coupling.layouts
        self._coupling_halo = layouts[layout].halo if layouts else None

    def forward(self, x: int, out: int) -> None:
        """out += scale C F(x), in place of out where it ``replaces``."""
        if self._half.replaces:
            self._zero(out)
        f = self._work.f if self._coupled else out
        if self._coupled:
            self._zero(f)
        if self._half.field.gradient:
            self._gradient_forward(x, f)
        else:
            self._respond(POINTWISE, x, f=f)
        if self._coupled:
            self._couple(f, out)

    def reverse(self, x: int, target: int, g: int, v: int) -> None:
        """v += dF^T C^T g and the gradients of the weights; the half-step is undone where states are rebuilt."""
        undo, rebuild = not self._system.architecture.simultaneous, self._system.rebuilds(self._half)
        u, f, sign = g, target, -1 if undo else 0
        if self._coupled:
            u, f, sign = self._work.u, self._work.f, 1 if rebuild else 0
            self._zero(u)
            self._couple(g, u, transposed=True)
            self._zero(f)
        if self._half.field.gradient:
            self._gradient_reverse(x, u, f, v, sign)
        else:
            self._pointwise_reverse(x, u, f, v, sign)
        if self._coupled and rebuild:
            self._couple(f, target if undo else self._scratch(), sign=-1)
        if self._coupled and self._system.coupling.trained:
            self._code.emit(COUPLE_GRADIENT, **self._coupling_blocks(), f=f, a=g)

    def _gradient_forward(self, x: int, f: int) -> None:
        gather, scatter = self._gather(1), self._scatter(1)
        self._send(gather, x)
        for group, phases in enumerate(self._order.walk):
            if group == 1:
                self._take(gather, x)
                self._zero_halo(f)
            for phase in phases:
                self._pieces(GRADIENT, phase, a=x, s=self._work.s, f=f)
            if group == 1:
                self._send(scatter, f)
        self._add(scatter, f)

    def _gradient_reverse(self, x: int, u: int, f: int, v: int, sign: int) -> None:
        gather, scatter = self._gather(2), self._scatter(2 if sign else 1)
        returned = (f, v) if sign else (v, NONE)
        self._send(gather, x, u)
        for group, phases in enumerate(self._order.walk):
            if group == 1:
                self._take(gather, x, u)
                self._zero_halo(returned[0])
                self._zero_halo(returned[1])
            for phase in phases:
                self._pieces(GRADIENT_REVERSE, phase, a=x, u=u, s=self._work.s, q=self._work.q, f=f, v=v, sign=sign)
            if group == 1:
                self._send(scatter, *returned)
        self._add(scatter, *returned, blank=not sign)

    def _respond(self, op: int, x: int, **buffers: int) -> None:
        """s = s(L x + b) and what follows of it: agents that need nothing of another rank first."""
        alpha, beta = self._half.field.coefficients
        gather, scatter, w = self._gather(1) if alpha else None, self._scatter(1) if beta else None, NONE
        self._send(gather, x)
        if scatter:
            w = self._work.w
            self._zero_halo(w)
            self._zero(w)
            self._return(w, x, scatter, transposed=True)
        groups = self._order.respond
        apart = groups[1:2]
        for phase in [group for group in groups if group not in apart]:
            self._pieces(op, phase, a=x, s=self._work.s, **buffers)
        self._take(gather, x)
        self._add(scatter, w)
        for phase in apart:
            self._pieces(op, phase, a=x, s=self._work.s, w=w, **buffers)

    def _pointwise_reverse(self, x: int, u: int, f: int, v: int, sign: int) -> None:
        q, (alpha, beta) = self._work.q, self._half.field.coefficients
        given = {"u": u, "q": q, "f": f, "v": v, "sign": sign}
        if len(self._order.respond) == 1:
            for phase in self._order.walk[0]:
                self._pieces(POINTWISE_REVERSE, phase, a=x, s=self._work.s, **given)
            return
        self._respond(POINTWISE_REVERSE, x, **given)
        gather, scatter = self._gather(1) if beta else None, self._scatter(1) if alpha else None
        self._send(gather, q)
        if scatter:
            self._zero_halo(v)
            self._return(v, q, scatter, transposed=False)
        self._take(gather, q, blank=True)
        self._pieces(POINTWISE_REVERSE, self._order.settle, a=x, s=self._work.s, **given)
        self._add(scatter, v, blank=True)

    def _couple(self, f: int, out: int, sign: int = 1, transposed: bool = False) -> None:
        """out += sign C f, or sign C^T f, which is a gradient."""
        C, halo = self._system.coupling.coefficients(self._half), self._coupling_halo
        forth, back = C.transposed if transposed else C
        about = self._coupling_blocks() | {"sign": sign, "transposed": int(transposed), "coupled": 1}
        gather = self._about.exchanges.gather(halo, 1) if halo and forth else None
        scatter = self._about.exchanges.scatter(halo, 1) if halo and back else None
        self._send(gather, f)
        if scatter:
            self._zero_halo(out)
            self._code.emit(RETURN, **about | self._remote_coupling_blocks(), a=out, b=f)
            self._send(scatter, out)
        self._take(gather, f, blank=transposed)
        self._code.emit(COUPLE, **about, a=out, b=f)
        self._add(scatter, out, blank=transposed)

    def _coupling_blocks(self) -> dict[str, int]:
        first = self._about.tables.coupling_bases[self._layout]
        return {"half": self._number, "first": first, "last": first + self._tables.agents}

    def _remote_coupling_blocks(self) -> dict[str, int]:
        coupling = self._about.tables.each[self._layout].coupling
        assert coupling is not None
        first = self._about.tables.coupling_bases[self._layout]
        return {"first": first + coupling.agents, "last": first + len(coupling.blocks)}

    def _return(self, a: int, b: int, scatter: Numbered, transposed: bool) -> None:
        """Send what is returned to blocks of other ranks: beta K^T b, or alpha K^T b in reverse."""
        first = self._about.tables.bases[self._layout]
        blocks = {"first": first + self._tables.agents, "last": first + len(self._tables.blocks)}
        self._code.emit(RETURN, half=self._number, **blocks, a=a, b=b, transposed=int(transposed))
        self._send(scatter, a)

    def _scratch(self) -> int:
        self._zero(self._work.w)
        return self._work.w

    def _pieces(self, op: int, phase: Phase, **given: int) -> None:
        self._code.emit(op, half=self._number, first=phase[0], last=phase[1], **given)

    def _gather(self, parts: int) -> Numbered | None:
        return self._about.exchanges.gather(self._halo, parts)

    def _scatter(self, parts: int) -> Numbered | None:
        return self._about.exchanges.scatter(self._halo, parts)

    def _send(self, exchange: Numbered | None, a: int, b: int = NONE) -> None:
        if exchange:
            self._code.emit(SEND, half=self._number, first=exchange.first, count=exchange.number, a=a, b=b)

    def _take(self, exchange: Numbered | None, a: int, b: int = NONE, blank: bool = False) -> None:
        if exchange:
            self._code.emit(
                TAKE, half=self._number, first=exchange.first, count=exchange.number, a=a, b=b, blank=int(blank)
            )

    def _add(self, exchange: Numbered | None, a: int, b: int = NONE, blank: bool = False) -> None:
        if exchange:
            self._code.emit(
                ADD, half=self._number, first=exchange.first, count=exchange.number, a=a, b=b, blank=int(blank)
            )

    def _zero(self, a: int) -> None:
        self._code.emit(ZERO, a=a, count=self._n)

    def _zero_halo(self, a: int) -> None:
        if a != NONE and self._about.tables.span > self._n:
            self._code.emit(ZERO, a=a + self._n, count=self._about.tables.span - self._n)
