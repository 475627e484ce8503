"""Weights that carry waves: small states travel along the graph, layer after layer, and their energy is kept.

Every K is ``share`` W and a little of random weights. W has norm 1 at most, whatever the graph and the features, by
degrees alone: with r_i blocks that agent i reads of others, and c_k others that read block k,

    W_ik = E_ik / (1 + LAZY) / sqrt(r_i c_k),    W_ii = LAZY / (1 + LAZY) I

which is (A + LAZY) / (1 + LAZY) where all read each other, A the normalised adjacency matrix. The Schur test gives
||W|| <= 1, reached on every connected graph, so the Courant number needs neither an iteration nor a message. E_ik joins
feature s of agent k to feature s of agent i, and has norm 1 where they have different numbers of features.

Where K is met as K^T s(K y) alone, W is turned: Q W, with one orthogonal Q for the rows of each agent, has the same
K^T K, so a small wave is what it was, but features meet in s. Q changes from stage to stage of a network: the operators
of few layers all differ; many layers are one stage, where each turned feature goes by itself and scatters no other.

Legend: ``degrees`` (r, c); a *role* says which W an operator is, see ``ROLES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.initial import draw_layers, generator
from hdnn_dist.weights.layers import Layers

LAZY = 0.1  # without it agents at odd and at even distances would not hear of each other
RANDOM_NORM = 2.0  # about that of random weights of variance 1/fan-in
BIAS = 0.25  # standard deviation of biases
SPREAD = 8  # how many layers may differ as they like: have such biases, and a rotation for each operator
STAGES = 2 * SPREAD  # of a network at most
TURN_STREAM = 1 << 37

Block = Callable[[float, bool, int, int], Tensor]


@dataclass(frozen=True)
class Wave:
    """How a wave is drawn: the role and the share of each operator, and how much of it is random, 0 to 1.

    ``gradient``: whether K is met as K^T s(K y) alone, so that it can be turned.
    """

    roles: Sequence[str]
    shares: Sequence[float]
    jitter: float
    gradient: bool

    def turned(self, W: np.ndarray, seed: int, stages: np.ndarray) -> np.ndarray:
        """(layers, n, rows, columns) Q W for n blocks W (n, rows, columns), or W alone; ``stages``: (layers,).

        Matrix by matrix, so the bits are the same with any number of agents.
        """
        if not self.gradient:
            return np.repeat(W[np.newaxis], len(stages), axis=0)
        different, at = np.unique(stages, return_inverse=True)
        products: np.ndarray = rotations(W.shape[1], seed)[different, np.newaxis] @ W
        return products[at]


def draw_wave(layers: Layers, seed: int, wave: Wave) -> np.ndarray:
    """The weights of all layers, float64, in the shape of ``draw_layers``: share ((1 - jitter) Q W + jitter Z).

    Z is random. Biases are small, the smaller the more layers there are: what each adds travels too, and all of it adds
    up. Without any a network of tanh is odd to begin with. ``ValueError`` for a pattern that carries nothing.
    """
    weights, stages = torch.from_numpy(draw_layers(layers, seed, "normal")), stages_of(len(layers), len(wave.roles))
    _check(layers)
    for run in layers.runs(weights):
        for operator, (role, share) in enumerate(zip(wave.roles, wave.shares, strict=True)):
            drawn, W = run.weights[:, operator], carrier(run.layout, role)
            for group in run.layout.groups:
                K = group.matrices(drawn).mul_(wave.jitter / RANDOM_NORM / np.sqrt(group.columns))
                turned = wave.turned(group.matrices(W).numpy(), seed, stages[run.layers, operator])
                K.add_(torch.from_numpy(turned), alpha=1 - wave.jitter).mul_(share)
        run.weights[:, :, run.layout.entries :] *= bias_deviation(len(layers))
    return weights.numpy()


def stages_of(layers: int, operators: int) -> np.ndarray:
    """(layers, operators) the stage of each; all are about as long, and the more layers there are, the fewer."""
    count = layers * operators
    stages = max(1, min(count, STAGES * SPREAD // max(layers, 1)))
    return (np.arange(count) * stages // max(count, 1)).reshape(layers, operators)


@lru_cache(maxsize=8)
def rotations(rows: int, seed: int) -> np.ndarray:
    """(STAGES, rows, rows) float64, orthogonal and uniformly distributed, for all agents with so many rows.

    By QR of standard normal matrices: Mezzadri, "How to generate random matrices from the classical compact groups",
    Notices of the AMS, 2007.
    """
    drawn = generator(seed, rows, TURN_STREAM).standard_normal((STAGES, rows, rows))
    Q, R = np.linalg.qr(drawn)
    turns: np.ndarray = Q * np.sign(np.diagonal(R, axis1=1, axis2=2))[:, np.newaxis]
    return turns


def bias_deviation(layers: int) -> float:
    """The standard deviation of each bias of so many layers."""
    return BIAS * min(1.0, SPREAD / max(layers, 1))


def carrier(layout: BlockLayout, role: str) -> Tensor:
    """(entries,) float64: W of that role as it lies in memory."""
    flat = torch.zeros(layout.entries, dtype=torch.float64)
    strength = strengths(layout.pattern, role == "rotation")
    for group in layout.groups:
        for number, agent in enumerate(group.agents.tolist()):
            reads = layout.pattern.reads(agent).tolist()
            blocks = group.matrix(flat, number).split(layout.halo.sizes[reads].tolist(), dim=1)
            for other, block, weight in zip(reads, blocks, strength[agent], strict=True):
                block.copy_(ROLES[role](weight, other == agent, *block.shape))
    return flat


def strengths(pattern: Pattern, stored_once: bool = False) -> list[list[float]]:
    """The factors of E_ik for the blocks that each agent reads, in their order; ``stored_once``: half of a skew one."""
    apart = pattern.rows != pattern.columns
    rows, columns = pattern.rows[apart], pattern.columns[apart]
    r, c = (np.bincount(ends, minlength=pattern.agents) for ends in (rows, columns))
    r, c = (r + c, r + c) if stored_once else (r, c)
    own = (r == 0) & (c == 0)
    each = np.full(len(apart), LAZY / (1 + LAZY))
    each[own[pattern.rows]] = 1.0
    each[apart] = 1 / (1 + LAZY) / np.sqrt(r[rows] * c[columns])
    return [part.tolist() for part in np.split(each, pattern.indptr[1:-1])]


def hops(courant: float) -> float:
    """How many edges a layer carries a wave at most.

    Its frequency, 2 asin(courant (LAZY + cos k) / (1 + LAZY)) / h on a ring, grows fastest with the wave number k where
    it is zero.
    """
    return 2 * courant * float(np.sqrt((1 - LAZY) / (1 + LAZY)))


def joined(rows: int, columns: int) -> Tensor:
    """E (rows, columns): ones where the features are the same modulo the smaller number, scaled to norm 1."""
    least = max(1, min(rows, columns))
    same = torch.arange(rows)[:, None] % least == torch.arange(columns) % least
    return same.double() / np.sqrt(-(-max(rows, columns) // least))


def _own(weight: float, own: bool, rows: int, columns: int) -> Tensor:
    return torch.eye(rows, columns, dtype=torch.float64) * own


def _neighbours(weight: float, own: bool, rows: int, columns: int) -> Tensor:
    return weight * joined(rows, columns)


def _halves(weight: float, own: bool, rows: int, columns: int) -> Tensor:
    """The first half of an agent reads itself, the second its neighbours."""
    first = _own(weight, own, rows // 2, columns // 2)
    return torch.block_diag(first, _neighbours(weight, own, rows - rows // 2, columns - columns // 2))


def _rotation(weight: float, own: bool, rows: int, columns: int) -> Tensor:
    """[0 E; -E 0], half of it on the diagonal, where U - U^T doubles it; of an odd feature nothing."""
    block, (m, n) = torch.zeros(rows, columns, dtype=torch.float64), (rows // 2, columns // 2)
    E = joined(m, n) * (weight / 2 if own else weight)
    block[:m, n : 2 * n], block[m : 2 * m, :n] = E, -E
    return block


ROLES: dict[str, Block] = {"own": _own, "neighbours": _neighbours, "halves": _halves, "rotation": _rotation}


def _check(layers: Layers) -> None:
    patterns = [layout.pattern for layout in layers.layouts]
    if all((pattern.rows == pattern.columns).all() for pattern in patterns):
        raise ValueError(
            "initial='wave' travels from neighbour to neighbour, but no agent reads another one here: "
            "give a graph or a pattern with edges, or use initial='scaled'"
        )
    for pattern in patterns:
        agents = np.arange(pattern.agents)
        without = agents[~pattern.contains(agents, agents)]
        if len(without):
            i = int(without[0])
            raise ValueError(
                f"initial='wave' needs every agent's own block, but the pattern has no ({i}, {i}): add it, "
                "or use initial='scaled'"
            )
