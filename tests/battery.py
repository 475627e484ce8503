"""The contract on every rank of a real job: started by test_ranks.py under torchrun and mpiexec.

usage: battery.py FOLDER. Writes FOLDER/RANK.json, check -> "ok" or the traceback.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import GOLDEN, check_against_published
from problems import TOLERANCE, Problem, check_against_oracle, check_readout, local_rows, relative_error
from rank_checks import main
from torch import Tensor

from hdnn_dist import HDNN, Agents, CommunicationGraph, Readout, place
from hdnn_dist.analysis.bounds import bounds
from hdnn_dist.analysis.effects import effects
from hdnn_dist.analysis.lanczos import extremes
from hdnn_dist.analysis.sensitivity import exact, forward_exact, single_layers
from hdnn_dist.analysis.transport import transport
from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.halo import Halo
from hdnn_dist.exchange.ledger import OffGraphError
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.exchange.transports.local import LocalWorld
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.kernels.registry import KernelWarning
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.model.norms import coupling_norm, operator_norms
from hdnn_dist.runs.checkpoint import load_weights, save_weights
from hdnn_dist.training.gradients import GradientRecord
from hdnn_dist.training.regularization import SpectralProjection

ALONE = LocalWorld(torch.device("cpu"))
UNEVEN = (2, 4, 2, 6, 2, 4, 8, 2, 4)


WHOLE_FAMILY = (1, 2, 4)  # ranks; on others the first two stand for all, for the sake of time


def architectures(world: World) -> tuple[str, ...]:
    """The architectures to be checked on this number of ranks."""
    every = ("H2", "H1-J1", "MS1", "MS2", "MS3", "H1-J2", "MLP")
    return every if world.size in WHOLE_FAMILY else every[:2]


def spread(world: World, agents: int, seed: int) -> tuple[int, ...]:
    """A placement by hand that scatters the agents, so that a rank's agents need not be neighbours."""
    owner = np.arange(agents) % world.size
    return tuple(np.random.default_rng(seed).permutation(owner).tolist())


def asymmetric(graph: CommunicationGraph, seed: int) -> tuple[tuple[int, int], ...]:
    """All self-loops and half of the other blocks of the graph, T_ik without T_ki among them."""
    random = np.random.default_rng(seed)
    pairs = zip(*np.nonzero(graph.matrix()), strict=True)
    return tuple((int(i), int(k)) for i, k in pairs if i == k or random.random() < 0.5)


def links(world: World) -> None:
    """All ranks are of one host, so every edge between two of them has the link that was asked for."""
    agents = place(CommunicationGraph.ring(8), world)
    expected = "shared memory" if world.links == "auto" else world.network
    assert agents.links == dict.fromkeys(agents.peers, expected)


def oracle_checks(world: World) -> None:
    graph = CommunicationGraph.erdos_renyi(9, 0.4, seed=2)
    ring = CommunicationGraph.ring(8)
    for number, architecture in enumerate(architectures(world)):
        check_against_oracle(Problem(ring, (2,) * 8, architecture), world)
        check_against_oracle(Problem(graph, UNEVEN, architecture, seed=number), world)
        check_against_oracle(Problem(graph, UNEVEN, architecture, owner=spread(world, 9, number)), world)
        cut = asymmetric(graph, number) if architecture != "MS2" else None
        check_against_oracle(
            Problem(graph, UNEVEN, architecture, pattern=cut, owner=spread(world, 9, 5), store_every=2), world
        )
        check_against_oracle(Problem(CommunicationGraph.star(8), (4,) * 8, architecture, positions=(3, 2)), world)


def published_checks(world: World) -> None:
    """The authors' code, in float64."""
    if world.size in WHOLE_FAMILY:
        for name in GOLDEN:
            check_against_published(name, world)


