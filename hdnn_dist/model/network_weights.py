"""What a network holds: weights of each agent, or those that all share; their dense view, and what is saved of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.model.coupling_builder import CouplingBuilder
from hdnn_dist.model.dense import Dense, DenseView, dense_J
from hdnn_dist.model.given import check_dense
from hdnn_dist.model.identity import network_facts, packed, refuse_other_weights, unpacked
from hdnn_dist.model.shared import SharedWeights, summed, tie
from hdnn_dist.model.trained import Trained, names_of_layers, trained_blocks, trained_layers
from hdnn_dist.propagation.activations import Activation
from hdnn_dist.propagation.architectures import Architecture
from hdnn_dist.propagation.system import CouplingSpec
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.layers import Layers
from hdnn_dist.weights.sharing import Sharing

OF_A_GRAPH = ("graph", "pattern")


class NetworkWeights(nn.Module):
    """The weights of ``HDNN``, which makes them.

    ``shared``: the module that holds them where all agents have the same; else None, and ``weights`` is a parameter.
    ``features``: (agents,).
    """

    agents: Agents
    architecture: Architecture
    activation: Activation
    features: np.ndarray
    layers: int
    step: float
    stack: Layers
    shared: SharedWeights | None
    sharing: Sharing | None
    coupling: Tensor
    coupling_builder: CouplingBuilder
    coupling_spec: CouplingSpec

    @property
    def weights(self) -> Tensor:
        """All K and b of this rank's agents, (layers, operators, size), or flat where layers differ.

        A parameter, or what shared weights give, anew each time and without autograd: changing them changes nothing.
        """
        return self.trained_weights if self.sharing is None else self.sharing.expand(self.trained_weights.detach())

    @property
    def trained_weights(self) -> nn.Parameter:
        """The parameter that K and b come from: ``weights``, or those that are shared, of any shape."""
        return self._parameters["weights"] if self.shared is None else self.shared.roles  # type: ignore[return-value]

    @property
    def passed_weights(self) -> Tensor:
        """What passes work with, (layers, operators, size): of shared ones the gradient is summed over all ranks."""
        trained = self.trained_weights
        return trained if self.shared is None else summed(trained, lambda: self.tree)

    @cached_property
    def tree(self) -> SumTree:
        """Of all agents, with agent 0 at its root."""
        return SumTree(self.agents)

    def trained(self) -> Iterator[Trained]:
        """As ``TrainedModule.trained``: K, b and, where it is trained, C of every agent here, or what all share."""
        if self.shared is None:
            yield from trained_layers(self.stack, self.trained_weights)
        else:
            yield from self.shared.trained()
        if isinstance(self.coupling, nn.Parameter):
            yield from trained_blocks(self.coupling_spec.layouts[0], self.coupling, "C")

    def about(self) -> dict[str, str]:
        """What weights are of, as short texts; the same on every rank."""
        facts = network_facts(self.architecture, self.step, self.activation, self.agents, self.stack)
        return facts if self.shared is None else {**self.shared.facts, **facts}

    def needed(self) -> dict[str, str]:
        """What of ``about`` weights depend on to mean the same: of shared ones not the graph."""
        return {name: text for name, text in self.about().items() if self.shared is None or name not in OF_A_GRAPH}

    def get_extra_state(self) -> Tensor:
        """(bytes,) for ``state_dict``: ``needed``, and the agents that the weights belong to, unless all share them."""
        own = {} if self.shared is not None else {"agents of this rank": str(self.agents.local.tolist())}
        return packed({**self.needed(), **own})

    def set_extra_state(self, state: Tensor) -> None:
        """``ValueError`` for the state of another network, or of other agents; (bytes,) as ``get_extra_state``."""
        refuse_other_weights("this state", unpacked(state), unpacked(self.get_extra_state()))

    def trained_names(self) -> Iterator[str]:
        """As ``TrainedModule.trained_names``."""
        if self.shared is not None:
            return self.shared.trained_names()
        kinds = [*names_of_layers(self.stack), *["C"] * self.coupling_spec.trained]
        return (f"agent.{agent}.{kind}" for agent in range(self.agents.graph.agents) for kind in kinds)

    def dense(self) -> Dense:
        """The dense K, b and J of the whole network, on every rank. Summed along a tree; every rank has to call it."""
        K, b = self.fill_dense(self.weights.detach())
        coupling = self.coupling_builder, self.coupling_spec, self.coupling.detach()
        J = dense_J(*coupling, self.tree) if self.architecture.coupled else K.new_zeros(K.shape[1:])
        return Dense(self.tree.sum(K), self.tree.sum(b), J)

    def operators(self) -> Tensor:
        """(layers, operators, m, m) every K as it is stored, m the rows of a part, agent after agent, on every rank.

        Summed along a tree; every rank has to call it.
        """
        each = [view.stored(self.stack.weights(self.weights.detach(), layer)) for layer, view in self._by_layer()]
        return self.tree.sum(torch.stack(each))

    def fill_dense(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Dense K (layers, n, n) and b (layers, n) with this rank's entries in place. Differentiable.

        ``weights``: this rank's, or their gradient.
        """
        each = [view.fill(self.stack.weights(weights, layer)) for layer, view in self._by_layer()]
        return torch.stack([K for K, _ in each]), torch.stack([b for _, b in each])

    def load_dense(self, K: Tensor, b: Tensor) -> None:
        """Set this rank's weights from dense K (layers, n, n) and b (layers, n), in the order of ``dense``.

        Needs no message, but for shared weights sums along the tree, for which every rank has to call it. Raises
        ``ValueError`` for a wrong shape, an entry of K outside the pattern, and blocks of one role that differ.
        """
        check_dense(K, b, self.layers, int(self.features.sum()))
        with torch.no_grad():
            if self.sharing is None:
                self._take(K, b, self.weights)
            else:
                with agreed(self.tree):
                    taken = self._take(K, b, self.weights)
                tie(self.sharing, self.tree, taken, self.trained_weights)

    def _take(self, K: Tensor, b: Tensor, into: Tensor) -> Tensor:
        for layer, view in self._by_layer():
            self.stack.weights(into, layer).copy_(view.take(K[layer], b[layer], layer))
        return into

    @property
    def pattern(self) -> Pattern:
        """The stored blocks of K in the first layer."""
        return self.stack.layouts[0].pattern

    @property
    def layout(self) -> BlockLayout:
        """The layout of the first layer."""
        return self.stack.layouts[0]

    def _by_layer(self) -> Iterator[tuple[int, DenseView]]:
        for layer, layout in enumerate(self.stack.which):
            yield layer, self._dense_views[layout]

    @cached_property
    def _dense_views(self) -> list[DenseView]:
        return [DenseView(self.architecture, layout, self.features) for layout in self.stack.layouts]
