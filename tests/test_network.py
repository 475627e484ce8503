"""HDNN in one process against the oracle and the published implementation: contract 1, 3 and 6."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import oracle
import pytest
import torch
from golden import GOLDEN, check_against_published
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import CUSTOM_VALUE, Problem, check_against_oracle, relative_error

from hdnn_dist import HDNN, CommunicationGraph, connect, place
from hdnn_dist.exchange.ledger import OffGraphError
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.model.propagation import DriftWarning
from hdnn_dist.propagation import activations

WORLD = connect("local")
ARCHITECTURES = ("H2", "H1-J1", "H1-J2", "MS1", "MS2", "MS3", "MLP")
OWN = activations.custom(CUSTOM_VALUE, lambda z: (1 + z.square()) ** -1.5)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Random connected graphs, uneven sizes, patterns inside the graph (asymmetric too), shapes."""
    agents = draw(st.integers(2, 7))
    edges = {(draw(st.integers(0, i - 1)), i) for i in range(1, agents)}  # a random tree, so that it is connected
    edges |= {(i, k) for i in range(agents) for k in range(i + 1, agents) if draw(st.booleans())}
    graph = CommunicationGraph(agents, sorted(edges))
    allowed = [(i, k) for i in range(agents) for k in range(agents) if graph.contains(i, k)]
    pattern = {pair for pair in allowed if pair[0] == pair[1] or draw(st.booleans())}
    architecture = draw(st.sampled_from(ARCHITECTURES))
    if architecture == "MS2":  # a skew K needs a symmetric pattern
        pattern |= {(k, i) for i, k in pattern}
    halved = architecture in ("H2", "MS1", "MS3")
    return Problem(
        graph,
        features=tuple(2 * draw(st.integers(1, 3)) for _ in range(agents)),
        architecture=architecture,
        activation=draw(st.sampled_from([*activations.ACTIVATIONS, OWN])),
        scheme=draw(st.sampled_from([None, "euler"])) if halved else None,
        coupling=draw(st.sampled_from([None, "trained"])) if architecture in ("H2", "H1-J1", "H1-J2") else None,
        damping=draw(st.sampled_from([0.0, 0.3])) if architecture.startswith("H1") else 0.0,
        layers=draw(st.integers(1, 5)),
        step=draw(st.floats(0.05, 0.5)),
        batch=draw(st.integers(1, 4)),
        positions=draw(st.sampled_from([(), (1,), (2, 3)])),
        pattern=tuple(sorted(pattern)),
        store_every=draw(st.integers(1, 6)),
        seed=draw(st.integers(0, 99)),
    )


@given(problems())
@settings(max_examples=60, deadline=None)
def test_equals_the_dense_oracle(problem: Problem) -> None:
    check_against_oracle(problem, WORLD)


@pytest.mark.parametrize("name", GOLDEN)
def test_equals_the_published_implementation(name: str) -> None:
    check_against_published(name, WORLD)


def test_dense_and_load_dense_are_inverse() -> None:
    agents = place(CommunicationGraph.erdos_renyi(6, 0.5, seed=1), WORLD)
    for architecture in ARCHITECTURES:
        first, second = (HDNN(agents, [2, 4, 2, 6, 2, 2], 3, architecture=architecture, seed=s) for s in (0, 1))
        second.load_dense(*first.dense()[:2])
        for copy, original in zip(second.dense(), first.dense(), strict=True):
            assert torch.equal(copy, original)


def test_load_dense_refuses_an_entry_outside_the_pattern() -> None:
    net = HDNN(place(CommunicationGraph.path(4), WORLD), 2, 2)
    K, b, _ = net.dense()
    K[1, 0, 3] = 1.0
    with pytest.raises(ValueError, match="layer 1 has the entry 1 at row 0, column 3, which lies outside"):
        net.load_dense(K, b)
    with pytest.raises(ValueError, match=r"K has shape .*: expected \(2, 8, 8\)"):
        net.load_dense(K[:, :4], b)


