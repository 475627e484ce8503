"""Distributed problems and their dense answers: one check serves every architecture, placement and transport."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import oracle
import torch
from torch import Tensor

from hdnn_dist import HDNN, Agents, CommunicationGraph, Readout, place
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.model.coupling_builder import dense_coupling
from hdnn_dist.propagation.activations import Activation

TOLERANCE = 1e-10  # relative, in float64: contract 1


@dataclass(frozen=True)
class Problem:
    """A network on a graph. ``pattern``: pairs of T, default the graph; ``owner``: ranks, default METIS."""

    graph: CommunicationGraph
    features: tuple[int, ...]
    architecture: str
    layers: int = 3
    step: float = 0.3
    batch: int = 4
    positions: tuple[int, ...] = ()
    pattern: tuple[tuple[int, int], ...] | None = None
    owner: tuple[int, ...] | None = None
    store_every: int = 1
    seed: int = 0
    readers: tuple[int, ...] | None = None
    loss: str = "cross_entropy"
    extra: dict[str, int] = field(default_factory=dict)
    activation: str | Activation = "tanh"
    scheme: str | None = None
    coupling: str | Tensor | None = None
    damping: float = 0.0
    graphs: tuple[CommunicationGraph, ...] | None = None
    initial: str = "scaled"
    kernel: str = "auto"

    def default_coupling(self) -> Tensor:
        """J in the dense order, where none is given: one for each layer where J2 keeps to a graph per layer."""
        like = torch.empty((), dtype=torch.float64)
        graphs = self.graphs if self.graphs and self.architecture == "H1-J2" else (self.graph,)
        joined = [expand(self, torch.as_tensor(graph.matrix())) for graph in graphs]
        each = [oracle.coupling(self.architecture, self.features, one, like) for one in joined]
        return torch.stack(each) if len(each) > 1 else each[0]

    def agents(self, world: World) -> Agents:
        return place(self.graph, world, "auto" if self.owner is None else self.owner)

    def network(self, agents: Agents) -> HDNN:
        pattern = None if self.pattern is None else Pattern.from_pairs(self.graph.agents, self.pattern)
        return HDNN(
            agents,
            self.features,
            self.layers,
            self.step,
            self.architecture,
            self.seed,
            pattern=pattern,
            store_every=self.store_every,
            activation=self.activation,
            scheme=self.scheme,
            coupling=self.coupling,
            damping=self.damping,
            graphs=self.graphs,
            initial=self.initial,
            kernel=self.kernel,
            dtype=torch.float64,
        )

    def inputs(self) -> Tensor:
        """(batch, features of all agents, positions...), agent after agent, the same on every rank."""
        random = np.random.default_rng(self.seed + 1)
        return torch.as_tensor(random.standard_normal((self.batch, sum(self.features), *self.positions)))


def local_rows(agents: Agents, features: tuple[int, ...]) -> Tensor:
    """Rows of this rank's agents in the state of all agents."""
    starts = np.cumsum((0, *features))
    return torch.as_tensor(np.concatenate([np.arange(starts[a], starts[a + 1]) for a in agents.local]))


