"""Weights that carry waves: what they are, what they reach, and that the contract holds with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import Problem, check_against_oracle
from torch import Tensor
from typer.testing import CliRunner

import hdnn_dist.weights.wave as wave
from hdnn_dist import HDNN, CommunicationGraph, Pattern, connect, place
from hdnn_dist.analysis.bounds import bounds
from hdnn_dist.analysis.check import Checked, check_config
from hdnn_dist.analysis.sensitivity import exact
from hdnn_dist.analysis.symplectic import residual, structure_matrix
from hdnn_dist.cli.commands import app
from hdnn_dist.model.first_weights import CARRIED
from hdnn_dist.training.config_files import load_config
from hdnn_dist.weights.wave import Wave

WORLD = connect("local")
RING, GRID = CommunicationGraph.ring(20), CommunicationGraph.grid(3, 3)
UNEVEN = (2, 4, 2, 6, 2, 4, 8, 2, 4)
GRAPHS = {
    "ring": (RING, 4),
    "path": (CommunicationGraph.path(9), 2),
    "uneven grid": (GRID, UNEVEN),
    "star": (CommunicationGraph.star(9), UNEVEN),
    "random": (CommunicationGraph.erdos_renyi(9, 0.4, seed=2), UNEVEN),
}
FAR_ONES = "data.columns={50 = [0], 66 = [1]}"
FAR = (("ring:40", 0, 20, 18), ("path:40", 0, 39, 30), ("grid:20x20", 0, 399, 30))


def network(graph: CommunicationGraph = RING, features: object = 2, layers: int = 4, **about: object) -> HDNN:
    about = {"initial": "wave", "step": 0.5, "dtype": torch.float64, "kernel": "torch", **about}
    return HDNN(place(graph, WORLD), features, layers, **about)


@pytest.fixture
def unbiased(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waves of W alone, whose layers are one linear map for small states."""
    monkeypatch.setattr(wave, "BIAS", 0.0)


def response(net: HDNN, source: int, target: int) -> Tensor:
    """(features of the target, of the source): what a small change of one agent does to another."""
    owner = np.repeat(np.arange(len(net.features)), net.features)
    rows, columns = np.flatnonzero(owner == target), np.flatnonzero(owner == source)
    x = torch.zeros(len(columns), net.local_features, dtype=torch.float64)
    dx = x.clone()
    dx[range(len(columns)), columns] = 1
    return net.tangent(x, dx)[1][:, rows].T


def norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("architecture", CARRIED)
def test_courant_is_half_the_largest_frequency_times_h(architecture: str, graph: str) -> None:
    """From degrees alone: reached where all agents have as many features, else kept."""
    chosen, features = GRAPHS[graph]
    net = network(chosen, features, 2, architecture=architecture, courant=0.8, jitter=0.0)
    K = net.dense().K[0]
    generator = K if architecture in ("MS1", "MS2") else structure_matrix(net) @ K.T @ K
    found = net.step * float(torch.linalg.eigvals(generator).abs().max()) / 2
    assert found == pytest.approx(0.8) if isinstance(features, int) else found <= 0.8 + 1e-12


@pytest.mark.usefixtures("unbiased")
@pytest.mark.parametrize("architecture", ["H2", "MS1", "MS3"])
def test_nothing_grows_below_the_courant_limit(architecture: str) -> None:
    """Powers of a layer stay bounded, as long as one likes; random weights of the same norm do not."""
    few, many = (response(network(layers=n, architecture=architecture, jitter=0.0), 0, 0) for n in (50, 800))
    assert norm(many) < 3 * max(1.0, norm(few))


