"""Passes with weights that agents share, without a copy of them for each agent: a matrix product for all at once.

For architectures whose half-steps read one half of the state and write the other. In plain torch operations, on a CPU
or a GPU; a graph's agents cost what their states take, not what their blocks would.

Inside, a state is its parts, (agents * width, m) each, see ``weights.role_products``. Legend as in ``vector_fields``.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from hdnn_dist.exchange.halo import HaloBuffer
from hdnn_dist.kernels.cuda.graphs import GraphedStepper
from hdnn_dist.propagation.architectures import HalfStep
from hdnn_dist.propagation.expanded import Expanded
from hdnn_dist.propagation.state import Parts, drift_of, feature_major, join, sample_major, split
from hdnn_dist.propagation.stepper import Gradients, Propagator, Saved, Stepper, located
from hdnn_dist.propagation.system import System, Weights
from hdnn_dist.weights.role_products import RoleProduct


def misfit(system: System) -> str | None:
    """Why a system cannot be propagated here, or ``None``."""
    if system.architecture.simultaneous or system.coupling.kind != "identity" or not system.layers.alike:
        return "shared weights are expanded for forward Euler, couplings and a graph for each layer"
    return None


def make(system: System, portable: Stepper, name: str) -> Propagator:
    """As ``Kernel`` says."""
    stepper = SharedStepper(system, portable, name)
    on_a_gpu = system.layers.layouts[0].device.type == "cuda"
    return GraphedStepper(system, stepper, name) if on_a_gpu and system.whole else stepper


class Blocks(NamedTuple):
    """One operator in one layer: ``W`` (roles, m, m) and ``b`` (m,), views."""

    W: Tensor
    b: Tensor


class SharedStepper:
    """Propagates one width, by ``Stepper``'s contract, with weights (layers, operators, entries) of roles."""

    def __init__(self, system: System, portable: Stepper, kernel: str) -> None:
        assert system.sharing is not None
        self.system, self.width, self.kernel = system, portable.width, kernel
        self.tangent = Expanded(portable, system.sharing).tangent
        self._dtype = portable.dtype
        self._table = system.sharing.tables[0]
        self._product = RoleProduct(self._table)
        self._at = 0, system.architecture.layer[0]

    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> Saved:
        """As ``Stepper.forward``."""
        state = self._enter(x)
        with located("forward pass", lambda: self._at):
            for number in layers:
                for half in self.system.architecture.layer:
                    self._at = number, half
                    f = self._forward(half, self._blocks(weights.blocks, number, half))
                    state[half.target].add_(f, alpha=half.scale(self.system.step))
        return Saved(x, sample_major(self._join(state), x.shape), weights, layers, [])

    def backward(self, saved: Saved, grad_y: Tensor, of_input: bool = True) -> Gradients:
        """As ``Stepper.backward``; the gradient of the weights is that of the agents here."""
        state, grad = self._enter(saved.y), self._split(grad_y)
        total = torch.zeros_like(saved.weights.blocks)
        with located("backward pass", lambda: self._at):
            for number in reversed(saved.layers):
                for half in reversed(self.system.architecture.layer):
                    self._at = number, half
                    at, into = (self._blocks(flat, number, half) for flat in (saved.weights.blocks, total))
                    u = grad[half.target] * half.scale(self.system.step)
                    f, v = self._reverse(half, at, into, u)
                    state[half.target].sub_(f, alpha=half.scale(self.system.step))
                    grad[half.source].add_(v)
        drift = drift_of(feature_major(saved.x), self._join(state))
        weights = Weights(total, torch.zeros_like(saved.weights.coupling))
        return Gradients(sample_major(self._join(grad), saved.x.shape), weights, drift)

    def _forward(self, half: HalfStep, at: Blocks) -> Tensor:
        """f = F(source), (agents * width, m)."""
        product, x = self._product, self._buffers[half.source]
        alpha, beta = half.field.coefficients
        if alpha:
            z = product.read(at.W, x)[0].mul_(alpha)
        else:
            z = product.give_back(at.W, product.local(x), self._returned).mul(beta)
        self.system.activation.apply_(z.add_(at.b))
        return product.give_back(at.W, z, self._returned) if half.field.gradient else z

    def _reverse(self, half: HalfStep, at: Blocks, into: Blocks, u: Tensor) -> tuple[Tensor, Tensor]:
        """(f, v), (agents * width, m) each, from the source and u of that shape, adding to ``into``."""
        x = self._parts[half.source]
        if half.field.gradient:
            return self._reverse_gradient(at, into, x, u)
        product, (alpha, beta) = self._product, half.field.coefficients
        if alpha:
            s, reads = product.read(at.W, self._buffers[half.source])
            self.system.activation.both_(s.mul_(alpha).add_(at.b), u)
            product.accumulate(into.W, u, reads, alpha)
            v = product.give_back(at.W, u, self._returned).mul_(alpha)
        else:
            s = product.give_back(at.W, x, self._returned).mul(beta).add_(at.b)
            self.system.activation.both_(s, u)
            product.local(self._entering).copy_(u)
            v, reads = product.read(at.W, self._entering)
            product.accumulate(into.W, x, reads, beta)
            v.mul_(beta)
        into.b.add_(u.sum(0))
        return s, v

    def _reverse_gradient(self, at: Blocks, into: Blocks, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """x and u travel side by side, and so do K^T s'(z) K u and K^T s(z), in this order."""
        product, m = self._product, self._table.rows
        shape = product.agents, 2, self.width, m
        sides = product.local(self._wide).view(shape)
        sides[:, 0].copy_(x.view(shape[0], self.width, m))
        sides[:, 1].copy_(u.view(shape[0], self.width, m))
        z, reads = product.read(at.W, self._wide)
        s, q = z.view(shape).unbind(1)
        s, q = s.add(at.b), q.clone()
        self.system.activation.both_(s, q)
        response = torch.stack([q, s], 1).view_as(z)
        product.accumulate(into.W, response, reads)
        into.b.add_(q.sum((0, 1)))
        v, f = product.give_back(at.W, response, self._returned_wide).view(shape).unbind(1)
        return f.reshape_as(x), v.reshape_as(x)

    def _blocks(self, weights: Tensor, number: int, half: HalfStep) -> Blocks:
        roles, m = self._table.roles, self._table.rows
        flat = weights[number, half.operator]
        W = flat[: roles * m * m].view(roles, m, m)
        return Blocks(W, flat[roles * m * m :].view(-1, m)[half.bias])

    def _enter(self, x: Tensor) -> Parts:
        """Put the state x (batch, local features, positions...) into the buffers; its parts there."""
        for part, rows in self._split(x).items():
            self._parts[part].copy_(rows)
        return self._parts

    def _split(self, x: Tensor) -> Parts:
        """The parts of a state (batch, local features, positions...), as new tensors (agents * width, m)."""
        parts = split(feature_major(x), self.system.rows)
        return {part: self._turned(rows, self._table.rows) for part, rows in parts.items()}

    def _join(self, parts: Parts) -> Tensor:
        """A new state (local features, width) from its parts."""
        return join({part: self._turned(rows, self.width) for part, rows in parts.items()}, self.system.rows)

    def _turned(self, rows: Tensor, m: int) -> Tensor:
        """(agents * m, n) -> (agents * n, m): what stands there for each agent, transposed."""
        return rows.view(self._product.agents, m, -1).mT.reshape(-1, m)

    @cached_property
    def _buffers(self) -> dict[str, HaloBuffer]:
        return {part: self._product.buffer(self.width, self._dtype) for part in self.system.rows}

    @cached_property
    def _parts(self) -> Parts:
        """The state, in the buffers."""
        return {part: self._product.local(buffer) for part, buffer in self._buffers.items()}

    @cached_property
    def _returned(self) -> HaloBuffer:
        return self._product.buffer(self.width, self._dtype)

    @cached_property
    def _entering(self) -> HaloBuffer:
        return self._product.buffer(self.width, self._dtype)

    @cached_property
    def _wide(self) -> HaloBuffer:
        return self._product.buffer(2 * self.width, self._dtype)

    @cached_property
    def _returned_wide(self) -> HaloBuffer:
        return self._product.buffer(2 * self.width, self._dtype)