def coupling_checks(world: World) -> None:
    """J and X across agents: given, one per layer, damped and trained; forward Euler; a graph per layer."""
    if world.size not in WHOLE_FAMILY:
        return
    graph, features = CommunicationGraph.grid(3, 3), (4,) * 9
    J = graph_matrix(graph, 4, 3)
    X = torch.eye(18, dtype=torch.float64) + 0.2 * graph_matrix(graph, 2, 3)
    for owner in (None, spread(world, 9, 4)):
        for coupling in (J[0] - J[0].mT, J - J.mT, "trained", "J2"):
            check_against_oracle(Problem(graph, features, "H1", coupling=coupling, damping=0.2, owner=owner), world)
        for coupling in (X[0], X, "trained"):
            check_against_oracle(Problem(graph, features, "H2", coupling=coupling, owner=owner), world)
        graphs = (CommunicationGraph.path(9), CommunicationGraph.ring(9), CommunicationGraph.path(9))
        ring = CommunicationGraph.ring(9)
        for architecture, coupling in (("H2", None), ("H2", "trained"), ("H1-J2", None), ("H1", "trained")):
            problem = Problem(ring, features, architecture, graphs=graphs, coupling=coupling, owner=owner)
            check_against_oracle(problem, world)
        own = torch.cat([graph_matrix(each, 4, 1) for each in graphs])
        check_against_oracle(Problem(ring, features, "H1", graphs=graphs, coupling=own - own.mT, owner=owner), world)
        for architecture in ("H2", "MS1", "MS3"):
            check_against_oracle(Problem(graph, features, architecture, scheme="euler", owner=owner), world)


def graph_matrix(graph: CommunicationGraph, features: int, layers: int) -> Tensor:
    """(layers, n, n) random, zero between agents that are not neighbours."""
    mask = torch.as_tensor(graph.pattern().mask(np.full(graph.agents, features)))
    return torch.randn(layers, *mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6)) * mask


def readout_checks(world: World) -> None:
    graph = CommunicationGraph.grid(3, 3)
    for owner in (None, spread(world, 9, 1)):
        check_readout(Problem(graph, UNEVEN, "H2", owner=owner), world)
        check_readout(Problem(graph, UNEVEN, "H2", owner=owner, readers=(8,), extra={"root": 0}), world)
        check_readout(Problem(graph, UNEVEN, "H2", owner=owner, readers=(2, 6), loss="mean_squared_error"), world)
        check_readout(
            Problem(graph, UNEVEN, "H2", owner=owner, readers=(4,), loss="binary_cross_entropy", extra={"classes": 2}),
            world,
        )
        check_readout(Problem(graph, UNEVEN, "H2", owner=owner, positions=(2,)), world)


def adjoint(world: World) -> None:
    """<gather x, y> = <x, scatter_add y> summed over all ranks: contract 2."""
    graph = CommunicationGraph.erdos_renyi(9, 0.4, seed=2)
    for owner in ("auto", spread(world, 9, 3)):
        agents = place(graph, world, owner)
        halo = Halo(agents, graph.pattern(), np.array(UNEVEN))
        random = torch.Generator().manual_seed(world.rank)
        x, y = halo.buffer(5, torch.float64), halo.buffer(5, torch.float64)
        x.local.normal_(generator=random)
        y.data.normal_(generator=random)
        x_before, y_before = x.local.clone(), y.data.clone()
        x.gather()
        y.scatter_add()
        sides = torch.stack([(x.data * y_before).sum(), (x_before * y.local).sum()])
        left, right = SumTree(agents).sum(sides)
        assert abs(left - right) <= 1e-12 * abs(left), (left, right)
        assert world.size == 1 or len(x.halo), "this graph should need a halo"


class _Share(torch.autograd.Function):
    """Take this rank's part of a vector that all ranks hold; the gradients of all parts come back to every rank."""

    @staticmethod
    def forward(ctx, whole: Tensor, index: Tensor, tree: SumTree) -> Tensor:
        ctx.tree, ctx.shape = tree, whole.shape
        ctx.save_for_backward(index)
        return whole[index]

    @staticmethod
    def backward(ctx, grad: Tensor):
        (index,) = ctx.saved_tensors
        return ctx.tree.sum(grad.new_zeros(ctx.shape).index_add(0, index, grad)), None, None


