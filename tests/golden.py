"""The published implementation: outputs and gradients of the authors' code, one file an architecture, in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracle
import torch
from problems import TOLERANCE, local_rows, relative_error
from torch import Tensor

from hdnn_dist import HDNN, CommunicationGraph, place
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.exchange.world import World

DATA = Path(__file__).parent / "data"

GOLDEN = {
    "H1_J1": ("H1-J1", CommunicationGraph.complete(4), 2),
    "H1_J2": ("H1-J2", CommunicationGraph.complete(4), 2),
    "H2_ring8": ("H2", CommunicationGraph.ring(8), 2),
    "H2_full8": ("H2", CommunicationGraph.complete(8), 2),
    "MS1": ("MS1", CommunicationGraph.complete(4), 2),
    "MS2": ("MS2", CommunicationGraph.complete(4), 2),
    "MS3": ("MS3", CommunicationGraph.complete(4), 2),
}


def published(name: str) -> dict[str, Tensor]:
    """Vectors of the authors' code, K and b dense in the order of our formulas. For H2 their (u, v) is our (q, p)."""
    with np.load(DATA / f"{name}.npz") as file:
        vectors = {key: torch.as_tensor(file[key]) for key in file.files}
    n = vectors["y0"].shape[1]
    if name == "MS1":
        return {**vectors, "K": quarters({(1, 0): vectors["K0"], (0, 1): -vectors["K0"].mT})}
    if name == "MS3":
        return {**vectors, "K": quarters({(1, 0): vectors["K1"], (0, 1): vectors["K2"]}), **both(vectors, "b")}
    if name.startswith("H2"):
        turn = torch.arange(n).roll(n // 2)
        turned = {key: vectors[key][:, turn] for key in ("y0", "yN", "w", "grad_y0", "b", "grad_b")}
        return {**vectors, **turned, **{key: vectors[key][:, turn][:, :, turn] for key in ("K", "grad_K")}}
    return vectors


def quarters(blocks: dict[tuple[int, int], Tensor]) -> Tensor:
    layers, m, _ = next(iter(blocks.values())).shape
    K = torch.zeros(layers, 2, m, 2, m, dtype=torch.float64)
    for (row, column), block in blocks.items():
        K[:, row, :, column] = block
    return K.view(layers, 2 * m, 2 * m)


def both(vectors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: torch.cat([vectors[f"{key}1"], vectors[f"{key}2"]], 1) for key in (name, f"grad_{name}")}


def published_gradient(name: str, vectors: dict[str, Tensor]) -> Tensor:
    """The gradient of every weight as a matrix that stands where the weight stands in K."""
    if name == "MS1":
        return quarters({(1, 0): vectors["grad_K0"]})
    if name == "MS3":
        return quarters({(1, 0): vectors["grad_K1"], (0, 1): vectors["grad_K2"]})
    grad = vectors["grad_K"]
    return grad - grad.mT if name == "MS2" else grad


def check_against_published(name: str, world: World) -> None:
    """Output, gradient of the input and every gradient of the weights, on all ranks together."""
    vectors, (architecture, graph, features) = published(name), GOLDEN[name]
    layers, h = len(vectors["K"]), float(vectors["h"])
    agents = place(graph, world)
    net = HDNN(agents, features, layers, h, architecture, dtype=torch.float64)
    net.load_dense(vectors["K"], vectors["b"])
    assert torch.equal(net.dense().K, vectors["K"])
    sizes = (features,) * graph.agents
    order = torch.argsort(oracle.dense_order(sizes, oracle.halved(architecture)))[local_rows(agents, sizes)]
    x = vectors["y0"][:, order].requires_grad_()
    y = net(x)
    (vectors["w"][:, order] * y).sum().backward()
    assert relative_error(y.detach(), vectors["yN"][:, order]) < TOLERANCE
    assert relative_error(x.grad, vectors["grad_y0"][:, order]) < TOLERANCE
    tree = SumTree(agents)
    given, stored = (tree.sum(standing(net, part)) for part in (net.weights.grad, torch.ones_like(net.weights)))
    assert relative_error(given, published_gradient(name, vectors).flatten(1) * stored) < TOLERANCE
    assert relative_error(tree.sum(net.fill_dense(net.weights.grad)[1]), vectors["grad_b"]) < TOLERANCE


def standing(net: HDNN, weights: Tensor) -> Tensor:
    """(layers, n * n): what belongs to each weight of this rank, where that weight stands in K."""
    view, n = net._dense_views[0], int(net.features.sum())
    stands = torch.zeros(net.layers, n * n, dtype=torch.float64)
    for number, entries in enumerate(view._entries):
        stands[:, entries] = weights[:, number, : len(entries)]
    return stands
