"""Passes as programs: what is done with one tile of samples, step by step.

A program is a list of sections, one for each layer, some before and after them; layers that are alike share the
instructions of theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from hdnn_dist.kernels.half_programs import About, Half, Work
from hdnn_dist.kernels.instructions import (
    BLANK,
    COPY,
    FETCH,
    GRAD_X,
    GRAD_Y,
    KEEP,
    LOAD,
    MISS,
    SECTION,
    STORE,
    ZERO,
    Code,
    X,
    Y,
)


class Programs:
    """The programs of one system for one number of threads. ``code``: the instructions of all that were made so far.

    A program is its sections, (sections,) ``SECTION``.
    """

    def __init__(self, about: About) -> None:
        self.system, tables = about.system, about.tables
        system = self.system
        self.code, self._about, self._n = Code(), about, tables.rows
        self._part = {part: number * tables.span for number, part in enumerate(system.rows)}
        state = tables.span * len(self._part)
        segment = system.store_every if system.architecture.simultaneous else 0
        self._states = [self.code.take(state) for _ in range(max(2, segment))]
        self._grads = [self.code.take(state) for _ in range(2)]
        self._work = Work(*(self.code.take(tables.span) for _ in Work._fields))
        self._layer = cache(self._made)

    def forward(self, layers: range, store: bool) -> np.ndarray:
        """(sections,) from X to Y; keeps every k-th state if ``store``, where states are stored."""
        first, every = self._states[0], self.system.store_every
        sections: list[tuple[int, ...]] = [(-1, *self._layer("load", X, first), 0)]
        for place, layer in enumerate(layers):
            if not self.system.architecture.simultaneous:
                sections.append(self._section(layer, "forward", first, first))
                continue
            before, after = self._states[place % 2], self._states[1 - place % 2]
            if store and place % every == 0:
                sections.append((layer, *self._layer("keep", before), place // every))
            sections.append(self._section(layer, "advance", before, after))
            first = after
        return np.array([*sections, (-1, *self._layer("store", Y, first), 0)], dtype=SECTION)

    def backward(self, layers: range, of_input: bool) -> np.ndarray:
        """(sections,) from GRAD_Y to GRAD_X, if it is asked for, with the gradients of the weights.

        They begin with Y, and compare with X, where states are rebuilt.
        """
        if self.system.architecture.simultaneous:
            return self._euler_backward(layers, of_input)
        state, grad = self._states[0], self._grads[0]
        sections: list[tuple[int, ...]] = [
            (-1, *self._layer("load", Y, state), 0),
            (-1, *self._layer("load gradient", grad), 0),
        ]
        sections += [self._section(layer, "reverse", state, grad, grad) for layer in reversed(layers)]
        sections += [(-1, *self._layer("store", GRAD_X, grad), 0)] if of_input else []
        return np.array([*sections, (-1, *self._layer("miss", state, grad), 0)], dtype=SECTION)

    def _euler_backward(self, layers: range, of_input: bool) -> np.ndarray:
        every, (grad, leaving) = self.system.store_every, self._grads
        sections: list[tuple[int, ...]] = [(-1, *self._layer("load gradient", grad), 0)]
        for number in reversed(range(-(-len(layers) // every))):
            inside = layers[number * every : (number + 1) * every]
            sections.append((inside[0], *self._layer("fetch", self._states[0]), number))
            pairs = zip(inside[:-1], self._states, self._states[1:], strict=False)
            sections += [self._section(layer, "advance", before, after) for layer, before, after in pairs]
            for place in reversed(range(len(inside))):
                sections.append(self._section(inside[place], "leave", self._states[place], grad, leaving))
                grad, leaving = leaving, grad
        sections += [(-1, *self._layer("store", GRAD_X, grad), 0)] if of_input else []
        return np.array(sections, dtype=SECTION)

    def _section(self, layer: int, name: str, *buffers: int) -> tuple[int, ...]:
        return (layer, *self._layer(name, self.system.layers.which[layer], *buffers), 0)

    def _made(self, name: str, *arguments: int) -> tuple[int, int]:
        """The first and last instruction of a section of that name."""
        first = len(self.code)
        sections: dict[str, Callable[..., None]] = {
            "load": lambda user, a: self.code.emit(LOAD, first=user, a=a),
            "load gradient": self._load_gradient,
            "store": lambda user, a: self.code.emit(STORE, first=user, a=a),
            "keep": lambda a: self.code.emit(KEEP, a=a),
            "fetch": lambda a: self.code.emit(FETCH, a=a),
            "miss": self._miss,
            "forward": self._forward_layer,
            "advance": self._advance_layer,
            "reverse": self._reverse_layer,
            "leave": self._leave_layer,
        }
        sections[name](*arguments)
        return first, len(self.code)

    def _load_gradient(self, grad: int) -> None:
        self.code.emit(LOAD, first=GRAD_Y, a=grad)
        self.code.emit(BLANK, a=grad)

    def _miss(self, state: int, room: int) -> None:
        self.code.emit(LOAD, first=X, a=room)
        for part in self._part.values():
            self.code.emit(MISS, a=room + part, b=state + part, count=self._n)

    def _copy(self, into: int, origin: int, blank: frozenset[str] = frozenset()) -> None:
        """A state, or zero in the parts that are ``blank``."""
        for part, place in self._part.items():
            self.code.emit(ZERO if part in blank else COPY, a=into + place, b=origin + place, count=self._n)

    def _forward_layer(self, layout: int, state: int, out: int) -> None:
        for number, half in enumerate(self.system.architecture.layer):
            self._half(layout, number).forward(state + self._part[half.source], out + self._part[half.target])

    def _advance_layer(self, layout: int, before: int, after: int) -> None:
        self._copy(after, before)
        self._forward_layer(layout, before, after)

    def _reverse_layer(self, layout: int, state: int, grad: int, leaving: int) -> None:
        halves = list(enumerate(self.system.architecture.layer))
        for number, half in halves[:: 1 if self.system.architecture.simultaneous else -1]:
            source, target = self._part[half.source], self._part[half.target]
            self._half(layout, number).reverse(state + source, state + target, grad + target, leaving + source)

    def _leave_layer(self, layout: int, state: int, grad: int, leaving: int) -> None:
        self._copy(leaving, grad, frozenset(half.target for half in self.system.architecture.layer if half.replaces))
        self._reverse_layer(layout, state, grad, leaving)

    def _half(self, layout: int, number: int) -> Half:
        return Half(self._about, self.code, self._work, layout, number)