def gradcheck(world: World) -> None:
    """torch's own finite differences of the loss, by every input and every weight of every rank: contract 2."""
    trained = (("H1", "trained"), ("H2", "trained")) if world.size in WHOLE_FAMILY else ()
    for architecture, coupling in (*((name, None) for name in architectures(world)), *trained):
        agents = place(CommunicationGraph.path(max(world.size, 3)), world)
        net = HDNN(agents, 2, 2, 0.4, architecture, coupling=coupling, dtype=torch.float64)
        head = Readout(agents, net, classes=3)
        labels = torch.tensor([0, 2]) if head.tree.is_root else None
        shapes = {name: part.shape for name, part in net.named_parameters()}
        counts = torch.zeros(world.size, dtype=torch.float64)
        counts[world.rank] = sum(shape.numel() for shape in shapes.values())
        starts = torch.cumsum(torch.cat([counts.new_zeros(1), head.everyone.sum(counts)]), 0).long()
        span = torch.arange(starts[world.rank], starts[world.rank + 1])
        random = torch.Generator().manual_seed(3)
        whole = torch.randn(int(starts[-1]), dtype=torch.float64, generator=random)
        x = torch.randn(2 * agents.graph.agents, 2, dtype=torch.float64, generator=random)
        rows = local_rows(agents, (2,) * agents.graph.agents)

        def loss(theta: Tensor, x: Tensor) -> Tensor:
            share = _Share.apply(theta, span, head.everyone)  # noqa: B023  used in this turn of the loop only
            parts = share.split([shape.numel() for shape in shapes.values()])  # noqa: B023
            given = {name: part.view(shapes[name]) for name, part in zip(shapes, parts, strict=True)}  # noqa: B023
            state = _Share.apply(x, rows, head.everyone).T  # noqa: B023
            return head.loss(torch.func.functional_call(net, given, (state,)), labels)  # noqa: B023

        assert torch.autograd.gradcheck(loss, (whole.requires_grad_(), x.requires_grad_()))


