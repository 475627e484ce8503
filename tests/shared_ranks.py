"""What shared weights hold on every rank, beside dense matrices with tied blocks, written from the formulas."""

from __future__ import annotations

import numpy as np
import oracle
import torch
from problems import TOLERANCE, local_rows, relative_error
from rank_checks import main
from torch import Tensor

from hdnn_dist import HDNN, CommunicationGraph, place
from hdnn_dist.exchange.connect import ALONE as ONE
from hdnn_dist.exchange.connect import connect
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.edge_labels import labels_of  # noqa: F401
from hdnn_dist.model.shared import SharedWeights

ALONE = connect(ONE)
ARCHITECTURES = ("H2", "H1-J1", "H1-J2", "MS1", "MS2", "MS3", "MLP")
MIXED = CommunicationGraph.erdos_renyi(9, 0.35, seed=2)  # degrees from 1 to 5
STEP = 0.3


def tied(shared: SharedWeights, roles: Tensor, graph: CommunicationGraph, architecture: str) -> tuple[Tensor, Tensor]:
    """K (layers, n, n) and b (layers, n) in the order of the formulas: K_ik = W_role / sqrt(n_i m_k)."""
    n, m, layers = graph.agents, shared.rows, len(roles)
    label = {(i, k): _label(graph, shared, i, k) for i in range(n) for k in graph.neighbours(i).tolist()}
    stored = []
    for operator in range(roles.shape[1]):
        K = roles.new_zeros(layers, n * m, n * m)
        for i in range(n):
            K[:, i * m : i * m + m, i * m : i * m + m] = shared.block("own", roles)[:, operator]
        for (i, k), name in label.items():
            read = sum(1 for (a, _), other in label.items() if a == i and other == name)
            readers = sum(1 for (_, c), other in label.items() if c == k and other == name)
            block = shared.block(name, roles)[:, operator] / (read * readers) ** 0.5
            K[:, i * m : i * m + m, k * m : k * m + m] = block
        stored.append(K)
    biases = [bias.repeat(1, n) for bias in shared.biases(roles).flatten(1, 2).unbind(1)]
    return _in_halves(architecture, stored, biases)


def _label(graph: CommunicationGraph, shared: SharedWeights, i: int, k: int) -> str:
    """On a ring, where edges have directions."""
    return "neighbour" if shared.edge_labels is None else "next" if k == (i + 1) % graph.agents else "previous"


def _in_halves(architecture: str, stored: list[Tensor], biases: list[Tensor]) -> tuple[Tensor, Tensor]:
    zero = torch.zeros_like(stored[0])
    if architecture == "H2":
        return _blocks(stored[0], zero, zero, stored[1]), torch.cat(biases, 1)
    if architecture == "MS1":  # biases (bz, by)
        return _blocks(zero, -stored[0].mT, stored[0], zero), torch.cat(biases[::-1], 1)
    if architecture == "MS3":  # K1 below with b2, K2 above with b1
        return _blocks(zero, stored[1], stored[0], zero), torch.cat(biases[::-1], 1)
    if architecture == "MS2":
        return stored[0] - stored[0].mT, biases[0]
    return stored[0], biases[0]


def _blocks(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.cat([torch.cat([a, b], 2), torch.cat([c, d], 2)], 1)


def network(world: World, architecture: str, graph: CommunicationGraph = MIXED, **options: object) -> HDNN:
    return HDNN(
        place(graph, world),
        4,
        3,
        STEP,
        architecture,
        seed=5,
        shared=True,
        dtype=torch.float64,
        kernel="torch",
        **options,
    )


def equals_a_dense_oracle(world: World) -> None:
    """Output and gradients of the input and of the shared blocks, which are the same bits on every rank."""
    ring = CommunicationGraph.ring(9)
    for architecture in ARCHITECTURES:
        for graph, labels in ((MIXED, None), (ring, "direction")):
            _equal(network(world, architecture, graph, edge_labels=labels), architecture)


def _equal(net: HDNN, architecture: str) -> None:
    graph, agents = net.agents.graph, net.agents
    rows = local_rows(agents, (4,) * graph.agents)
    x = torch.as_tensor(np.random.default_rng(1).standard_normal((5, 4 * graph.agents))).requires_grad_()
    w = torch.as_tensor(np.random.default_rng(2).standard_normal(x.shape))
    roles = net.shared.roles.detach().clone().requires_grad_()
    order = oracle.dense_order((4,) * graph.agents, oracle.halved(architecture))
    K, b = tied(net.shared, roles, graph, architecture)
    if architecture == "H1-J1":
        K, b = K[:, order][:, :, order], b[:, order]
    dense = net.dense()
    assert relative_error(dense.K, K.detach()) < TOLERANCE
    assert relative_error(dense.b, b.detach()) < TOLERANCE
    y = oracle.propagate(architecture, x[:, order], K, b, dense.J, STEP, torch.tanh)[:, torch.argsort(order)]
    (w * y).sum().backward()
    mine = x.detach()[:, rows].requires_grad_()
    given = net(mine)
    (w[:, rows] * given).sum().backward()
    assert relative_error(given.detach(), y.detach()[:, rows]) < TOLERANCE
    assert relative_error(mine.grad, x.grad[:, rows]) < TOLERANCE
    assert relative_error(net.shared.roles.grad, roles.grad) < TOLERANCE
    every = net.tree.collect(net.shared.roles.grad)
    assert torch.equal(every, every[:1].expand_as(every))


CHECKS = (equals_a_dense_oracle,)


if __name__ == "__main__":
    main(CHECKS)
