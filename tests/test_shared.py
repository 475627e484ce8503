"""Weights that all agents share: dense matrices with tied blocks, other graphs, one gradient on all ranks, files."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import shared_ranks
import torch
from jobs import run
from shared_ranks import ALONE, ARCHITECTURES, MIXED, STEP, network, trainer

from hdnn_dist import HDNN, AgentReadouts, CommunicationGraph, Readout, place
from hdnn_dist.analysis.cost import layer_cost
from hdnn_dist.runs.checkpoint import load_weights, save_weights
from hdnn_dist.runs.checkpointing import Checkpointer
from hdnn_dist.runs.dense_file import dense_tensors, facts, read_dense, write_dense
from hdnn_dist.runs.export import fill
from hdnn_dist.runs.index import complete
from hdnn_dist.runs.plain import Network
from hdnn_dist.runs.resume import about, find, put_back
from hdnn_dist.runs.saved import saved_of
from hdnn_dist.support.asked import Asked
from hdnn_dist.training.config_files import dump_config, load_config
from hdnn_dist.training.divergence import diverged
from hdnn_dist.training.regularization import SpectralProjection, add_smoothness_gradient, smoothness
from hdnn_dist.weights.wave import bias_deviation

LIKE = {"dtype": torch.float64, "kernel": "torch"}
RING = CommunicationGraph.ring(8)


@pytest.mark.parametrize("check", shared_ranks.CHECKS, ids=lambda check: check.__name__)
def test_in_one_process(check) -> None:
    check(ALONE)


@pytest.mark.parametrize(("launcher", "ranks"), [("torchrun", 4), pytest.param("mpiexec", 2, marks=pytest.mark.slow)])
def test_on_ranks(tmp_path: Path, launcher: str, ranks: int) -> None:
    process = run(launcher, ranks, str(Path(shared_ranks.__file__)), str(tmp_path))
    found = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("*.json"))]
    assert len(found) == ranks, process.stdout + process.stderr
    for result in found:
        assert all(result.get(check.__name__) == "ok" for check in shared_ranks.CHECKS), result


def test_one_network_runs_on_other_graphs() -> None:
    """The blocks are those of the first network, not copies; every graph has its own coefficients."""
    net = network(ALONE, "H2", RING, edge_labels="direction")
    other = HDNN(place(CommunicationGraph.ring(20), ALONE), 4, 3, STEP, **LIKE, shared=net.shared)
    assert other.shared is net.shared
    x = torch.randn(3, 4, dtype=torch.float64)
    for each in (net, other):  # where all agents show the same, all end alike, whatever the ring
        y = each(x.repeat(1, each.agents.graph.agents)).view(3, -1, 4)
        assert torch.allclose(y, net(x.repeat(1, 8))[:, None, :4])
    other(torch.ones(1, 80, dtype=torch.float64)).sum().backward()
    assert net.shared.roles.grad is not None
    with pytest.raises(ValueError, match="direction"):
        HDNN(place(MIXED, ALONE), 4, 3, STEP, **LIKE, shared=net.shared, edge_labels=None)


@pytest.mark.parametrize("architecture", ["H2", "H1-J1", "MS1", "MS2", "MS3"])
def test_a_wave_is_that_of_agents_of_their_own(architecture: str) -> None:
    for graph, labels in ((MIXED, None), (RING, "direction")):
        wave = {"initial": "wave", "jitter": 0.0}
        net = network(ALONE, architecture, graph, edge_labels=labels, **wave)
        own = HDNN(place(graph, ALONE), 4, 3, STEP, architecture, **wave, **LIKE)
        entries = own.layout.entries
        for K, other in zip(net.dense().K, own.dense().K, strict=True):
            assert torch.allclose(K.mT @ K, other.mT @ other)  # which is turned where that says nothing
            assert torch.allclose(K, other) == (architecture in ("MS1", "MS2"))
        shared_biases, biases = net.weights[..., entries:], own.weights[..., entries:]
        assert 0 < float(shared_biases.std().detach()) < 2 * float(biases.std().detach()) < 4 * bias_deviation(3)


def test_norms_do_not_grow_with_the_graph() -> None:
    """||K|| is at most the sum of the norms of the blocks, for "symmetric"."""
    net = network(ALONE, "H2", CommunicationGraph.star(9), initial="normal")
    K = net.operators()
    each = sum(torch.linalg.matrix_norm(net.shared.block(name, net.shared.roles), 2) for name in net.shared.names)
    assert (torch.linalg.matrix_norm(K, 2) <= each * (1 + 1e-12)).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dense_matrices_with_tied_blocks_are_taken_back(architecture: str) -> None:
    for graph, labels in ((MIXED, None), (RING, "direction")):
        net, other = (network(ALONE, architecture, graph, edge_labels=labels) for _ in range(2))
        with torch.no_grad():
            net.shared.roles.normal_()
        K, b, _ = net.dense()
        other.load_dense(K, b)
        for given, expected in zip(other.dense(), net.dense(), strict=True):
            assert torch.allclose(given, expected, atol=1e-12)


def test_dense_matrices_of_agents_of_their_own_are_refused() -> None:
    net = network(ALONE, "H2")
    K, b, _ = HDNN(place(MIXED, ALONE), 4, 3, **LIKE).dense()
    before = net.shared.roles.detach().clone()
    with pytest.raises(ValueError, match="of one role differ"):
        net.load_dense(K, b)
    assert torch.equal(net.shared.roles, before)


def test_a_graph_for_each_layer() -> None:
    """The blocks are the same on every one of them; who is joined is not."""
    graphs = [CommunicationGraph.path(8), RING, CommunicationGraph.path(8)]
    net = network(ALONE, "H2", RING, graphs=graphs)
    assert net.weights.dim() == 1
    x = torch.randn(2, 32, dtype=torch.float64)
    y = x
    for layer, graph in enumerate(graphs):
        one = HDNN(place(graph, ALONE), 4, 3, STEP, **LIKE, shared=net.shared)
        y = one(y, layers=slice(layer, layer + 1))
    assert torch.allclose(net(x), y)
    net(x).sum().backward()
    assert net.shared.roles.grad.isfinite().all()


def test_state_of_one_graph_fits_another() -> None:
    net = network(ALONE, "H2", RING)
    other = HDNN(place(MIXED, ALONE), 4, 3, STEP, seed=9, shared=True, **LIKE)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.shared.roles, net.shared.roles)
    assert torch.equal(copy.deepcopy(other)(torch.ones(1, 36).double()), other(torch.ones(1, 36).double()))
    wide = HDNN(place(RING, ALONE), 4, 3, 0.2, shared=True, **LIKE)
    with pytest.raises(ValueError, match=r"step 0\.3"):
        wide.load_state_dict(net.state_dict())


def test_penalties_and_the_bound_count_a_block_once() -> None:
    net = network(ALONE, "H2", RING, initial="normal")
    penalty = smoothness(net, 0.1)
    assert torch.allclose(penalty, 0.1 * STEP / 2 * net.shared.roles.diff(dim=0).square().sum())
    penalty.backward()
    expected, net.shared.roles.grad = net.shared.roles.grad, torch.zeros_like(net.shared.roles)
    add_smoothness_gradient(net, 0.1)
    assert torch.allclose(net.shared.roles.grad, expected)
    project = SpectralProjection(net, 10.0)
    project()
    norms = torch.linalg.matrix_norm(net.operators(), 2)
    assert (norms <= project.limits).all()


@pytest.mark.parametrize("architecture", ["H2", "MS2"])
def test_an_exported_run_comes_back_bit_for_bit(tmp_path: Path, architecture: str) -> None:
    first, second = (saved_of(trainer(ALONE, f"network.architecture={architecture}", seed).job) for seed in SEEDS)
    file, samples = tmp_path / "x.safetensors", torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    write_dense(file, dense_tensors(first), facts(first))
    assert torch.allclose(Network(str(file))(samples), first.logits(samples), atol=1e-6)
    fill(second, read_dense(file)[0], file)
    for given, expected in zip(second.net.parameters(), first.net.parameters(), strict=True):
        assert torch.equal(given, expected)
    assert torch.equal(second.logits(samples), first.logits(samples))


def test_a_checkpoint_of_one_graph_is_loaded_on_another(tmp_path: Path) -> None:
    first, other = trainer(ALONE).job, trainer(ALONE, "graph=grid:4x5", "seed=1").job
    save_weights(first.net, first.others, tmp_path)
    load_weights(other.net, other.others, tmp_path)
    assert all(map(torch.equal, other.parameters, first.parameters))
    with pytest.raises(ValueError, match=r"agent\.0\.K"):
        load_weights(trainer(ALONE, "network.shared=false").job.net, [], tmp_path)


def test_labels_in_a_config_come_back_from_its_file(tmp_path: Path) -> None:
    pairs = [(i, k) for i in range(4) for k in range(4) if abs(i - k) == 1]
    labels = [[i, k, "up" if i < k else "down"] for i, k in pairs]
    job = trainer(ALONE, "graph=path:4", f"network.edge_labels={labels}").job
    (tmp_path / "config.toml").write_text(dump_config(job.config))
    assert job.net.shared.names == ("own", "down", "up")
    assert load_config(tmp_path / "config.toml", []) == job.config


def test_a_run_goes_on_on_another_graph(tmp_path: Path) -> None:
    """With the moments of the optimiser too."""
    first = trainer(ALONE)
    checkpoints = Checkpointer(first, tmp_path, about(first.job), {}, Asked())
    first.run(lambda *_: None, lambda _: None)
    checkpoints.make()
    checkpoints.finish_writing()
    second = trainer(ALONE, "graph=grid:3x4")
    with pytest.raises(ValueError, match="--remap"):
        find(second.job, complete(tmp_path), fall_back=False)
    put_back(second, find(second.job, complete(tmp_path), fall_back=False, remap=True))
    for own, found in zip(first.parameters, second.parameters, strict=True):
        assert torch.equal(own, found)
        assert torch.equal(first.optimizer.state[own]["exp_avg"], second.optimizer.state[found]["exp_avg"])


def test_what_diverges_is_shared_by_all() -> None:
    job = trainer(ALONE).job
    with torch.no_grad():
        job.net.shared.roles[1] = torch.nan
    error = diverged(job, [job.train.inputs[:2]], "a step")
    assert "the weights are no longer finite in a step, layer 1, which all agents share" in str(error)


SEEDS = ("seed=0", "seed=1")


def test_one_agent_alone() -> None:
    net = HDNN(place(CommunicationGraph.path(1), ALONE), 4, 3, shared=True, **LIKE)
    assert net.shared.names == ("own",)
    net(torch.ones(2, 4, dtype=torch.float64)).sum().backward()


def test_heads_run_on_other_graphs() -> None:
    small, large = network(ALONE, "H2"), HDNN(place(RING, ALONE), 4, 3, STEP, shared=True, **LIKE)
    for kind, at in ((AgentReadouts, {1: 3, 4: 3}), (AgentReadouts, dict.fromkeys(range(8), 3)), (Readout, 3)):
        first, second = kind(small.agents, small, at, shared=True), kind(large.agents, large, at, shared=True)
        second.load_state_dict(first.state_dict())
        third = kind(large.agents, large, at, shared=first.shared)
        y = torch.randn(2, 32, dtype=torch.float64)
        assert torch.equal(second(y), third(y))
    with pytest.raises(ValueError, match="outputs 3"):
        AgentReadouts(large.agents, large, {0: 2}, shared=first.shared)
    with pytest.raises(ValueError, match=r"agents predict \[1, 2\] numbers"):
        AgentReadouts(large.agents, large, {0: 2, 1: 1}, shared=True)
    uneven = HDNN(place(RING, ALONE), [2, 4] * 4, 3, **LIKE)
    with pytest.raises(ValueError, match=r"have \[2, 4\] features"):
        Readout(uneven.agents, uneven, shared=True)


def test_a_layer_costs_what_it_costs_without_sharing() -> None:
    assert layer_cost(RING, 2, kernel="torch", shared=True) == layer_cost(RING, 2, kernel="torch")


REFUSED = {
    "uneven features": ({"features": [2, 4, 2, 2, 2, 2, 2, 2]}, "agent 1 has 4 features and agent 0 has 2"),
    "no such scaling": ({"normalisation": "max"}, "unknown normalisation 'max'"),
    "a trained coupling": ({"coupling": "trained"}, "coupling is 'trained'"),
    "a scaling alone": ({"shared": False, "normalisation": "mean"}, "weights are not shared"),
    "labels alone": ({"shared": False, "edge_labels": "direction"}, "weights are not shared"),
    "no such labels": ({"edge_labels": "colour"}, "edge_labels is 'colour'"),
    "a scaling of another type": ({"normalisation": ["sum"]}, "unknown normalisation"),
    "labels in a list": ({"edge_labels": [(0, 1, "next")]}, "expected 'direction'"),
    "a wave of another scaling": ({"initial": "wave", "normalisation": "sum"}, "normalisation 'symmetric' only"),
    "a label missing": ({"edge_labels": {(0, 1): "next"}}, "no label for agent 0 reading agent 7"),
    "a label of strangers": ({"edge_labels": {(0, 3): "next"}}, "no pair of neighbours"),
    "a label that is none": ({"edge_labels": {(0, 1): "own"}}, "expected a word"),
    "shared by name": ({"shared": "yes"}, "shared is 'yes'"),
    "other layers": ({"layers": 4, "shared": "net"}, "layers 3"),
    "other features": ({"features": 6, "shared": "net"}, "features of an agent 4"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_told_in_one_line(mistake: str) -> None:
    options, told = REFUSED[mistake]
    if options.get("shared") == "net":
        options = {**options, "shared": network(ALONE, "H2").shared, "dtype": torch.float64}
    given = {"features": 4, "layers": 3, "step": STEP, "shared": True, **options}
    with pytest.raises((ValueError, TypeError), match=told) as error:
        HDNN(place(RING, ALONE), **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (CommunicationGraph.path(4), {(0, 1): "next", (1, 0): "previous"}),
        (CommunicationGraph.ring(4), {(3, 0): "next", (0, 3): "previous"}),
        (CommunicationGraph.grid(2, 3), {(0, 1): "right", (4, 3): "left", (1, 4): "down", (5, 2): "up"}),
        (CommunicationGraph.torus(3, 4), {(3, 0): "right", (0, 3): "left", (8, 0): "down", (0, 8): "up"}),
    ],
)
def test_directions(graph: CommunicationGraph, expected: dict[tuple[int, int], str]) -> None:
    rows, columns = torch.tensor(list(expected)).T.numpy()
    assert shared_ranks.labels_of(graph, "direction", rows, columns).tolist() == list(expected.values())


@pytest.mark.parametrize(
    ("agents", "features", "samples", "kernel"),
    [(60, 32, 4, "shared"), (60, 32, 17, "fused"), (8, 32, 4, "fused")],
)
def test_copies_are_made_where_they_pay(agents: int, features: int, samples: int, kernel: str) -> None:
    """Of few blocks, or of blocks that are smaller than what they act on."""
    net = HDNN(place(CommunicationGraph.ring(agents), ALONE), features, 2, STEP, shared=True)
    assert net.kernel_for(samples) == kernel
