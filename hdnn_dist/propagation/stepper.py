"""The integrators: how half-steps run forward through the layers, how gradients come back, and how tangents follow.

- ``SplitStepper`` serves every scheme whose half-steps read one half and write the other: semi-implicit Euler
  and Verlet. Its backward pass undoes each half-step while it computes the gradient, so no state is stored.
- ``EulerStepper`` is forward Euler, which is not explicitly invertible: it stores every k-th state.

Inside, states are (local features, width), width = samples times positions. Legend as in the forms: u = h C^T g is the
gradient that enters a half-step, f = F(source), v = dF^T u the one that leaves it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.exchange.world import TransportError
from hdnn_dist.propagation.system import Move, Operands, Parts, Scheme, State, Station, Weights
from hdnn_dist.propagation.vector_fields import Blocks

CACHED_LAYOUTS = 16


class Gradients(NamedTuple):
    """What a backward pass gives: of the input, of the weights, and how far the rebuilt input is from the input.

    ``drift``: the largest difference relative to the largest entry of the input, or to 1, a number or a tensor of one;
    ``None`` where states are stored.
    """

    x: Tensor | None
    weights: Weights
    drift: Tensor | float | None


class Propagator(Protocol):
    """What carries the passes out, by the ``kernel`` of that name. States are (batch, local features, positions...)."""

    kernel: str

    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> tuple[Tensor, list[Tensor]]: ...

    def backward(
        self,
        x: Tensor,
        y: Tensor,
        grad_y: Tensor,
        weights: Weights,
        layers: range,
        stored: list[Tensor],
        of_input: bool = True,
    ) -> Gradients: ...

    def tangent(self, x: Tensor, dx: Tensor, weights: Weights, layers: range) -> tuple[Tensor, Tensor]: ...


def feature_major(x: Tensor) -> Tensor:
    """(batch, features, positions...) -> (features, batch * positions)."""
    return x.movedim(1, 0).reshape(x.shape[1], -1)


def sample_major(x: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of ``feature_major``."""
    return x.reshape(shape[1], shape[0], *shape[2:]).movedim(0, 1).contiguous()


def drift_of(x: Tensor, rebuilt: Tensor) -> Tensor:
    """The largest difference relative to the largest entry of x, or to 1."""
    return (x - rebuilt).abs().amax() / x.abs().amax().clamp_min(1)