def test_the_coupling_of_the_dense_view_drives_the_layer() -> None:
    """y+ - y = h J K^T s(K y + b) with the J that dense() returns."""
    net = HDNN(place(CommunicationGraph.ring(4), WORLD), 4, 1, 0.1, "H1-J1", dtype=torch.float64)
    K, b, J = net.dense()
    y = torch.randn(3, 16, dtype=torch.float64)
    order = oracle.dense_order((4,) * 4)
    assert relative_error(net(y).detach()[:, order], oracle.h1(y[:, order], K, b, J, 0.1, torch.tanh)) < 1e-12


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes(architecture: str, dtype: torch.dtype) -> None:
    """float32 gives the float64 answer to its own precision, and keeps its type."""
    agents = place(CommunicationGraph.ring(8), WORLD)
    net = HDNN(agents, 2, 8, 0.2, architecture, dtype=dtype)
    exact = HDNN(agents, 2, 8, 0.2, architecture, dtype=torch.float64)
    x = torch.randn(5, 16, dtype=torch.float64)
    for each in (net, exact):
        each(x.to(each.weights.dtype)).square().sum().backward()
    assert net(x.to(dtype)).dtype == net.weights.grad.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-14
    assert relative_error(net.weights.grad.double(), exact.weights.grad) < tolerance


def test_two_passes_before_one_backward() -> None:
    """Buffers are shared between passes, so what the backward pass needs must not live in them."""
    net = HDNN(place(CommunicationGraph.ring(4), WORLD), 2, 3, dtype=torch.float64)
    x, z = torch.randn(2, 5, 8, dtype=torch.float64)
    apart = [torch.autograd.grad(net(each).square().sum(), net.weights)[0] for each in (x, z)]
    together = torch.autograd.grad(net(x).square().sum() + net(z).square().sum(), net.weights)[0]
    assert relative_error(together, sum(apart)) < 1e-12


def test_the_first_layers_do_not_depend_on_the_depth() -> None:
    agents = place(CommunicationGraph.ring(4), WORLD)
    shallow, deep = (HDNN(agents, 2, layers, seed=3) for layers in (2, 7))
    assert torch.equal(shallow.weights, deep.weights[:2])


def test_scaled_weights_have_variance_one_over_fan_in() -> None:
    net = HDNN(place(CommunicationGraph.complete(8), WORLD), 16, 40)
    K = net.layout.groups[0].matrices(net.weights.detach())
    assert K.var().item() == pytest.approx(1 / (8 * 8), rel=0.02)


def test_weights_changed_between_forward_and_backward_are_refused() -> None:
    """The backward pass rebuilds states with the weights, so they must still be those of the forward pass."""
    net = HDNN(place(CommunicationGraph.ring(4), WORLD), 2, 2)
    loss = net(torch.randn(3, 8)).sum()
    with torch.no_grad():
        net.weights.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_drift_is_measured_and_a_large_one_warned_of() -> None:
    agents = place(CommunicationGraph.ring(8), WORLD)
    calm = HDNN(agents, 2, 64, 0.1)
    assert calm.drift is None
    calm(torch.randn(5, 16)).sum().backward()
    assert 0 < calm.drift < 1e-5
    wild = HDNN(agents, 2, 400, 2.0, initial="normal")
    with pytest.warns(DriftWarning, match="rebuilding the input from the output missed it"):
        wild(torch.randn(5, 16)).sum().backward()
    assert not wild.drift <= 1e-2


def test_drift_is_not_reported_where_states_are_stored() -> None:
    net = HDNN(place(CommunicationGraph.ring(4), WORLD), 2, 3, architecture="H1-J1")
    net(torch.randn(3, 8)).sum().backward()
    assert net.drift is None


RING = CommunicationGraph.ring(4)


