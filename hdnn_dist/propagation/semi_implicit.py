"""Semi-implicit Euler and Verlet: half-steps that read one half of the state and write the other, so that each can be
undone. The backward pass rebuilds every state while it computes the gradient, and none is stored.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hdnn_dist.propagation.half_steps import Stage
from hdnn_dist.propagation.state import Parts, State, feature_major
from hdnn_dist.propagation.stepper import Saved, Stepper
from hdnn_dist.propagation.system import LayerWeights
from hdnn_dist.propagation.vector_fields import Blocks


class SemiImplicitStepper(Stepper):
    """Semi-implicit Euler and Verlet: each half-step moves one half by a function of the other.

    Undoing a half-step is the same half-step with a minus sign, from the same f that the gradient needs.
    """

    def _forward(self, x: Tensor, at: LayerWeights, layers: range, store: bool) -> tuple[Tensor, list[Tensor]]:
        state = State(self.width)
        for number in layers:
            half_steps = self._narrow(number, state, x)
            for stage in half_steps.stages:
                self._enter(number, stage)
                f = stage.field.forward(at.of(number, stage.half), state.buffers[stage.half.source])
                stage.coupling.add_(state.buffers[stage.half.target].local, f, stage.scale, at.coupling(number))
        return self._join(state.parts) if layers else x.clone(), []

    def _backward(
        self, saved: Saved, grad_y: Tensor, at: LayerWeights, grad_at: LayerWeights
    ) -> tuple[Tensor, Tensor | None]:
        state, grad, y = State(self.width), self._split(grad_y), feature_major(saved.y)
        for number in reversed(saved.layers):
            half_steps = self._wide(number, state, y)
            for stage in reversed(half_steps.stages):
                self._enter(number, stage)
                self._reverse(stage, state, grad, (at.of(number, stage.half), grad_at.of(number, stage.half)),
                              (at.coupling(number), grad_at.coupling(number)))  # fmt: skip
        return self._join(grad), self._join(state.parts) if saved.layers else None

    def _reverse(
        self,
        stage: Stage,
        state: State,
        grad: Parts,
        at: tuple[Blocks, Blocks],
        at_coupling: tuple[Sequence[Tensor], Sequence[Tensor]],
    ) -> None:
        """Undo a half-step and pass the gradient through it; ``at``: the weights and their gradients."""
        half, g, source = stage.half, grad[stage.half.target], state.buffers[stage.half.source]
        stage.coupling.transpose(g, stage.scale, at_coupling[0], out=stage.field.entering(source))
        f, v = stage.field.reverse(at[0], source, at[1], rebuild=True)
        assert f is not None
        stage.coupling.add_(state.parts[half.target], f, -stage.scale, at_coupling[0])
        if self.system.coupling.trained and half.coupled:
            stage.coupling.accumulate(at_coupling[1], f, g, stage.scale)
        grad[half.source].add_(v)

    def _tangent_layer(self, number: int, at: LayerWeights, state: State, change: Parts) -> None:
        for stage in self._half_steps(self.system.layers.which[number]).stages:
            half, at_coupling = stage.half, at.coupling(number)
            self._enter(number, stage)
            stage.field.entering(state.buffers[half.source]).copy_(change[half.source])
            f, df = stage.field.tangent(at.of(number, half), state.buffers[half.source])
            stage.coupling.add_(state.parts[half.target], f, stage.scale, at_coupling)
            stage.coupling.add_(change[half.target], df, stage.scale, at_coupling)