class Stepper(ABC):
    """Propagates one width; holds the buffers of that width, the backward ones from the first backward pass on."""

    kernel = "torch"

    def __init__(self, scheme: Scheme, width: int, dtype: torch.dtype) -> None:
        self.scheme = scheme
        self.width = width
        self.dtype = dtype
        self._station = lru_cache(maxsize=CACHED_LAYOUTS)(self._make_station)
        self._at = 0, scheme.architecture.layer[0]

    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> tuple[Tensor, list[Tensor]]:
        """The state after these layers, and what ``backward`` needs beside it when ``store`` is set."""
        with self._named("forward pass"):
            y, stored = self._forward(feature_major(x), Operands(self.scheme, weights), layers, store)
        return sample_major(y, x.shape), stored

    def backward(
        self,
        x: Tensor,
        y: Tensor,
        grad_y: Tensor,
        weights: Weights,
        layers: range,
        stored: list[Tensor],
        of_input: bool = True,
    ) -> Gradients:
        """The gradients, given those of the output y; that of the input may be ``None`` where it is not asked for."""
        grad = Weights(*(torch.zeros_like(part) for part in weights))
        at, grad_at = Operands(self.scheme, weights), Operands(self.scheme, grad)
        with self._named("backward pass"):
            grad_x, rebuilt = self._backward(feature_major(y), feature_major(grad_y), at, grad_at, layers, stored)
        drift = None if rebuilt is None else drift_of(feature_major(x), rebuilt)
        return Gradients(sample_major(grad_x, x.shape), grad, drift)

    def tangent(self, x: Tensor, dx: Tensor, weights: Weights, layers: range) -> tuple[Tensor, Tensor]:
        """(y, dy/dx dx): the Jacobian-vector product, with the same exchanges; all linearised at x."""
        start = feature_major(x)
        with self._named("tangent pass"):
            at, state, change = Operands(self.scheme, weights), State(self.width), self._split(feature_major(dx))
            for number in layers:
                self._wide(number, state, start)
                self._tangent_layer(number, at, state, change)
            y = self._join(state.parts) if layers else start
            return sample_major(y, x.shape), sample_major(self._join(change), x.shape)

    @abstractmethod
    def _forward(self, x: Tensor, at: Operands, layers: range, store: bool) -> tuple[Tensor, list[Tensor]]: ...

    @abstractmethod
    def _backward(
        self, y: Tensor, grad_y: Tensor, at: Operands, grad_at: Operands, layers: range, stored: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]: ...

    @abstractmethod
    def _tangent_layer(self, number: int, at: Operands, state: State, change: Parts) -> None: ...

    def _make_station(self, layout: int) -> Station:
        return Station(self.scheme, layout, self.width, self.dtype)

    def _narrow(self, number: int, state: State, start: Tensor) -> Station:
        """The station of a layer, with the state in its narrow fields; a new state starts from ``start``."""
        station = self._station(self.scheme.layers.which[number])
        self._arrive(state, station.narrow, start)
        return station

    def _wide(self, number: int, state: State, start: Tensor) -> Station:
        """The same in its wide fields."""
        station = self._station(self.scheme.layers.which[number])
        self._arrive(state, station.wide, start)
        return station

    def _arrive(self, state: State, fields: dict[str, HaloBuffer], start: Tensor) -> None:
        state.move(fields, None if state.fields else self._split(start))

    def _split(self, whole: Tensor) -> Parts:
        """The parts of a state, as new tensors."""
        return {part: whole.index_select(0, rows) for part, rows in self.scheme.rows.items()}

    def _join(self, parts: Parts) -> Tensor:
        """A new state from its parts."""
        like = next(iter(parts.values()))
        whole = like.new_empty(sum(len(rows) for rows in self.scheme.rows.values()), self.width)
        for part, rows in self.scheme.rows.items():
            whole.index_copy_(0, rows, parts[part])
        return whole

    def _enter(self, number: int, move: Move) -> None:
        self._at = number, move.half

    @contextmanager
    def _named(self, direction: str) -> Iterator[None]:
        try:
            yield
        except TransportError as error:
            number, half = self._at
            at = f"layer {number}, half-step {half.source} -> {half.target}"
            raise TransportError(f"{direction}, {at}: {error}") from error


