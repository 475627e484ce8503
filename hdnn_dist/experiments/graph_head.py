"""The readout of graphs that agents of one network share: the same small network at every agent, on its own state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hdnn_dist.weights.initial import generator

WIDER = 2  # hidden numbers, in the features of an agent
SIZE = 50.0  # agents; sums over those of a graph are taken in this unit
HEAD_STREAM = 1 << 38


class GraphHead(nn.Module):
    """features -> two hidden layers -> one number, for an agent or, by the sum of what is hidden, for a graph.

    ``features``: of an agent. Drawn from the seed, with variance 1/fan-in; at first it tells about its last bias.
    """

    def __init__(self, features: int, seed: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.features, hidden = features, WIDER * features
        sizes = ((features, hidden), (hidden, hidden), (hidden, 1))
        layers = [nn.utils.skip_init(nn.Linear, *size, dtype=dtype) for size in sizes]
        with torch.no_grad():
            for number, layer in enumerate(layers):
                drawn = generator(seed, number, HEAD_STREAM).standard_normal(tuple(layer.weight.shape))
                layer.weight.copy_(torch.as_tensor(drawn) / layer.in_features**0.5)
                layer.bias.zero_()
            layers[-1].weight.mul_(0.1)
        self.hidden = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU())
        self.last = layers[2]

    def forward(self, y: Tensor, of_agents: Tensor | None = None) -> Tensor:
        """y (samples, agents, features) -> (samples, agents), or (samples, graphs) where ``of_agents`` (agents,) says
        which graph each belongs to.
        """
        hidden = self.hidden(y)
        if of_agents is not None:
            graphs = int(of_agents[-1]) + 1
            hidden = hidden.new_zeros(len(y), graphs, hidden.shape[-1]).index_add(1, of_agents, hidden) / SIZE
        told: Tensor = self.last(hidden).squeeze(-1)
        return told
