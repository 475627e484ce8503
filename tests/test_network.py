"""HDNN in one process against the oracle and the published implementation: contract 1, 3 and 6."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Problem, check_against_oracle, relative_error

from hdnn_dist import HDNN, CommunicationGraph, connect, place
from hdnn_dist.network import DriftWarning
from hdnn_dist.patterns import Pattern

WORLD = connect("local")
DATA = Path(__file__).parent / "data"
ARCHITECTURES = ("H2", "H1-J1")


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Random connected graphs, uneven sizes, patterns inside the graph (asymmetric too), shapes."""
    agents = draw(st.integers(2, 7))
    edges = {(draw(st.integers(0, i - 1)), i) for i in range(1, agents)}  # a random tree, so that it is connected
    edges |= {(i, k) for i in range(agents) for k in range(i + 1, agents) if draw(st.booleans())}
    graph = CommunicationGraph(agents, sorted(edges))
    allowed = [(i, k) for i in range(agents) for k in range(agents) if graph.contains(i, k)]
    pattern = [pair for pair in allowed if pair[0] == pair[1] or draw(st.booleans())]
    return Problem(
        graph,
        features=tuple(2 * draw(st.integers(1, 3)) for _ in range(agents)),
        architecture=draw(st.sampled_from(ARCHITECTURES)),
        layers=draw(st.integers(1, 5)),
        step=draw(st.floats(0.05, 0.5)),
        batch=draw(st.integers(1, 4)),
        positions=draw(st.sampled_from([(), (1,), (2, 3)])),
        pattern=tuple(pattern),
        store_every=draw(st.integers(1, 6)),
        seed=draw(st.integers(0, 99)),
    )


@given(problems())
@settings(max_examples=60, deadline=None)
def test_equals_the_dense_oracle(problem: Problem) -> None:
    check_against_oracle(problem, WORLD)


def golden(name: str) -> dict[str, torch.Tensor]:
    with np.load(DATA / f"{name}.npz") as file:
        return {key: torch.as_tensor(file[key]) for key in file.files}


GOLDEN = {
    "H1_J1": ("H1-J1", CommunicationGraph.complete(4), 2),
    "H2_ring8": ("H2", CommunicationGraph.ring(8), 2),
    "H2_full8": ("H2", CommunicationGraph.complete(8), 2),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_equals_the_published_implementation(name: str) -> None:
    """Outputs and gradients of the authors' code, in float64. For H2 their (u, v) is our (q, p)."""
    vectors, (architecture, graph, features) = golden(name), GOLDEN[name]
    n = vectors["y0"].shape[1]
    ours = torch.arange(n).roll(n // 2) if architecture == "H2" else torch.arange(n)  # our place -> theirs
    net = HDNN(place(graph, WORLD), features, len(vectors["K"]), float(vectors["h"]), architecture, dtype=torch.float64)
    net.load_dense(vectors["K"][:, ours][:, :, ours], vectors["b"][:, ours])
    order = ours[torch.argsort(oracle.dense_order((features,) * graph.agents))]  # our row -> theirs
    x = vectors["y0"][:, order].requires_grad_()
    y = net(x)
    (vectors["w"][:, order] * y).sum().backward()
    assert relative_error(y.detach(), vectors["yN"][:, order]) < 1e-10
    assert relative_error(x.grad, vectors["grad_y0"][:, order]) < 1e-10
    grad_K, grad_b = net._dense_view.fill(net.weights.grad)
    assert relative_error(grad_K, vectors["grad_K"][:, ours][:, :, ours] * (net.dense().K != 0)) < 1e-10
    assert relative_error(grad_b, vectors["grad_b"][:, ours]) < 1e-10


def test_dense_and_load_dense_are_inverse() -> None:
    agents = place(CommunicationGraph.erdos_renyi(6, 0.5, seed=1), WORLD)
    for architecture in ARCHITECTURES:
        first, second = (HDNN(agents, [2, 4, 2, 6, 2, 2], 3, architecture=architecture, seed=s) for s in (0, 1))
        second.load_dense(*first.dense()[:2])
        assert torch.equal(first.weights, second.weights)


def test_load_dense_refuses_an_entry_outside_the_pattern() -> None:
    net = HDNN(place(CommunicationGraph.path(4), WORLD), 2, 2)
    K, b, _ = net.dense()
    K[1, 0, 3] = 1.0
    with pytest.raises(ValueError, match="layer 1 has the entry 1 at row 0, column 3, which lies outside"):
        net.load_dense(K, b)
    with pytest.raises(ValueError, match=r"needs K \(layers, 8, 8\)"):
        net.load_dense(K[:, :4], b)


def test_the_coupling_of_the_dense_view_drives_the_layer() -> None:
    """y+ - y = h J K^T s(K y + b) with the J that dense() returns."""
    net = HDNN(place(CommunicationGraph.ring(4), WORLD), 4, 1, 0.1, "H1-J1", dtype=torch.float64)
    K, b, J = net.dense()
    y = torch.randn(3, 16, dtype=torch.float64)
    order = oracle.dense_order((4,) * 4)
    assert relative_error(net(y).detach()[:, order], oracle.h1(y[:, order], K, b, J, 0.1)) < 1e-12


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
import resource, sys, torch
from hdnn_dist import HDNN, CommunicationGraph, connect, place
torch.set_num_threads(1)
layers = int(sys.argv[1])
net = HDNN(place(CommunicationGraph.ring(8), connect("local")), 16, layers, 1.0 / layers)
x = torch.randn(4000, net.local_features)
net.weights.grad = torch.zeros_like(net.weights)
net(x[:2]).sum().backward()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
y = net(x)
y.sum().backward()
print(peak() - before, net.drift)
"""


def test_activation_memory_does_not_grow_with_depth() -> None:
    """Peak resident memory that a pass forward and back adds, in processes of their own, 2048 layers against 64."""
    added = {}
    for layers in (64, 2048):
        output = subprocess.run(
            [sys.executable, "-c", MEMORY, str(layers)], capture_output=True, text=True, check=True
        ).stdout
        added[layers] = float(output.split()[0])
    state = 4000 * 8 * 16 * 4 / 1024  # kB of one state
    assert added[64] > 3 * state, "the measurement sees nothing"
    assert added[2048] <= 1.1 * added[64]
