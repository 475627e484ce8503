"""What shared weights hold on every rank, beside dense matrices with tied blocks, written from the formulas."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracle
import torch
import torch.nn.functional as F
from battery import ALONE, shared_folder
from problems import TOLERANCE, local_rows, relative_error
from rank_checks import main
from safetensors.torch import load_file
from torch import Tensor

from hdnn_dist import HDNN, AgentReadouts, Agents, CommunicationGraph, Readout, clip_grad_norm_, place
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.edge_labels import labels_of  # noqa: F401
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.model.shared import SharedWeights
from hdnn_dist.runs.checkpointing import Checkpointer
from hdnn_dist.runs.index import complete
from hdnn_dist.runs.resume import about, find, put_back
from hdnn_dist.support.asked import Asked
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.loop import Epoch, Trainer

ARCHITECTURES = ("H2", "H1-J1", "H1-J2", "MS1", "MS2", "MS3", "MLP")
NOT_COPIED = ("H2", "MS1", "MS3")  # by the kernel "shared"
MIXED = CommunicationGraph.erdos_renyi(9, 0.35, seed=2)  # degrees from 1 to 5
STEP = 0.3
LOSS = "mean_squared_error"


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


def network(
    world: World, architecture: str, graph: CommunicationGraph = MIXED, kernel: str = "torch", **options: object
) -> HDNN:
    return HDNN(
        place(graph, world),
        4,
        3,
        STEP,
        architecture,
        seed=5,
        shared=True,
        dtype=torch.float64,
        kernel=kernel,
        **options,
    )


def equals_a_dense_oracle(world: World) -> None:
    """Output and gradients of the input and of the shared blocks, which are the same bits on every rank."""
    ring = CommunicationGraph.ring(9)
    for architecture in ARCHITECTURES:
        for graph, labels in ((MIXED, None), (ring, "direction")):
            for kernel in ("torch", *["shared"] * (architecture in NOT_COPIED)):
                _equal(network(world, architecture, graph, kernel, edge_labels=labels), architecture)


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


def copies_change_no_message(world: World) -> None:
    """With a copy of the weights for each agent, or without, the same messages and bytes pass each edge."""
    for architecture in NOT_COPIED:
        seen = []
        for kernel in ("torch", "shared"):
            net = network(world, architecture, MIXED, kernel)
            assert net.kernel_for(3) == kernel
            x = torch.ones(3, net.local_features, dtype=torch.float64, requires_grad=True)
            net(x).sum().backward()
            net.tangent(x.detach(), torch.ones_like(x))
            seen.append(net.agents.ledger.directed())
        assert np.array_equal(*seen)


def heads_share_too(world: World) -> None:
    """Loss and gradients of one W for all agents, by either way back, beside the sums written out; agents 1 to 4 are
    read, which not every rank has.
    """
    for kind in (AgentReadouts, Readout):
        net = network(world, "H2")
        agents, n, at = net.agents, MIXED.agents, range(1, 5)
        x, answers = _sample(n)
        of_agents = kind is AgentReadouts
        head = (
            kind(agents, net, dict.fromkeys(at, 3), shared=True)
            if of_agents
            else kind(agents, net, 3, LOSS, at=at, shared=True)
        )
        W, c = (part.detach().clone().requires_grad_() for part in (head.shared.weights, head.shared.bias))
        y = x.clone().requires_grad_()
        each = y.view(-1, n, 4)[:, 1:5] @ W.T + c
        expected = (
            ((each if of_agents else each.mean(1, keepdim=True)) - answers[:, : each.shape[1] if of_agents else 1])
            .square()
            .mean()
        )
        expected.backward()
        here = [agent - 1 for agent in agents.local.tolist() if agent in at]
        labels = answers[:, here].flatten(1) if of_agents else answers[:, 0]
        rows = local_rows(agents, (4,) * n)
        for way in ("loss", "backward"):
            mine = x[:, rows].requires_grad_()
            head.zero_grad()
            loss = getattr(head, way)(mine, labels if here or not of_agents else None)
            if way == "loss":
                loss.backward()
            assert relative_error(loss.detach(), expected.detach()) < TOLERANCE
            assert relative_error(mine.grad, y.grad[:, rows]) < TOLERANCE
            for given, own in ((head.shared.weights, W), (head.shared.bias, c)):
                assert relative_error(given.grad, own.grad) < TOLERANCE


def a_lift_is_shared_too(world: World) -> None:
    """Kernels and biases are one for all agents; each rank lifts for its own, and the gradient is that of all."""
    net = network(world, "H2")
    lift, n = ConvolutionalLift(net, 2), MIXED.agents
    random = np.random.default_rng(6)
    images, w = (torch.as_tensor(random.standard_normal((3, count, 4, 4))) for count in (2, 4 * n))
    W, c = (part.detach().clone().requires_grad_() for part in (lift.shared.weights, lift.shared.bias))
    expected = F.conv2d(images, W.repeat(n, 1, 1, 1), c.repeat(n), padding=1)
    (w * expected).sum().backward()
    rows = local_rows(net.agents, (4,) * n)
    given = lift(images)
    (w[:, rows] * given).sum().backward()
    assert relative_error(given.detach(), expected.detach()[:, rows]) < TOLERANCE
    assert relative_error(lift.shared.weights.grad, W.grad) < TOLERANCE
    assert relative_error(lift.shared.bias.grad, c.grad) < TOLERANCE
    net(lift(images)).sum().backward()  # sums of the network and of the lift, in one order on all ranks
    other = network(ALONE, "H2")
    alone = ConvolutionalLift(other, 2)
    other(alone(images)).sum().backward()
    assert relative_error(lift.shared.weights.grad - W.grad, alone.shared.weights.grad) < 1e-9
    assert relative_error(net.shared.roles.grad, other.shared.roles.grad) < 1e-9


def _sample(n: int) -> tuple[Tensor, Tensor]:
    """Inputs (5, 4 n) and answers (5, 4, 3)."""
    random = np.random.default_rng(3)
    return tuple(torch.as_tensor(random.standard_normal(shape)) for shape in ((5, 4 * n), (5, 4, 3)))


def trains_alike(world: World) -> None:
    """Steps of Adam with a clipped gradient are those of one process, and the same bits on every rank."""
    found = [_trained(place(MIXED, each)) for each in (world, ALONE)]
    for here, alone in zip(*found, strict=True):
        assert relative_error(here, alone) < 1e-9


def _trained(agents: Agents) -> list[Tensor]:
    net = HDNN(agents, 4, 3, STEP, seed=5, shared=True, dtype=torch.float64, kernel="torch")
    head = AgentReadouts(agents, net, dict.fromkeys(range(MIXED.agents), 2), shared=True)
    parameters = [*net.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    x = _sample(MIXED.agents)[0][:, local_rows(agents, (4,) * MIXED.agents)]
    labels = x.view(5, -1, 4)[..., :2].flatten(1)
    for _ in range(4):
        optimizer.zero_grad()
        head.loss(net(x), labels).backward()
        clip_grad_norm_(parameters, 0.05, net.tree)
        optimizer.step()
    own = torch.cat([part.detach().flatten() for part in parameters])
    every = net.tree.collect(own)
    assert torch.equal(every, own.expand_as(every))
    return [own]


def one_message_up_and_one_down(world: World) -> None:
    """What sharing adds to a pass and its way back: the gradient, once each way on every edge of the tree."""
    spent = []
    for shared in (False, True):
        agents = place(MIXED, world)
        net = HDNN(agents, 4, 3, STEP, shared=shared, dtype=torch.float64, kernel="torch")
        x = torch.ones(2, net.local_features, dtype=torch.float64)
        net(x).sum().backward()
        before = agents.ledger.traffic()
        net(x).sum().backward()
        spent.append(net.tree.sum(torch.as_tensor((agents.ledger.traffic() - before).vector())))
    more = spent[1] - spent[0]
    assert more[0] == 2 * (MIXED.agents - 1)
    assert more[1] == 2 * (MIXED.agents - 1) * net.shared.roles.numel() * 8


TINY = (
    "data.samples=120", "batch_size=30", "epochs=2", "network.layers=2", "network.kernel=torch", "network.shared=true",
    "readout.shared=true", "optimizer.clip=0.1", "penalties.bound=1000", "record_gradients=true", "check_finite=true",
)  # fmt: skip


def trainer(world: World, *settings: str) -> Trainer:
    config = load_config(None, [*TINY, *settings])
    return Trainer(build(config, CommunicationGraph.parse(config.graph), world))


def goes_on_from_files(world: World) -> None:
    """Checkpoints hold each block once; these ranks and one alone find the same bits in them, and end alike."""
    with tempfile.TemporaryDirectory() as own:
        first = trainer(world)
        tree = first.job.head.everyone
        folder = shared_folder(first.job.agents, Path(own))
        checkpoints = Checkpointer(first, folder, about(first.job), {}, Asked())
        rows = first.run(lambda *_: None, _made_once(checkpoints)).epochs
        names = [name for file in sorted(complete(folder)[-1].glob("rank-*")) for name in load_file(file)]
        assert sorted(names) == sorted([*first.job.net.trained_names(), *first.job.head.trained_names()])
        for reader in (world, ALONE):
            second = trainer(reader)
            found = find(second.job, complete(folder)[-1:], fall_back=False)
            put_back(second, found)
            again = second.run(lambda *_: None, lambda _: None).epochs
            for given, expected in zip(second.parameters, first.parameters, strict=True):
                assert relative_error(given.detach(), expected.detach()) < 1e-5
                assert reader is ALONE or torch.equal(given, expected)
            norms = [torch.tensor([line.norms for line in run[-1].gradients]) for run in (again, rows)]
            assert torch.allclose(*norms, rtol=1e-4)
        tree.sum(torch.zeros(1))  # the root's folder stays until all have read


def _made_once(checkpoints: Checkpointer) -> Callable[[Epoch], None]:
    def on_epoch(row: Epoch) -> None:
        if row.epoch == 1:
            checkpoints.make()
            checkpoints.finish_writing()

    return on_epoch


CHECKS = (
    equals_a_dense_oracle,
    copies_change_no_message,
    heads_share_too,
    a_lift_is_shared_too,
    trains_alike,
    one_message_up_and_one_down,
    goes_on_from_files,
)


if __name__ == "__main__":
    main(CHECKS)