def skew_on(graph: CommunicationGraph, features: int, layers: tuple[int, ...] = ()) -> torch.Tensor:
    """A random skew J inside the graph, one or one per layer."""
    n = graph.agents * features
    joined = torch.as_tensor(graph.pattern().mask(np.full(graph.agents, features)))
    A = torch.randn(*layers, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * joined
    return A - A.mT


def near_identity(graph: CommunicationGraph, features: int, layers: tuple[int, ...] = ()) -> torch.Tensor:
    """A random invertible X inside the graph, not symmetric."""
    n = graph.agents * features
    joined = torch.as_tensor(graph.pattern().mask(np.full(graph.agents, features)))
    noise = torch.randn(*layers, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return torch.eye(n, dtype=torch.float64) + 0.2 * noise * joined


COUPLINGS = {
    "H1, given J": ("H1", skew_on(RING, 4), 0.0),
    "H1, J per layer": ("H1", skew_on(RING, 4, (3,)), 0.0),
    "H1, damped": ("H1", skew_on(RING, 4), 0.5),
    "H1, trained J": ("H1", "trained", 0.0),
    "H2, given X": ("H2", near_identity(RING, 2), 0.0),
    "H2, X per layer": ("H2", near_identity(RING, 2, (3,)), 0.0),
}


@pytest.mark.parametrize("name", COUPLINGS)
def test_couplings_equal_the_dense_oracle(name: str) -> None:
    architecture, coupling, damping = COUPLINGS[name]
    check_against_oracle(Problem(RING, (4,) * 4, architecture, coupling=coupling, damping=damping), WORLD)


def test_a_coupling_can_be_a_list_and_its_pattern_an_array() -> None:
    J, agents = skew_on(RING, 4, (3,)), place(RING, WORLD)
    nets = [
        HDNN(agents, 4, 3, architecture="H1", coupling=given, coupling_pattern=RING.matrix())
        for given in (J, list(J), [J_j.numpy() for J_j in J], J.tolist())
    ]
    assert all(torch.equal(net.coupling, nets[0].coupling) for net in nets)


CHANGING = (
    CommunicationGraph.path(5),
    CommunicationGraph.star(5),
    CommunicationGraph.path(5),
    CommunicationGraph.ring(5),
)
UNION = CommunicationGraph(5, sorted({tuple(edge) for graph in CHANGING for edge in graph.edges.tolist()}))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_graph_per_layer_equals_the_dense_oracle(architecture: str) -> None:
    problem = Problem(UNION, (2, 4, 2, 6, 2), architecture, layers=4, graphs=CHANGING, store_every=3)
    check_against_oracle(problem, WORLD)


def in_graphs(features: int) -> torch.Tensor:
    """(layers, n, n) random, each inside the graph of its own layer."""
    return torch.stack([near_identity(graph, features) for graph in CHANGING])


def skew(matrix: torch.Tensor) -> torch.Tensor:
    return matrix - matrix.mT


CHANGING_COUPLINGS = {
    "H1, J per layer": ("H1", skew(in_graphs(4)), 0.1),
    "H1, one J": ("H1", skew(in_graphs(4)[0] * (in_graphs(4) != 0).all(0)), 0.0),
    "H1, trained J": ("H1", "trained", 0.2),
    "H1, J1": ("H1", "J1", 0.0),
    "H2, X per layer": ("H2", in_graphs(2), 0.0),
    "H2, trained X": ("H2", "trained", 0.0),
}


@pytest.mark.parametrize("name", CHANGING_COUPLINGS)
def test_a_coupling_keeps_to_the_graph_of_its_layer(name: str) -> None:
    """As the dense oracle, and on edges of the layer's graph only: the bytes of each layer alone show it."""
    architecture, coupling, damping = CHANGING_COUPLINGS[name]
    problem = Problem(
        UNION, (4,) * 5, architecture, layers=4, graphs=CHANGING, coupling=coupling, damping=damping, store_every=3
    )
    if coupling != "J1":
        check_against_oracle(problem, WORLD)
    agents = problem.agents(WORLD)
    net = problem.network(agents)
    for layer, graph in enumerate(CHANGING):
        before = agents.ledger.traffic()
        x = torch.zeros(1, 20, dtype=torch.float64, requires_grad=True)
        net(x, layers=slice(layer, layer + 1)).sum().backward()
        used = UNION.edges[(agents.ledger.traffic() - before).edge_bytes > 0]
        assert graph.contains(*used.T).all()
        assert len(used) == len(graph.edges)


def test_j2_follows_the_graph_of_each_layer() -> None:
    """Agents 0 and 7 of a ring are not neighbours on a path: J2 must not join them, nor send between them."""
    ring, path = CommunicationGraph.ring(8), CommunicationGraph.path(8)
    agents = place(ring, WORLD)
    J = HDNN(agents, 2, 2, architecture="H1-J2", graphs=[path, ring]).dense().J
    assert not J[0, :2, 14:].any()
    assert (J[1, :2, 14:] == 1).all()
    closed = place(ring, WORLD)
    HDNN(closed, 2, 2, architecture="H1-J2", graphs=[path, path])(torch.zeros(1, 16))
    assert not closed.ledger.traffic().edge_bytes[ring.edges[:, 1] - ring.edges[:, 0] == 7].any()


def test_the_ledger_refuses_a_coupling_outside_the_graph_of_its_layer() -> None:
    """Its routes are declared with that graph, so that a slip in the patterns could not go unseen."""
    builder = HDNN(place(UNION, WORLD), 2, 4, graphs=CHANGING).coupling_builder
    with pytest.raises(OffGraphError, match="would leave the graph 'path:5'"):
        builder._layouts([UNION.pattern()] * len(builder._patterns))


def test_a_layer_sends_along_its_own_graph_only() -> None:
    agents = place(UNION, WORLD)
    net = HDNN(agents, 2, 4, graphs=CHANGING)
    net(torch.zeros(3, 10))
    expected = np.zeros(len(UNION.edges), dtype=np.int64)
    for graph in CHANGING:
        expected += graph.contains(*UNION.edges.T) * 2 * 2 * 2 * 3 * 4  # directions, rounds, half-steps, batch, bytes
    assert np.array_equal(agents.ledger.traffic().edge_bytes, expected)


def test_smoothness_compares_the_blocks_that_neighbouring_layers_share() -> None:
    net = HDNN(place(UNION, WORLD), 2, 4, graphs=CHANGING, dtype=torch.float64)
    K, b, _ = net.dense()
    expected = 0.0
    for layer in range(3):
        both = (K[layer] != 0) & (K[layer + 1] != 0)
        change = (K[layer + 1] - K[layer]) * both
        expected += change.square().sum() + (b[layer + 1] - b[layer]).square().sum()
    assert net.stack.differences(net.weights).square().sum().item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("architecture", ["MS2", "H1"])
def test_a_skew_matrix_is_stored_once(architecture: str) -> None:
    """Every block of U on one side of its edge, and about as many on each agent."""
    graph = CommunicationGraph.ring(8)
    net = HDNN(
        place(graph, WORLD), 2, 1, architecture=architecture, coupling="trained" if architecture == "H1" else None
    )
    layout = net.layout if architecture == "MS2" else net.coupling_spec.layout
    assert len(layout.pattern) == 8 + len(graph.edges)
    assert np.diff(layout.pattern.indptr).max() <= 3


def test_a_custom_activation_needs_its_own_derivative() -> None:
    with pytest.raises(ValueError, match="the derivative of activation 'own' is"):
        activations.custom(torch.sin, torch.sin, "own")
    with pytest.raises(ValueError, match="without a derivative"):
        activations.custom(torch.sin, None, "own")
    with pytest.raises(ValueError, match="without a derivative"):
        activations.custom(torch.sin)
    with pytest.raises(ValueError, match="without a value"):
        activations.custom(None, torch.cos)
    with pytest.raises(ValueError, match="which has no derivative"):
        HDNN(place(RING, WORLD), activation=torch.sin)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda z: 1.0, r"the derivative of activation 'own' is 1\.0 for a z of shape \(100,\)"),
        (lambda z: torch.ones(()), r"is a tensor of shape \(\) for a z"),
        (lambda z: torch.ones(3), r"is a tensor of shape \(3,\) for a z"),
    ],
)
def test_a_custom_activation_is_elementwise(result: Callable, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        activations.custom(lambda z: z + 0, result, "own")
    with pytest.raises(ValueError, match=words.replace("derivative", "value")):
        activations.custom(result, torch.ones_like, "own")


PATH = CommunicationGraph.path(4)
FAR = torch.zeros(8, 8).index_put((torch.tensor(0), torch.tensor(4)), torch.tensor(1.0))
WRONG = {
    "odd features": ({"features": 3}, "agent 0 has 3 features, but H2 splits"),
    "no features": ({"features": [2, 2, 0, 2]}, "agent 2 has 0 features"),
    "too few sizes": ({"features": [2, 2]}, "one for each of the 4 agents"),
    "fractional features": ({"features": 1.5}, "features is 1.5"),
    "no layers": ({"layers": 0}, "layers is 0"),
    "no step": ({"step": 0.0}, "step is 0.0"),
    "unknown architecture": ({"architecture": "H3"}, "did you mean 'H2'"),
    "unknown initial": ({"initial": "norm"}, "did you mean 'normal'"),
    "negative seed": ({"seed": -1}, "seed is -1"),
    "unknown activation": ({"activation": "tan"}, "did you mean 'tanh'"),
    "J not skew": ({"architecture": "H1", "coupling": torch.eye(8)}, "J is not skew"),
    "J outside": ({"architecture": "H1", "coupling": FAR - FAR.T}, "outside the pattern R"),
    "no J": ({"architecture": "H1"}, "needs a coupling J"),
    "X singular": ({"coupling": torch.zeros(4, 4)}, "X is singular"),
    "J of another size": ({"architecture": "H1", "coupling": torch.zeros(3, 3)}, r"expected \(8, 8\)"),
    "J for other layers": (
        {"architecture": "H1", "layers": 3, "coupling": torch.zeros(2, 8, 8)},
        "each of the 3 layers",
    ),
    "coupling of MS1": ({"architecture": "MS1", "coupling": "trained"}, "MS1 has J K\\^T = I and takes no coupling"),
    "coupling unknown": ({"coupling": "J1"}, "coupling is 'J1': H2 takes 'I'"),
    "damped H2": ({"damping": 0.1}, "damping needs the whole state in one part"),
    "negative damping": ({"architecture": "H1-J1", "damping": -1.0}, "damping is -1.0"),
    "odd J1": ({"architecture": "H1", "coupling": "J1", "features": 3}, "J1 joins two halves"),
    "split H1": ({"architecture": "H1-J1", "scheme": "split"}, "scheme 'split' needs half-steps"),
    "graphs of other layers": ({"layers": 2, "graphs": [RING]}, "1 graphs were given for 2 layers"),
    "graphs of others": ({"layers": 1, "graphs": [CommunicationGraph.ring(5)]}, "layer 0 has 5 agents, but 4"),
    "graphs outside": ({"layers": 1, "graphs": [CommunicationGraph.complete(4)]}, "layer 0 joins agents 0 and 2"),
    "patterns of other layers": ({"layers": 3, "pattern": [RING.pattern()] * 2}, "2 patterns were given for 3 layers"),
    "pattern outside its graph": (
        {"layers": 1, "graphs": [CommunicationGraph.path(4)], "pattern": [RING.pattern()]},
        r"layer 0: T has block \(0, 3\)",
    ),
    "J outside the graph of its layer": (
        {"architecture": "H1", "coupling": skew_on(RING, 2, (2,)), "layers": 2, "graphs": [RING, PATH]},
        r"J of layer 1 joins agents 0 and 3, and block \(0, 3\) is outside the pattern R of that layer",
    ),
    "one J outside the graph of a layer": (
        {"architecture": "H1", "coupling": skew_on(RING, 2), "layers": 2, "graphs": [RING, PATH]},
        "J of layer 1 joins agents 0 and 3",
    ),
    "X outside the graph of its layer": (
        {"coupling": near_identity(RING, 1), "layers": 2, "graphs": [PATH, PATH]},
        "X of layer 0 joins agents 0 and 3",
    ),
    "R outside the graph of a layer": (
        {"coupling": "trained", "coupling_pattern": RING.pattern(), "layers": 2, "graphs": [RING, PATH]},
        r"layer 1: R has block \(0, 3\), but agents 0 and 3 are not neighbours",
    ),
    "fractional layers": ({"layers": 2.5}, "layers is 2.5: expected a whole number"),
    "layers as text": ({"layers": "3"}, "layers is '3': expected a whole number"),
    "truth for layers": ({"layers": True}, "layers is True: expected a whole number"),
    "nothing stored": ({"store_every": 0}, "store_every is 0: expected a whole number"),
    "infinite step": ({"step": float("inf")}, "step is inf: expected a finite number"),
    "step as text": ({"step": "0.1"}, "step is '0.1': expected a finite number"),
    "fractional seed": ({"seed": 0.5}, "seed is 0.5"),
    "damping of NaN": ({"architecture": "H1-J1", "damping": float("nan")}, "damping is nan: expected a finite"),
    "infinite damping": ({"architecture": "H1-J1", "damping": float("inf")}, "damping is inf"),
    "names for graphs": ({"layers": 1, "graphs": ["ring:4"]}, "layer 0 is 'ring:4': expected a CommunicationGraph"),
    "one graph for graphs": ({"layers": 1, "graphs": RING}, "graphs is CommunicationGraph.*: expected a list"),
    "J with NaN": ({"architecture": "H1", "coupling": torch.full((8, 8), torch.nan)}, r"J is nan at \(0, 0\)"),
    "infinite X": ({"coupling": torch.eye(4) * torch.inf}, r"X is inf at \(0, 0\)"),
    "complex J": ({"architecture": "H1", "coupling": torch.zeros(8, 8) * 1j}, "J holds complex64: expected real"),
    "J with a gradient": (
        {"architecture": "H1", "coupling": torch.zeros(8, 8, requires_grad=True)},
        "J requires a gradient.*: detach it, or use 'trained'",
    ),
    "list of different J": (
        {"architecture": "H1", "coupling": [torch.zeros(8, 8), torch.zeros(7, 7)]},
        r"J is a list of parts of the shapes \[\(7, 7\), \(8, 8\)\]",
    ),
    "empty list of J": ({"architecture": "H1", "coupling": []}, "J is a list of parts of the shapes"),
    "no matrix": ({"coupling": 3}, r"X has shape \(\): expected \(4, 4\)"),
    "words for a coupling": ({"coupling": ["I", "I"]}, "X holds <U1: expected real numbers"),
    "R as an array": ({"coupling": "trained", "coupling_pattern": np.eye(4) + np.eye(4, k=2)}, r"R has block \(0, 2\)"),
    "unknown scheme": ({"scheme": "rk4"}, "unknown scheme 'rk4'"),
    "one-sided MS2": (
        {"architecture": "MS2", "pattern": Pattern.from_pairs(4, [(0, 0), (1, 1), (2, 2), (3, 3), (0, 1)])},
        r"T has block \(0, 1\) but not \(1, 0\)",
    ),
    "block outside": ({"pattern": Pattern.from_pairs(4, [(0, 0), (1, 1), (2, 2), (3, 3), (0, 2)])}, r"\(0, 2\)"),
    "empty row": ({"pattern": Pattern.from_pairs(4, [(0, 0), (1, 1), (2, 2)])}, "agent 3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_networks_are_refused_in_one_line(name: str) -> None:
    arguments, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as caught:
        HDNN(place(CommunicationGraph.ring(4), WORLD), **arguments)
    assert "\n" not in str(caught.value)


def test_wrong_inputs_are_refused() -> None:
    net = HDNN(place(CommunicationGraph.ring(4), WORLD), 2, 1)
    with pytest.raises(ValueError, match=r"input has shape \(3, 7\): expected \(batch, 8"):
        net(torch.zeros(3, 7))
    with pytest.raises(ValueError, match=r"input is torch\.float64"):
        net(torch.zeros(3, 8, dtype=torch.float64))


MEMORY = """
import sys, torch
from pathlib import Path
from hdnn_dist import HDNN, CommunicationGraph, activations, connect, place

def kilobytes(name):
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])

torch.set_num_threads(1)
layers = int(sys.argv[1])
net = HDNN(place(CommunicationGraph.ring(8), connect("local")), 16, layers, 1.0 / layers, sys.argv[2])
x = torch.randn(4000, net.local_features)
net.weights.grad = torch.zeros_like(net.weights)
net(x[:2]).sum().backward()
Path("/proc/self/clear_refs").write_text("5")  # the peak is from here on
before = kilobytes("VmRSS")
net(x).sum().backward()
gradient = net.weights.numel() * 4 / 1024  # of this pass, before it is added to the one that is there
print(kilobytes("VmHWM") - before - gradient)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads and resets the peak in /proc")
@pytest.mark.parametrize("architecture", ["H2", "MS1", "MS3"])
def test_activation_memory_does_not_grow_with_depth(architecture: str) -> None:
    """Peak resident memory that a pass forward and back adds, in processes of their own, 2048 layers against 64."""
    added = {}
    for layers in (64, 2048):
        command = [sys.executable, "-c", MEMORY, str(layers), architecture]
        exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # tensors are given back when they are freed
        output = subprocess.run(command, env=exact, capture_output=True, text=True, check=True).stdout
        added[layers] = float(output)
    state = 4000 * 8 * 16 * 4 / 1024  # kB of one state
    assert added[64] > 2 * state, "the measurement does not see the output and its gradient"
    assert added[2048] <= 1.1 * added[64]
