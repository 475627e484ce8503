"""The peer on large graphs: message passing along edges as torch-geometric does it, with plain autograd.

F(x) = K^T s(K x + b) takes two rounds of messages: K_ik x_k from k to i, then K_ik^T s_i from i to k.
Without torch-geometric this module can be imported, and ``is_installed`` says so.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor, nn

from hdnn_dist.model.network import HDNN


def is_installed() -> bool:
    """Whether torch-geometric can be imported."""
    return importlib.util.find_spec("torch_geometric") is not None


def message_passing() -> nn.Module:
    """torch-geometric's layer that sends ``K x`` along every edge and adds up what arrives."""
    from torch_geometric.nn import MessagePassing

    class BlockProduct(MessagePassing):  # type: ignore[misc]
        def forward(self, x: Tensor, K: Tensor, edges: Tensor) -> Tensor:
            return self.propagate(edges, x=x, K=K)

        def message(self, x_j: Tensor, K: Tensor) -> Tensor:
            return torch.bmm(K, x_j)

    return BlockProduct(aggr="add", node_dim=0)


class EdgewiseNetwork(nn.Module):
    """The same function as an H2 network, a block of K an edge. States: (agents, features, batch), p before q.

    ``K``: (layers, 2, edges, rows, rows), Kp then Kq; ``b``: (layers, 2, agents, rows); ``readers``, ``sources``:
    (edges,), agent ``readers[e]`` reads the block of ``sources[e]``; ``step``: h.
    """

    def __init__(self, K: Tensor, b: Tensor, readers: Tensor, sources: Tensor, step: float) -> None:
        super().__init__()
        self.step = step
        self.product = message_passing()
        self.register_buffer("towards", torch.stack([sources, readers]))
        self.register_buffer("back", torch.stack([readers, sources]))
        self.K = nn.ParameterList(half for layer in K for half in layer.clone())
        self.b = nn.ParameterList(half for layer in b for half in layer.clone())
        halves = [*zip(self.K, self.b, strict=True)]
        self._layers = [*zip(halves[0::2], halves[1::2], strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        """(agents, features, batch) -> the same shape, after the last layer."""
        p, q = x.chunk(2, 1)
        for (Kp, bp), (Kq, bq) in self._layers:
            p = p - self.step * self._field(q, Kq, bq)
            q = q + self.step * self._field(p, Kp, bp)
        return torch.cat([p, q], 1)

    def _field(self, x: Tensor, K: Tensor, b: Tensor) -> Tensor:
        s = torch.tanh(self.product(x, K, self.towards) + b.unsqueeze(2))
        f: Tensor = self.product(s, K.mT, self.back)
        return f


def edgewise(net: HDNN) -> EdgewiseNetwork:
    """A peer of the shape of an H2 network with equal features; its weights have variance 1/fan-in, as there."""
    blocks, rows = net.pattern, int(net.features[0]) // 2
    fan_in = rows * len(blocks.rows) / blocks.agents
    K = torch.randn(net.layers, 2, len(blocks.rows), rows, rows) / fan_in**0.5
    b = torch.zeros(net.layers, 2, blocks.agents, rows)
    readers, sources = (torch.as_tensor(ends.copy()) for ends in (blocks.rows, blocks.columns))
    return EdgewiseNetwork(K, b, readers, sources, net.step)


def by_agent(x: Tensor, agents: int) -> Tensor:
    """(batch, n), agent after agent, as (agents, features, batch)."""
    return x.view(len(x), agents, -1).permute(1, 2, 0).contiguous()
