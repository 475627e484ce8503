"""Forward Euler, which is not explicitly invertible: it stores every k-th state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hdnn_dist.propagation.half_steps import HalfSteps, Stage
from hdnn_dist.propagation.state import Parts, State
from hdnn_dist.propagation.stepper import Saved, Stepper
from hdnn_dist.propagation.system import LayerWeights


class ForwardEulerStepper(Stepper):
    """Forward Euler: all half-steps read the state before the layer.

    Keeps the state before every ``store_every``-th layer and computes those between once more. Memory for N layers:
    (ceil(N / k) + k - 1) states, with k = ``store_every``.
    """

    def _forward(self, x: Tensor, at: LayerWeights, layers: range, store: bool) -> tuple[Tensor, list[Tensor]]:
        state, stored = State(self.width), []
        for place, number in enumerate(layers):
            half_steps = self._narrow(number, state, x)
            if store and place % self.system.store_every == 0:
                stored.append(self._join(state.parts))
            self._advance(number, half_steps, at, state)
        return self._join(state.parts) if layers else x.clone(), stored

    def _advance(self, number: int, half_steps: HalfSteps, at: LayerWeights, state: State) -> None:
        after = {part: rows.clone() for part, rows in state.parts.items()}
        for stage in half_steps.stages:
            self._enter(number, stage)
            f = stage.field.forward(at.of(number, stage.half), state.buffers[stage.half.source])
            self._apply(stage, after, f, at.coupling(number))
        state.put(after)

    def _apply(self, stage: Stage, after: Parts, f: Tensor, at_coupling: Sequence[Tensor]) -> None:
        if stage.half.replaces:
            after[stage.half.target].zero_()
        stage.coupling.add_(after[stage.half.target], f, stage.scale, at_coupling)

    def _backward(
        self, saved: Saved, grad_y: Tensor, at: LayerWeights, grad_at: LayerWeights
    ) -> tuple[Tensor, Tensor | None]:
        grad, every = self._split(grad_y), self.system.store_every
        for segment in reversed(range(len(saved.stored))):
            inside = saved.layers[segment * every : (segment + 1) * every]
            for number, before in self._segment(inside, saved.stored[segment], at):
                grad = self._reverse_layer(number, before, grad, at, grad_at)
        return self._join(grad), None

    def _reverse_layer(
        self, number: int, before: Tensor, grad: Parts, at: LayerWeights, grad_at: LayerWeights
    ) -> Parts:
        state, at_coupling = State(self.width), at.coupling(number)
        half_steps = self._wide(number, state, before)
        replaced = {stage.half.target for stage in half_steps.stages if stage.half.replaces}
        leaving = {part: torch.zeros_like(g) if part in replaced else g.clone() for part, g in grad.items()}
        for stage in half_steps.stages:
            half, g, source = stage.half, grad[stage.half.target], state.buffers[stage.half.source]
            self._enter(number, stage)
            stage.coupling.transpose(g, stage.scale, at_coupling, out=stage.field.entering(source))
            trained = self.system.coupling.trained and half.coupled is not None
            f, v = stage.field.reverse(at.of(number, half), source, grad_at.of(number, half), rebuild=trained)
            if trained:
                assert f is not None
                stage.coupling.add_(
                    torch.zeros_like(g), f, stage.scale, at_coupling
                )  # for the blocks of f that C reads
                stage.coupling.accumulate(grad_at.coupling(number), f, g, stage.scale)
            leaving[half.source].add_(v)
        return leaving

    def _segment(self, layers: range, start: Tensor, at: LayerWeights) -> list[tuple[int, Tensor]]:
        """(layer, state before it) of one segment, last layer first."""
        state, before = State(self.width), [(layers[0], start)]
        for number in layers[:-1]:
            self._advance(number, self._narrow(number, state, start), at, state)
            before.append((number + 1, self._join(state.parts)))
        return before[::-1]

    def _tangent_layer(self, number: int, at: LayerWeights, state: State, change: Parts) -> None:
        after, after_change = ({part: rows.clone() for part, rows in parts.items()} for parts in (state.parts, change))
        for stage in self._half_steps(self.system.layers.which[number]).stages:
            half, at_coupling = stage.half, at.coupling(number)
            self._enter(number, stage)
            stage.field.entering(state.buffers[half.source]).copy_(change[half.source])
            f, df = stage.field.tangent(at.of(number, half), state.buffers[half.source])
            f = f.clone()  # the coupling may use the buffers that f and df share
            self._apply(stage, after, f, at_coupling)
            self._apply(stage, after_change, df, at_coupling)
        state.put(after)
        change.update(after_change)