def same_start(world: World) -> None:
    """The parameters do not depend on the ranks, bit for bit; a rank stores only its own rows: contract 3 and 5."""
    graph = CommunicationGraph.watts_strogatz(9, 4, 0.3, seed=1)
    for initial in ("scaled", "normal", "wave"):
        for dtype in (torch.float32, torch.float64):
            alone = HDNN(place(graph, ALONE), UNEVEN, 4, seed=11, initial=initial, dtype=dtype)
            agents = place(graph, world, spread(world, 9, 2))
            net = HDNN(agents, UNEVEN, 4, seed=11, initial=initial, dtype=dtype)
            for given, expected in zip(net.dense(), alone.dense(), strict=True):
                assert torch.equal(given, expected)
            stored = SumTree(agents).sum(torch.tensor([float(net.weights.numel())]))
            assert stored == alone.weights.numel()
            reads = sum(UNEVEN[k] // 2 * UNEVEN[i] // 2 for i in agents.local for k in net.pattern.reads(i))
            biases = sum(UNEVEN[i] // 2 for i in agents.local)
            assert net.weights.numel() == 4 * 2 * (reads + biases)


def same_training(world: World) -> None:
    """Ten steps of Adam in float64 end in the same loss as in one process, to rounding: contract 3.

    On their way the gradients of all layers have the same norms.
    """
    losses, norms = zip(*(train(place(CommunicationGraph.ring(8), each)) for each in (world, ALONE)), strict=True)
    assert relative_error(*losses) < 1e-9
    assert relative_error(*norms) < 1e-9


def projection(world: World) -> None:
    """The projection scales the same rows by the same numbers on any ranks, behind any coupling."""
    graph = CommunicationGraph.grid(3, 3)
    for name in ("H2", "H1-J2", "MS2"):
        nets = [HDNN(place(graph, each), 4, 3, architecture=name, dtype=torch.float64) for each in (world, ALONE)]
        for net in nets:
            SpectralProjection(net, bound=1.5)()
        given, expected = (net.dense().K for net in nets)
        assert relative_error(given, expected) < 1e-12
        assert relative_error(expected, HDNN(nets[1].agents, 4, 3, architecture=name).dense().K.double()) > 1e-3


def train(agents: Agents) -> tuple[Tensor, Tensor]:
    """(loss, gradient norms (steps, layers)), on every rank."""
    net = HDNN(agents, 2, 6, 0.2, dtype=torch.float64)
    head = Readout(agents, net)
    optimizer = torch.optim.Adam([*net.parameters(), *(p for p in head.parameters() if p.numel())], lr=0.05)
    x = torch.as_tensor(np.random.default_rng(0).standard_normal((20, 16)))
    labels = (x[:, 0] * x[:, 8] > 0).long() if head.tree.is_root else None
    record = GradientRecord(net, head.everyone, 10)
    for _ in range(10):
        loss = head.loss(net(x[:, local_rows(agents, (2,) * 8)]), labels)
        optimizer.zero_grad()
        loss.backward()
        record.add()
        optimizer.step()
    return loss.detach(), torch.tensor([step.norms for step in record.take()])


def traffic(world: World) -> None:
    """Graph traffic does not depend on the ranks; wire traffic is what must cross, fused by rank pair: contract 4."""
    graph, totals = CommunicationGraph.grid(3, 3), []
    for each in (world, ALONE):
        agents = place(graph, each, "auto" if each is world else "contiguous")
        net = HDNN(agents, 2, 3)
        x = torch.zeros(5, net.local_features)
        net(x)  # what ranks have to have in common is compared before the first step
        before = agents.ledger.traffic()
        net(x).sum().backward()
        spent = agents.ledger.traffic() - before
        peers = {int(rank) for a in agents.local for rank in agents.owner[graph.neighbours(a)]} - {each.rank}
        exchanges = 3 * 2 * 2 * 2  # layers, half-steps, gather and scatter-add, forward and backward
        assert spent.wire_messages == exchanges * len(peers)
        totals.append(SumTree(agents).sum(torch.as_tensor(spent.vector())))
    both = torch.stack(totals)[:, [0, 1, *range(4, totals[0].numel())]]
    assert torch.equal(both[0], both[1])
    assert both[0, 0] == 3 * 2 * 2 * 2 * 2 * len(graph.edges)


def off_graph(world: World) -> None:
    """A planted message between agents that are not neighbours raises on every rank, before it is sent."""
    agents = place(CommunicationGraph.path(8), world)
    with pytest.raises(OffGraphError, match="agent 7 to agent 0"):
        Halo(agents, Pattern.from_pairs(8, [(i, i) for i in range(8)] + [(0, 7)]), np.ones(8, dtype=np.int64))
    assert agents.ledger.off_graph_messages == 1
    stranger = next((rank for rank in range(world.size) if abs(rank - world.rank) > 1), None)
    if stranger is not None:
        halo = Halo(agents, agents.graph.pattern(), np.ones(8, dtype=np.int64))
        with pytest.raises(OffGraphError, match=f"no agent here has a neighbour on rank {stranger}"):
            world.channel(halo.gather_route, sends={stranger: torch.zeros(1)}, receives={})


def fail_on(world: World, rank: int, message: str, agents: Agents) -> None:
    with agreed(SumTree(agents, root=3)):
        if world.rank == rank:
            raise ValueError(message)


def failures_are_shared(world: World) -> None:
    """What fails on one rank fails on all, with its reason: contract 8."""
    agents = place(CommunicationGraph.path(8), world)
    last, missing = world.size - 1, "the file of the last rank is missing"
    told = missing if world.rank == last else f"rank {last}: {missing}"
    with pytest.raises(ValueError, match=f"^{told}$"):
        fail_on(world, last, missing, agents)
    net = HDNN(agents, 2, 1)
    head = Readout(agents, net, classes=2, root=7)
    labels = torch.tensor([0, 1, 2]) if head.tree.is_root else None
    told = "labels run from 0 to 2" if head.tree.is_root else "refused its labels"
    with pytest.raises(ValueError, match=told):
        head.loss(torch.zeros(3, net.local_features), labels)
    with pytest.raises(ValueError, match=told):
        head.backward(torch.zeros(3, net.local_features, requires_grad=True), labels)


def lift_checks(world: World) -> None:
    """Kernels do not depend on the ranks, bit for bit; nor do loss and gradients, to rounding; no message is sent."""
    graph = CommunicationGraph.grid(3, 3)
    for architecture in architectures(world)[:2]:
        alone, spread_out = (
            lifted(place(graph, each, owner), architecture)
            for each, owner in ((ALONE, "auto"), (world, spread(world, 9, 6)))
        )
        assert torch.equal(spread_out[0], alone[0])
        assert all(relative_error(*pair) < 1e-10 for pair in zip(spread_out, alone, strict=True))


def lifted(agents: Agents, architecture: str) -> tuple[Tensor, ...]:
    """(kernels, loss, gradients of kernels, biases and images) of all agents, on every rank."""
    net = HDNN(agents, UNEVEN, 2, 0.3, architecture, seed=4, dtype=torch.float64)
    lift, head = ConvolutionalLift(net), Readout(agents, net, classes=3, positions=(4, 3))
    x = torch.as_tensor(np.random.default_rng(7).standard_normal((5, 1, 4, 3))).requires_grad_()
    before = agents.ledger.traffic().vector()
    state = lift(x)
    assert np.array_equal(agents.ledger.traffic().vector(), before)
    loss = head.loss(net(state), torch.tensor([0, 2, 1, 1, 0]) if head.tree.is_root else None)
    loss.backward()
    rows = local_rows(agents, UNEVEN)

    def of_all(part: Tensor) -> Tensor:
        return head.everyone.sum(part.new_zeros(sum(UNEVEN), *part.shape[1:]).index_copy(0, rows, part))

    kernels = of_all(lift.weights.detach())
    return kernels, loss.detach(), of_all(lift.weights.grad), of_all(lift.bias.grad), head.everyone.sum(x.grad)


def sensitivity_checks(world: World) -> None:
    """BSMs, their norms and bounds, and how far a change gets, are those of one process, whatever the placement."""
    graph, features = CommunicationGraph.grid(3, 3), (2,) * 9
    x = torch.as_tensor(np.random.default_rng(4).standard_normal((1, 18)))
    for architecture in ("H2", "H1-J2"):
        found = []
        for each, owner in ((ALONE, "auto"), (world, spread(world, 9, 5))):
            agents = place(graph, each, owner)
            net = HDNN(agents, 2, 6, 0.2, architecture, seed=3, initial="normal", dtype=torch.float64)
            mine = x[:, local_rows(agents, features)]
            whole = torch.stack([M for _, M in exact(net, mine, [3, 6])])
            forward = torch.stack([M for _, M in forward_exact(net, mine, [6])])
            layers = torch.stack(list(single_layers(net, mine)))
            estimated = torch.tensor(extremes(net, mine, 6)[:2], dtype=torch.float64)
            limits = torch.tensor([bounds(net).log_upper(6), bounds(net).log_continuous(6)])
            figures = torch.tensor([*effects(net, mine).values(), coupling_norm(net)])
            norms = torch.as_tensor(transport(net, mine, 7).norms)
            found.append((whole, forward, layers, estimated, limits, figures, norms, operator_norms(net)))
            values = torch.linalg.svdvals(whole)
            assert relative_error(forward[0], whole[1]) < TOLERANCE
            assert torch.allclose(estimated, values[1, [0, -1]], rtol=1e-3)
        for given in found[1:]:
            assert all(relative_error(part, alone) < 1e-9 for part, alone in zip(given, found[0], strict=True))


def checkpoint_checks(world: World) -> None:
    """Every rank writes its agents; another placement, and one process, read them: bit for bit."""
    graph = CommunicationGraph.watts_strogatz(9, 4, 0.3, seed=1)
    agents = place(graph, world, spread(world, 9, 2))
    with tempfile.TemporaryDirectory() as own:
        folder = shared_folder(agents, Path(own))
        with agreed(SumTree(agents)):
            net, head = parts(agents, seed=1)
            save_weights(net, [head], folder)
        for reader in (place(graph, world), place(graph, ALONE)):
            net, head = parts(reader, seed=2)
            load_weights(net, [head], folder)
            expected, expected_head = parts(reader, seed=1)
            assert torch.equal(net.weights, expected.weights)
            assert torch.equal(head.weights, expected_head.weights)
        SumTree(agents).sum(torch.zeros(1))  # the root's folder stays until all have read


def other_numbers(world: World) -> None:
    """Types that only torch knows travel too: what leaves a rank is bytes."""
    graph = CommunicationGraph.ring(9)
    agents = place(graph, world, spread(world, 9, 3))
    mine = torch.as_tensor(np.random.default_rng(5).standard_normal((4, 18)))[:, local_rows(agents, (2,) * 9)]
    for dtype, tolerance in ((torch.bfloat16, 5e-2), (torch.float16, 5e-3)):
        found = []
        for number_type in (dtype, torch.float64):
            net = HDNN(agents, 2, 3, dtype=number_type, kernel="torch")
            head, x = Readout(agents, net), mine.to(number_type, copy=True).requires_grad_()
            loss = head.loss(net(x), torch.tensor([0, 1, 1, 0]))
            loss.backward()
            found.append((loss.detach().reshape(1), x.grad, net.weights.grad))
        for given, exact_one in zip(*found, strict=True):
            assert relative_error(given.double(), exact_one) < tolerance


def parts(agents: Agents, seed: int) -> tuple[HDNN, Readout]:
    net = HDNN(agents, UNEVEN, 3, seed=seed)
    return net, Readout(agents, net, classes=3, at=(0, 4, 5))


def shared_folder(agents: Agents, own: Path) -> Path:
    """The folder of the root's rank, on every rank."""
    tree, text = SumTree(agents), torch.zeros(200, dtype=torch.float64)
    if tree.is_root:
        text[: len(str(own))] = torch.tensor([float(ord(letter)) for letter in str(own)])
    return Path("".join(chr(int(code)) for code in tree.sum(text) if code))


def tiles_in_flight(world: World) -> None:
    """However many are, the bits are the same where every weight has one place in the layer; elsewhere, and beside the
    portable pass, to rounding. The last tile is not full.
    """
    graph = CommunicationGraph.erdos_renyi(9, 0.4, seed=2)
    for architecture in ("H2", "MS1", "MS2", "H1-J2"):
        problem = Problem(graph, UNEVEN, architecture, owner=spread(world, 9, 2), batch=237, store_every=2)
        agents = problem.agents(world)
        x = problem.inputs()[:, local_rows(agents, problem.features)]
        found = [_passed(problem.network(agents), x, flight) for flight in ((32, 1), (32, 3), (32, 8), (64, 2), None)]
        portable = problem.network(agents)
        portable.kernel = "torch"
        expected = _passed(portable, x, None)
        for name, part in expected.items():
            alike = [torch.equal(other[name], found[0][name]) for other in found[1:3]]
            assert all(alike) or (architecture in ("MS1", "MS2") and name == "weights"), (architecture, name)
            assert all(relative_error(other[name], part) < TOLERANCE for other in found), (architecture, name)


def _passed(net: HDNN, x: Tensor, flight: tuple[int, int] | None) -> dict[str, Tensor]:
    net.flight = flight
    own = x.clone().requires_grad_()
    y = net(own)
    y.sin().sum().backward()
    assert flight is None or net.agents.world.size == 1 or net._passes.stepper(len(x), x.dtype).flight == flight
    return {"y": y.detach(), "x": own.grad, "weights": net.weights.grad}


def every_rank_computes_alike(world: World) -> None:
    """Where the compiled pass cannot serve on one rank, it serves on none, and messages fit."""
    agents = place(CommunicationGraph.ring(8), world)
    net = HDNN(agents, 2, 3, dtype=torch.float64)
    if world.rank == world.size - 1:
        net.kernel = "torch"
    x = torch.ones(5, net.local_features, dtype=torch.float64)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", KernelWarning)
        net(x).sum().backward()
    assert net.kernel_for(5) == "torch"
    assert world.rank == world.size - 1 or "it does not serve on every rank" in str(said[-1].message)


CHECKS = (
    links, oracle_checks, published_checks, coupling_checks, readout_checks, adjoint, gradcheck, same_start,
    same_training, projection, traffic, off_graph, failures_are_shared, sensitivity_checks, checkpoint_checks,
    lift_checks, other_numbers, tiles_in_flight, every_rank_computes_alike,
)  # fmt: skip


if __name__ == "__main__":
    main(CHECKS)