def relative_error(given: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected entry."""
    if expected.numel() == 0:
        assert given.shape == expected.shape
        return 0.0
    return float((given - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def expand(problem: Problem, blocks: Tensor) -> Tensor:
    """A matrix of blocks, entry by entry in the dense order."""
    sizes = torch.tensor(problem.features)
    state = blocks.repeat_interleave(sizes, 0).repeat_interleave(sizes, 1)
    order = oracle.dense_order(problem.features, oracle.halved(problem.architecture))
    return state[order][:, order]


def dense_answer(problem: Problem, K: Tensor, b: Tensor, J: Tensor, x: Tensor) -> Tensor:
    """The output for all agents, agent after agent, from the oracle."""
    order = oracle.dense_order(problem.features, oracle.halved(problem.architecture))
    samples = x.movedim(1, -1).reshape(-1, x.shape[1])[:, order]
    given = problem.activation
    s = oracle.ACTIVATIONS[given] if isinstance(given, str) else lambda z: CUSTOM_VALUE(z)
    euler = problem.scheme == "euler"
    y = oracle.propagate(problem.architecture, samples, K, b, J, problem.step, s, euler)[:, torch.argsort(order)]
    return y.reshape(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)


def CUSTOM_VALUE(z: Tensor) -> Tensor:
    """An activation of a user's own."""
    return z / (1 + z.square()).sqrt()


def check_against_oracle(problem: Problem, world: World) -> None:
    """Output, and gradients of the input, of K and b, and of a trained coupling, of sum(w * y): this rank's share.

    The dense matrices are those of all ranks, this rank's entries a function of its own weights.
    """
    agents = problem.agents(world)
    net = problem.network(agents)
    rows = local_rows(agents, problem.features)
    K, b, J = net.dense()
    for layer in range(problem.layers):
        assert not (K[layer] * ~dense_mask(problem, layer)).any(), "K has entries outside its pattern"
    own, own_C = net.weights.detach().clone().requires_grad_(), net.coupling.detach().clone().requires_grad_()
    filled = net.fill_dense(own)
    K, b = K + filled[0] - filled[0].detach(), b + filled[1] - filled[1].detach()
    J = expected_coupling(problem, net, J, own_C)
    x = problem.inputs().requires_grad_()
    w = torch.as_tensor(np.random.default_rng(7).standard_normal(x.shape))
    expected = dense_answer(problem, K, b, J, x)
    (w * expected).sum().backward()

    mine = x.detach()[:, rows].requires_grad_()
    given = net(mine)
    (w[:, rows] * given).sum().backward()
    assert relative_error(given.detach(), expected.detach()[:, rows]) < TOLERANCE
    assert relative_error(mine.grad, x.grad[:, rows]) < TOLERANCE
    assert relative_error(net.weights.grad, own.grad) < TOLERANCE
    if net.coupling.requires_grad:
        assert relative_error(net.coupling.grad, own_C.grad) < TOLERANCE
    check_tangent(problem, net, (K, b, J), rows)


def expected_coupling(problem: Problem, net: HDNN, J: Tensor, own: Tensor) -> Tensor:
    """J by the formulas; where it is given or trained, what dense() says, a function of this rank's blocks."""
    if problem.coupling is None:
        n = sum(problem.features)
        damped = problem.default_coupling() - problem.damping * torch.eye(n, dtype=torch.float64)
        assert torch.equal(J, damped)
        return damped
    if problem.coupling == "J2":
        return J
    if isinstance(problem.coupling, Tensor):
        return given_coupling(problem, J)
    C = dense_coupling(net.coupling_builder, net.coupling_spec, own)
    C = (C - C.detach()).squeeze(0)
    if problem.architecture == "H2":
        zero = torch.zeros_like(C)
        C = torch.cat([torch.cat([zero, -C.mT], 1), torch.cat([C, zero], 1)], 0)
    return J + C


def given_coupling(problem: Problem, J: Tensor) -> Tensor:
    """The J that was given, or the one of the X that was given, which dense() must return."""
    given = problem.coupling
    if problem.architecture == "H2":
        zero = torch.zeros_like(given)
        given = torch.cat([torch.cat([zero, -given.mT], -1), torch.cat([given, zero], -1)], -2)
    else:
        given = given - problem.damping * torch.eye(given.shape[-1], dtype=given.dtype)
    assert torch.equal(J, given)
    return given


def check_tangent(problem: Problem, net: HDNN, dense: tuple[Tensor, Tensor, Tensor], rows: Tensor) -> None:
    """The Jacobian-vector product of forward mode against torch's own of the oracle."""
    x = problem.inputs()
    dx = torch.as_tensor(np.random.default_rng(9).standard_normal(x.shape))
    fixed = [part.detach() for part in dense]
    y, dy = torch.func.jvp(lambda x: dense_answer(problem, *fixed, x), (x,), (dx,))
    given = net.tangent(x[:, rows], dx[:, rows])
    assert relative_error(given[0], y[:, rows]) < TOLERANCE
    assert relative_error(given[1], dy[:, rows]) < TOLERANCE


def dense_mask(problem: Problem, layer: int) -> Tensor:
    """Where K may be non-zero, in the dense order, written out from the pairs of T."""
    graph = problem.graph if problem.graphs is None else problem.graphs[layer]
    blocks = torch.as_tensor(graph.matrix())
    if problem.pattern is not None:
        blocks = torch.zeros_like(blocks)
        blocks[tuple(torch.tensor(problem.pattern).T)] = True
    whole, n = expand(problem, blocks), sum(problem.features)
    quarters = {"H2": [(0, 0), (1, 1)], "MS1": [(1, 0)], "MS3": [(1, 0), (0, 1)]}.get(problem.architecture)
    if quarters is None:
        return whole
    mask = torch.zeros_like(whole).view(2, n // 2, 2, n // 2)
    for row, column in quarters:
        mask[row, :, column] = whole.view(2, n // 2, 2, n // 2)[row, :, column]
    mask = mask.view(n, n)
    return mask | mask.T if problem.architecture == "MS1" else mask


def check_readout(problem: Problem, world: World) -> None:
    """Logits, loss, right answers, and every gradient through the head, against dense matrices."""
    agents = problem.agents(world)
    net = problem.network(agents)
    head = Readout(
        agents, net, classes=problem.extra.get("classes", 3), loss=problem.loss, at=problem.readers,
        root=problem.extra.get("root"), positions=problem.positions,
    )  # fmt: skip
    labels = make_labels(problem, head)
    x = problem.inputs()
    rows = local_rows(agents, problem.features)
    y = x[:, rows].clone().requires_grad_()
    loss = head.loss(y, labels if head.tree.is_root else None)
    loss.backward()
    W, c = dense_head(problem, agents, head)
    W, c, full = W.requires_grad_(), c.requires_grad_(), x.clone().requires_grad_()
    logits = full.flatten(1) @ W.T + c
    expected = head.criterion.value(logits, labels)
    expected.backward()
    assert relative_error(loss.detach(), expected.detach()) < TOLERANCE
    assert head.correct == head.criterion.correct(logits, labels)
    assert relative_error(y.grad, full.grad[:, rows]) < TOLERANCE
    if head.weights.numel():
        assert relative_error(head.weights.grad, mine(problem, agents, head, W.grad)) < TOLERANCE
    if head.tree.is_root:
        assert relative_error(head.bias.grad, c.grad) < TOLERANCE
    check_eager(head, y, loss, labels if head.tree.is_root else None)
    check_logits(head, y, logits.detach(), full, loss, labels)


def check_eager(head: Readout, y: Tensor, loss: Tensor, labels: Tensor | None) -> None:
    """``backward`` is ``loss`` and its backward pass, bit for bit, and adds to the gradients that are there.

    A state that needs no gradient gets none; torch may multiply it in another order.
    """
    once = [part.grad for part in (y, *head.parameters()) if part.grad is not None]
    again = y.detach().clone().requires_grad_()
    for times in (1, 2):
        for part in (again, *head.parameters()) if times == 1 else ():
            part.grad = None
        assert torch.equal(head.backward(2 * again / 2, labels), loss.detach())
        twice = [part.grad for part in (again, *head.parameters()) if part.grad is not None]
        assert len(twice) == len(once)
        assert all(torch.equal(now, times * before) for now, before in zip(twice, once, strict=True))
    assert relative_error(head.backward(y.detach(), labels), loss.detach()) < TOLERANCE


def check_logits(head: Readout, y: Tensor, logits: Tensor, full: Tensor, loss: Tensor, labels: Tensor) -> None:
    """``head(y)``: the logits at the root, and the gradient of ``loss`` when the root makes its own of them."""
    again = y.detach().clone().requires_grad_()
    own = head(again)
    assert own.shape == ((len(logits), head.outputs) if head.tree.is_root else (len(logits), 0))
    if head.tree.is_root:
        assert relative_error(own.detach(), logits) < TOLERANCE
    value = head.criterion.value(own, labels) if head.tree.is_root else own.sum()
    value.backward()
    assert relative_error(again.grad, y.grad) < TOLERANCE


def make_labels(problem: Problem, head: Readout) -> Tensor:
    random = np.random.default_rng(5)
    if problem.loss == "mean_squared_error":
        return torch.as_tensor(random.standard_normal((problem.batch, head.classes)))
    return torch.as_tensor(random.integers(0, head.classes, problem.batch))


def dense_head(problem: Problem, agents: Agents, head: Readout) -> tuple[Tensor, Tensor]:
    """(outputs, features of all agents times positions) and (outputs,), collected along the tree."""
    W = torch.zeros(head.outputs, sum(problem.features), *problem.positions, dtype=torch.float64)
    W[:, reader_rows(problem, agents, head)] = head.weights.detach().view(head.outputs, -1, *problem.positions)
    c = head.bias.detach() if head.tree.is_root else torch.zeros(head.outputs, dtype=torch.float64)
    return head.everyone.sum(W).flatten(1), head.everyone.sum(c)


def mine(problem: Problem, agents: Agents, head: Readout, W: Tensor) -> Tensor:
    """This rank's columns of a dense head."""
    return W.view(head.outputs, -1, *problem.positions)[:, reader_rows(problem, agents, head)].flatten(1)


def reader_rows(problem: Problem, agents: Agents, head: Readout) -> Tensor:
    starts = np.cumsum((0, *problem.features))
    read = [a for a in agents.local if a in head.at]
    return torch.tensor([row for a in read for row in range(starts[a], starts[a + 1])], dtype=torch.long)
