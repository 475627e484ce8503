"""HDNN: the whole network as one nn.Module, and its pass as one autograd node."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from hdnn_dist.exchange.agreement import same_on_tree
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.edge_labels import EdgeLabels
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.kernels.registry import check_flight, check_kernel
from hdnn_dist.model.coupling_builder import CouplingBuilder
from hdnn_dist.model.first_weights import COURANT, JITTER, First, first_weights
from hdnn_dist.model.given import check_call, check_shape, chosen_layers, number_type
from hdnn_dist.model.network_weights import NetworkWeights
from hdnn_dist.model.propagation import Passes, Propagation
from hdnn_dist.model.shared_builder import Shared, Wanted, refuse_coupling_of_agents, shared_weights
from hdnn_dist.model.stack_builder import build_stack
from hdnn_dist.propagation.activations import Activation
from hdnn_dist.propagation.activations import activation as activation_named
from hdnn_dist.propagation.activations import told as told_activation
from hdnn_dist.propagation.architectures import architecture as named
from hdnn_dist.propagation.state import features_per_agent
from hdnn_dist.propagation.system import System, Weights
from hdnn_dist.support.arguments import positive_number, require_memory, require_type, whole
from hdnn_dist.weights.sharing import Sharing

EVERY = slice(None)


class HDNN(NetworkWeights):
    """A Hamiltonian deep neural network whose agents live on the ranks of ``agents.world``.

    ``features``: of every agent, one number or one per agent, the same on every rank. ``step``: h. ``architecture``:
    "H2", "H1-J1", "H1-J2", "H1", "MS1", "MS2", "MS3", or "MLP" for comparison; ``scheme``: "euler" integrates H2, MS1
    and MS3 by forward Euler instead of their own. ``activation``: a name, or one made by ``activations.custom``.

    ``pattern``: the blocks T of every K (default: the graph with self-loops), or one pattern per layer. ``graphs``: for
    a topology that changes, a graph per layer, each a part of the agents' graph; K_j and J_j or X_j follow graph j.
    ``coupling``: X of H2, a matrix (n / 2, n / 2) in the dense order, n the features of all agents, or "trained"; J of
    H1, "J1", "J2" (restricted to each layer's graph), a skew matrix (n, n), or "trained" (A - A^T), on the edges that
    all layers have; or a matrix per layer. ``coupling_pattern``: its blocks R. ``damping``: gamma of
    J - gamma I, for H1.

    ``initial``: ``"scaled"`` (variance 1/fan-in), ``"normal"`` (standard normal) or ``"wave"``, which carries small
    states along the graph: ``courant``, at most 1, is half its largest frequency times h, ``jitter`` its random share.
    Drawn per (seed, agent, layer). ``store_every``: where layers cannot be undone, every how many a state is kept.
    ``flight``: (columns of a tile of samples, how many are in flight between ranks).
    ``kernel``: "torch", the portable one; "fused", compiled for this machine; "shared", for shared weights, which it
    does not copy; "triton" and "triton-bf16", on CUDA, the second with products of bfloat16; or "auto" for the fastest
    that gives the results of the dtype.

    ``shared``: whether all agents, of as many features each, have the same blocks by role, "own" and "neighbour", or
    the ``shared`` of another network, on whatever graph, whose blocks are then this network's too. ``edge_labels``: a
    role for every label of an edge, "direction" or agents (i, k) -> label, see ``graph.edge_labels``.
    ``normalisation``: what neighbours' blocks are multiplied with, "symmetric" (by default), "mean" or "sum", see
    ``weights.roles``.

    Parameters: ``weights``, all K and b of this rank's agents, (layers, operators, size), or flat where layers differ,
    or ``shared.roles``, on every rank the same; ``coupling``, where it is trained.
    Raises ``ValueError`` for what cannot be built.

    Source: Galimberti et al., IEEE TAC 68(5), 2023. The rebuilding backward pass uses that their semi-implicit Euler
    step is invertible in closed form.
    """

    def __init__(
        self,
        agents: Agents,
        features: int | Sequence[int] = 2,
        layers: int = 64,
        step: float = 0.1,
        architecture: str = "H2",
        seed: int = 0,
        *,
        scheme: str | None = None,
        activation: str | Activation = "tanh",
        initial: str = "scaled",
        courant: float = COURANT,
        jitter: float = JITTER,
        pattern: Pattern | Sequence[Pattern] | None = None,
        graphs: Sequence[CommunicationGraph] | None = None,
        coupling: str | Tensor | Sequence[Tensor] | None = None,
        coupling_pattern: Pattern | ArrayLike | None = None,
        damping: float = 0.0,
        store_every: int = 1,
        flight: tuple[int, int] | None = None,
        shared: Shared = False,
        normalisation: str | None = None,
        edge_labels: EdgeLabels = None,
        dtype: torch.dtype = torch.float32,
        kernel: str = "auto",
    ) -> None:
        super().__init__()
        require_type("agents", agents, Agents, "what hdnn_dist.place(graph, world) returns")
        self.agents = agents
        wanted = Wanted(shared, normalisation, edge_labels)
        wanted.refuse_without()
        self.require_same(
            features=features, layers=layers, step=step, architecture=architecture, seed=seed, scheme=scheme,
            activation=told_activation(activation), initial=(initial, courant, jitter), pattern=pattern, graphs=graphs,
            coupling=coupling, coupling_pattern=coupling_pattern, damping=damping, store_every=store_every,
            flight=flight, dtype=dtype, **wanted.told(),
        )  # fmt: skip
        check_kernel(kernel)
        check_flight(flight)
        self.kernel, dtype, self.architecture = kernel, number_type(dtype), named(architecture, scheme)
        self.activation = activation_named(activation)
        self.features = features_per_agent(features, agents.graph.agents)
        self.architecture.check_features(self.features)
        self.flight, self.layers, self.store_every = flight, whole("layers", layers), whole("store_every", store_every)
        most = int(np.bincount(agents.owner, self.features).max())  # of any rank, so that all of them refuse
        require_memory(f"{self.layers} layers of {most} features", 8 * self.layers * most)
        self.step, self.seed = positive_number("step", step), seed
        self.stack = build_stack(agents, self.architecture, self.features, self.layers, pattern, graphs)
        self._make_weights(wanted, First(self.step, seed, initial, coupling, courant, jitter), dtype)
        self.coupling_builder = CouplingBuilder(
            agents, self.architecture, self.features, self.stack, coupling_pattern, seed
        )
        coupled = self.coupling_builder.build(coupling, damping)
        if self.shared is not None:
            refuse_coupling_of_agents(coupled.spec)
        self.coupling_spec = coupled.spec
        values = torch.as_tensor(coupled.weights, dtype=dtype, device=agents.world.device)
        self.coupling: Tensor
        if coupled.spec.trained:
            self.coupling = nn.Parameter(values)
        else:
            self.register_buffer("coupling", values)
        self._shapes: set[tuple[int, ...]] = set()
        self._built, self._coupled = self.trained_weights.shape, self.coupling.shape

    def _make_weights(self, wanted: Wanted, first: First, dtype: torch.dtype) -> None:
        """Those of each agent, or those that all share."""
        if wanted.shared is False:
            weights = torch.as_tensor(first_weights(self.stack, self.architecture, *first), dtype=dtype)
            self.register_parameter("weights", nn.Parameter(weights.to(self.agents.world.device)))
            self.shared = self.sharing = None
            return
        about = self.architecture, self.activation, self.features, self.stack
        self.shared, tables = shared_weights(wanted, *about, first, dtype)
        self.sharing = Sharing(self.stack, tables)

    def require_same(self, **facts: object) -> None:
        """``ValueError`` on every rank, the same, unless all call it with the same facts. One sum along the tree."""
        if self.agents.world.size > 1:
            same_on_tree(self.tree, facts)

    @cached_property
    def local_features(self) -> int:
        """Features of the agents of this rank: the second dimension of inputs and outputs."""
        return int(self.features[self.agents.local].sum())

    def forward(self, x: Tensor, layers: slice = EVERY) -> Tensor:
        """(batch, local features[, positions...]) -> the same shape, after the last layer.

        Agent after agent, inside an agent its first half, then its second. Every position is a sample of its own.
        ``layers``: only these, a slice without a stride. Every rank has to call it, with the same batch and positions.
        """
        weights = self.passed_weights
        self._check_input(x, weights)
        chosen = range(self.layers) if layers is EVERY else chosen_layers(layers, self.layers)
        y: Tensor = Propagation.apply(x, weights, self.coupling, self._passes, chosen, torch.is_grad_enabled())
        return y

    def tangent(self, x: Tensor, dx: Tensor, layers: slice = EVERY) -> tuple[Tensor, Tensor]:
        """The output for x, and the Jacobian-vector product dy/dx dx: forward mode, by the same exchanges.

        x, dx and both results: (batch, local features[, positions...]). Not differentiable itself. Every rank has to
        call it.
        """
        weights = self.trained_weights
        self._check_input(x, weights)
        self._check_input(dx, weights)
        chosen = chosen_layers(layers, self.layers)
        if x.shape != dx.shape:
            raise ValueError(f"dx has shape {tuple(dx.shape)}, but x {tuple(x.shape)}: give both the same")
        with self._passes.one(), torch.no_grad():
            return self._passes.of(x, chosen).tangent(x, dx, Weights(weights, self.coupling), chosen)

    def kernel_for(self, samples: int) -> str:
        """The kernel that carries out a pass of so many samples, times positions, on this rank."""
        return self._passes.stepper(whole("samples", samples), self.trained_weights.dtype).kernel

    @property
    def drift(self) -> float | None:
        """Largest difference between the input and its reconstruction in the last backward pass, on this rank.

        Relative to the largest entry of the input, or to 1. ``None`` before the first backward pass, and for
        architectures that store their states.
        """
        return self._passes.drift.value

    @cached_property
    def system(self) -> System:
        """What kernels integrate: this rank's share of the network, without its weights."""
        features, device = self.features[self.agents.local], self.agents.world.device
        rows = self.architecture.part_rows(features)
        return System(
            architecture=self.architecture,
            layers=self.stack,
            activation=self.activation,
            step=self.step,
            features=features,
            rows={
                part: torch.as_tensor(r, device=device) for part, r in zip(self.architecture.parts, rows, strict=True)
            },
            coupling=self.coupling_spec,
            store_every=self.store_every,
            flight=self.flight,
            sharing=self.sharing,
        )

    @cached_property
    def _passes(self) -> Passes:
        return Passes(self.system, self.kernel, lambda: self.tree)

    def __setattr__(self, name: str, value: Any) -> None:
        """What passes depend on can be changed: those that come are made of it."""
        super().__setattr__(name, value)
        if name in ("step", "activation", "kernel", "store_every", "flight"):
            for made in ("system", "_passes"):
                self.__dict__.pop(made, None)

    def _check_input(self, x: Tensor, weights: Tensor) -> None:
        """``TypeError`` or ``ValueError`` for what is no input, and for one whose shape other ranks have otherwise."""
        check_call(x, self.local_features, self.agents, weights, self._built)
        if self.coupling_spec.trained:
            check_shape("coupling", self.coupling, self._coupled)
        shape = (x.shape[0], *x.shape[2:])
        if shape not in self._shapes:  # once for each, so that a step costs no message
            self.require_same(**{"batch and positions of the input": shape})
            self._shapes.add(shape)

    def extra_repr(self) -> str:
        return (
            f"{self.architecture.name}, {self.agents.graph.agents} agents of which {len(self.agents)} here, "
            f"layers={self.layers}, step={self.step}, weights={tuple(self.trained_weights.shape)}"
        )