class SplitStepper(Stepper):
    """Semi-implicit Euler and Verlet: each half-step moves one half by a function of the other.

    Undoing a half-step is the same half-step with a minus sign, from the same f that the gradient needs.
    """

    def _forward(self, x: Tensor, at: Operands, layers: range, store: bool) -> tuple[Tensor, list[Tensor]]:
        state = State(self.width)
        for number in layers:
            station = self._narrow(number, state, x)
            for move in station.moves:
                self._enter(number, move)
                f = move.form.forward(at.of(number, move.half), state.fields[move.half.source])
                move.coupling.add_(state.fields[move.half.target].local, f, move.scale, at.coupling(number))
        return self._join(state.parts) if layers else x.clone(), []

    def _backward(
        self, y: Tensor, grad_y: Tensor, at: Operands, grad_at: Operands, layers: range, stored: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        state, grad = State(self.width), self._split(grad_y)
        for number in reversed(layers):
            station = self._wide(number, state, y)
            for move in reversed(station.moves):
                self._enter(number, move)
                self._reverse(move, state, grad, (at.of(number, move.half), grad_at.of(number, move.half)),
                              (at.coupling(number), grad_at.coupling(number)))  # fmt: skip
        return self._join(grad), self._join(state.parts) if layers else None

    def _reverse(
        self,
        move: Move,
        state: State,
        grad: Parts,
        at: tuple[Blocks, Blocks],
        at_coupling: tuple[Sequence[Tensor], Sequence[Tensor]],
    ) -> None:
        """Undo a half-step and pass the gradient through it; ``at``: the weights and their gradients."""
        half, g, source = move.half, grad[move.half.target], state.fields[move.half.source]
        move.coupling.transpose(g, move.scale, at_coupling[0], out=move.form.entering(source))
        f, v = move.form.reverse(at[0], source, at[1], rebuild=True)
        assert f is not None
        move.coupling.add_(state.parts[half.target], f, -move.scale, at_coupling[0])
        if self.scheme.coupling.trained and half.coupled:
            move.coupling.accumulate(at_coupling[1], f, g, move.scale)
        grad[half.source].add_(v)

    def _tangent_layer(self, number: int, at: Operands, state: State, change: Parts) -> None:
        for move in self._station(self.scheme.layers.which[number]).moves:
            half, at_coupling = move.half, at.coupling(number)
            self._enter(number, move)
            move.form.entering(state.fields[half.source]).copy_(change[half.source])
            f, df = move.form.tangent(at.of(number, half), state.fields[half.source])
            move.coupling.add_(state.parts[half.target], f, move.scale, at_coupling)
            move.coupling.add_(change[half.target], df, move.scale, at_coupling)


class EulerStepper(Stepper):
    """Forward Euler: all half-steps read the state before the layer.

    Keeps the state before every ``store_every``-th layer and computes those between once more. Memory for N layers:
    (ceil(N / k) + k - 1) states, with k = ``store_every``.
    """

    def _forward(self, x: Tensor, at: Operands, layers: range, store: bool) -> tuple[Tensor, list[Tensor]]:
        state, stored = State(self.width), []
        for place, number in enumerate(layers):
            station = self._narrow(number, state, x)
            if store and place % self.scheme.store_every == 0:
                stored.append(self._join(state.parts))
            self._advance(number, station, at, state)
        return self._join(state.parts) if layers else x.clone(), stored

    def _advance(self, number: int, station: Station, at: Operands, state: State) -> None:
        after = {part: rows.clone() for part, rows in state.parts.items()}
        for move in station.moves:
            self._enter(number, move)
            f = move.form.forward(at.of(number, move.half), state.fields[move.half.source])
            self._apply(move, after, f, at.coupling(number))
        state.put(after)

    def _apply(self, move: Move, after: Parts, f: Tensor, at_coupling: Sequence[Tensor]) -> None:
        if move.half.replaces:
            after[move.half.target].zero_()
        move.coupling.add_(after[move.half.target], f, move.scale, at_coupling)

    def _backward(
        self, y: Tensor, grad_y: Tensor, at: Operands, grad_at: Operands, layers: range, stored: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        grad, every = self._split(grad_y), self.scheme.store_every
        for segment in reversed(range(len(stored))):
            inside = layers[segment * every : (segment + 1) * every]
            for number, before in self._segment(inside, stored[segment], at):
                grad = self._reverse_layer(number, before, grad, at, grad_at)
        return self._join(grad), None

    def _reverse_layer(self, number: int, before: Tensor, grad: Parts, at: Operands, grad_at: Operands) -> Parts:
        state, at_coupling = State(self.width), at.coupling(number)
        station = self._wide(number, state, before)
        replaced = {move.half.target for move in station.moves if move.half.replaces}
        leaving = {part: torch.zeros_like(g) if part in replaced else g.clone() for part, g in grad.items()}
        for move in station.moves:
            half, g, source = move.half, grad[move.half.target], state.fields[move.half.source]
            self._enter(number, move)
            move.coupling.transpose(g, move.scale, at_coupling, out=move.form.entering(source))
            trained = self.scheme.coupling.trained and half.coupled is not None
            f, v = move.form.reverse(at.of(number, half), source, grad_at.of(number, half), rebuild=trained)
            if trained:
                assert f is not None
                move.coupling.add_(torch.zeros_like(g), f, move.scale, at_coupling)  # for the blocks of f that C reads
                move.coupling.accumulate(grad_at.coupling(number), f, g, move.scale)
            leaving[half.source].add_(v)
        return leaving

    def _segment(self, layers: range, start: Tensor, at: Operands) -> list[tuple[int, Tensor]]:
        """(layer, state before it) of one segment, last layer first."""
        state, before = State(self.width), [(layers[0], start)]
        for number in layers[:-1]:
            self._advance(number, self._narrow(number, state, start), at, state)
            before.append((number + 1, self._join(state.parts)))
        return before[::-1]

    def _tangent_layer(self, number: int, at: Operands, state: State, change: Parts) -> None:
        after, after_change = ({part: rows.clone() for part, rows in parts.items()} for parts in (state.parts, change))
        for move in self._station(self.scheme.layers.which[number]).moves:
            half, at_coupling = move.half, at.coupling(number)
            self._enter(number, move)
            move.form.entering(state.fields[half.source]).copy_(change[half.source])
            f, df = move.form.tangent(at.of(number, half), state.fields[half.source])
            f = f.clone()  # the coupling may use the buffers that f and df share
            self._apply(move, after, f, at_coupling)
            self._apply(move, after_change, df, at_coupling)
        state.put(after)
        change.update(after_change)