@pytest.mark.usefixtures("unbiased")
def test_a_ring_carries_without_dispersion_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hops a layer, all that K^T K reads: the front of q arrives whole after d / 2 layers, whatever d."""
    monkeypatch.setattr(wave, "LAZY", 0.0)
    for layers in (5, 8, 32):
        net = network(CommunicationGraph.ring(5 * layers), 2, layers, courant=1.0, jitter=0.0, step=1.0)
        assert abs(float(response(net, 0, 2 * layers)[1, 1])) == pytest.approx(1.0)
        assert norm(response(net, 0, 2 * layers + 1)) == 0.0


@pytest.mark.parametrize(("graph", "source", "target", "layers"), FAR, ids=str)
@pytest.mark.parametrize("architecture", ["H2", "MS1", "MS3"])
def test_far_agents_are_reached(architecture: str, graph: str, source: int, target: int, layers: int) -> None:
    def size(initial: str) -> float:
        net = network(CommunicationGraph.parse(graph), 4, layers, architecture=architecture, initial=initial)
        return norm(response(net, source, target))

    assert size("wave") > 0.01 > 100 * size("scaled")


@pytest.mark.parametrize("layers", [2, 8, 64])
def test_biases_are_small_and_the_smaller_the_more_layers_there_are(layers: int) -> None:
    """What they add in each layer adds up; without any, a network of tanh would be odd."""
    net = network(RING, 6, layers)
    biases = net.weights[..., net.layout.entries :].detach()
    assert float(biases.std()) == pytest.approx(0.25 if layers <= 8 else 2 / layers, rel=0.1)
    x = torch.ones(1, net.local_features, dtype=torch.float64)
    assert not torch.allclose(net(-x), -net(x), atol=1e-3)
    states = net(torch.zeros_like(x)).abs().max()
    assert float(states) < 4


@pytest.mark.usefixtures("unbiased")
@pytest.mark.parametrize("architecture", ["H2", "MS3", "H1-J1"])
def test_rotations_are_no_matter_to_small_states_and_let_features_meet(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> HDNN:
        return network(GRID, (8, 6, 8) * 3, 6, architecture=architecture, jitter=0.0)

    turned = made()
    x = torch.zeros(1, turned.local_features, dtype=torch.float64)
    first = np.cumsum(turned.features) - turned.features
    x[:, first] = 1.0
    monkeypatch.setattr(wave, "rotations", lambda rows, *_: np.tile(np.eye(rows), (16, 1, 1)))
    plain = made()
    for K, straight in zip(turned.dense().K, plain.dense().K, strict=True):
        assert torch.allclose(K.mT @ K, straight.mT @ straight)
        assert not torch.allclose(K, straight)
    assert torch.allclose(turned(1e-6 * x), plain(1e-6 * x), atol=1e-12)
    alone, met = (float(net(x)[:, first + 1].detach().abs().min()) for net in (plain, turned))
    assert met > 1e-4
    assert alone == 0.0 or architecture == "H1-J1"  # whose J mixes them


@pytest.mark.parametrize(
    ("layers", "operators", "of_each"),
    [
        (1, 2, [0, 1]),
        (8, 2, list(range(16))),
        (8, 1, list(range(8))),
        (16, 2, [stage for stage in range(8) for _ in range(4)]),
        (65, 2, [0] * 130),
    ],
)
def test_operators_of_a_stage_have_one_rotation_for_all_agents(layers: int, operators: int, of_each: list[int]) -> None:
    drawn, stages = Wave((), (), 0.0, gradient=True), wave.stages_of(layers, operators)
    assert stages.shape == (layers, operators)
    assert stages.ravel().tolist() == of_each
    W, Q = np.stack([np.eye(3, 5), 2 * np.eye(3, 5)]), wave.rotations(3, 7)
    np.testing.assert_allclose(Q @ Q.swapaxes(1, 2), np.tile(np.eye(3), (16, 1, 1)), atol=1e-12)
    assert len(np.unique(Q[:, 0, 0])) == 16
    found = drawn.turned(W, 7, stages[:, 0])
    np.testing.assert_allclose(found[:, 0, :, :3], Q[stages[:, 0]])
    np.testing.assert_allclose(found[:, 1], 2 * found[:, 0])
    assert not np.allclose(drawn.turned(W, 8, stages[:, 0]), found)


@pytest.mark.parametrize("graph", ["uneven grid", "random"])
@pytest.mark.parametrize("architecture", CARRIED)
def test_equals_the_dense_oracle(architecture: str, graph: str) -> None:
    chosen, features = GRAPHS[graph]
    check_against_oracle(Problem(chosen, features, architecture, initial="wave", kernel="torch"), WORLD)


def test_sparse_patterns_and_a_graph_per_layer_equal_the_dense_oracle() -> None:
    pairs = tuple((i, k) for i, k in zip(*np.nonzero(GRID.matrix()), strict=True) if i == k or (i + 2 * k) % 3)
    check_against_oracle(Problem(GRID, UNEVEN, "H2", pattern=pairs, initial="wave", kernel="torch"), WORLD)
    graphs = (CommunicationGraph.path(9), CommunicationGraph.ring(9), CommunicationGraph.path(9))
    check_against_oracle(Problem(graphs[1], UNEVEN, "H2", graphs=graphs, initial="wave", kernel="torch"), WORLD)


@pytest.mark.parametrize("architecture", ["H2", "MS3"])
def test_sensitivities_are_those_of_the_family(architecture: str) -> None:
    """BSMs are symplectic, have norms of at least 1, and keep to their bounds."""
    net = network(GRID, UNEVEN, 24, architecture=architecture)
    x = torch.as_tensor(np.random.default_rng(3).standard_normal((1, net.local_features)))
    found, J = bounds(net), structure_matrix(net)
    for j, bsm in exact(net, x, [1, 6, 24]):
        M = bsm.squeeze().T
        assert residual(M, J) < 1e-10
        assert 0 <= np.log(norm(M)) <= found.log_upper(j)


WRONG = {
    "courant of 0": ({"courant": 0.0}, "courant is 0.0: expected a number greater than 0, at most 1"),
    "courant above the limit": ({"courant": 1.5}, "courant is 1.5: expected a number greater than 0, at most 1"),
    "courant as text": ({"courant": "1"}, "courant is '1': expected a number"),
    "negative jitter": ({"jitter": -0.1}, "jitter is -0.1: expected a number from 0 to 1"),
    "more jitter than all": ({"jitter": 2}, "jitter is 2: expected a number from 0 to 1"),
    "courant of others": ({"initial": "scaled", "courant": 0.5}, "courant is 0.5, which says nothing to initial='sca"),
    "jitter of others": ({"initial": "normal", "jitter": 0.5}, "jitter is 0.5, which says nothing to initial='nor"),
    "MLP": ({"architecture": "MLP"}, "initial='wave' is not known for MLP: use H2, MS3, H1-J1, MS1, MS2"),
    "H1-J2": ({"architecture": "H1-J2"}, "initial='wave' is not known for H1-J2"),
    "trained X": ({"coupling": "trained"}, "initial='wave' needs the coupling 'I' that H2 has by itself"),
    "given X": ({"coupling": torch.eye(8)}, "initial='wave' needs the coupling 'I'"),
    "no neighbours": ({"pattern": Pattern.diagonal(4)}, "no agent reads another one here: give a graph or a pattern"),
    "no own block": (
        {"pattern": Pattern.from_pairs(4, [(0, 1), (1, 0), (1, 1), (2, 2), (3, 3)])},
        r"needs every agent's own block, but the pattern has no \(0, 0\)",
    ),
    "one feature of MS2": ({"architecture": "MS2", "features": 1}, "agent 0 has 1 feature, .*MS2.*: give it 2"),
    "negative seed": ({"seed": -1}, "seed is -1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_waves_are_refused_in_one_line(name: str) -> None:
    arguments, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as caught:
        network(CommunicationGraph.ring(4), **{"features": 2, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("graph", "readers", "courant", "farthest", "layers"),
    [
        ("ring:100", "[0]", 0.9, 50, 31),
        ("ring:100", "[0, 30]", 1.0, 34, 19),
        ("path:12", "[3]", 0.5, 8, 9),
        ("path:12", "all", 0.9, 0, 0),
    ],
)
def test_check_tells_how_many_layers_the_farthest_input_needs(
    graph: str, readers: str, courant: float, farthest: int, layers: int
) -> None:
    given = (
        f"graph={graph}", f"readout.at={readers}", f"network.courant={courant}",
        "network.initial=wave", "network.kernel=torch",
    )  # fmt: skip

    def checked(*more: str) -> Checked:
        config = load_config(
            None, [*given, *more, "data.columns={0 = [0], 11 = [1]}" if graph == "path:12" else FAR_ONES]
        )
        return check_config(config, CommunicationGraph.parse(config.graph))

    few, enough = checked("network.layers=1"), checked(f"network.layers={max(1, layers)}")
    assert few.distance == farthest
    assert enough.warning is None
    if layers:
        assert f"needs {layers} layers for: raise network.layers (now 1)" in few.warning
        assert f"needs {layers} layers" in few.rows()["farthest input"]


def test_check_prints_the_warning_and_still_passes() -> None:
    """More hops than the wave has layers for, although K^T K alone would reach so far."""
    given = [
        "graph=ring:20",
        "readout.at=[0]",
        "network.layers=5",
        "network.initial=wave",
        "network.courant=0.6",
        "network.kernel=torch",
    ]
    words = [word for text in given for word in ("--set", text)]
    result = CliRunner().invoke(app, ["check", *words, "--set", "data.columns={9 = [0, 1]}"])
    assert result.exit_code == 0
    assert "warning: the farthest input is 9 edges from the readout" in " ".join(result.output.split())
