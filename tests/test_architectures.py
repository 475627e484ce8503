"""Architectures as data: what is known of a layer follows from what it is, under whatever name it is registered."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hdnn_dist import HDNN, CommunicationGraph, Pattern, check, connect, place
from hdnn_dist.analysis.bounds import bounds
from hdnn_dist.analysis.sensitivity import exact
from hdnn_dist.analysis.symplectic import is_symplectic, residual, structure_matrix
from hdnn_dist.propagation.architectures import ARCHITECTURES, H1, H2, MS1, MS3, Architecture, HalfStep, Operator
from hdnn_dist.propagation.linear_map import Coefficients
from hdnn_dist.propagation.vector_fields import Direct, Gradient, Pointwise, Skew
from hdnn_dist.training.regularization import SpectralProjection

GRAPH = CommunicationGraph.grid(2, 3)
DRAWS = 100


class Symmetric(Pointwise):
    """s((K + K^T / 2) x + b)."""

    coefficients = Coefficients(1.0, 0.5)


WHOLE = {
    "residual": HalfStep(Direct, "y", "y"),
    "backwards": HalfStep(Direct, "y", "y", factor=-2.0),
    "gradient flow": HalfStep(Gradient, "y", "y", factor=-1.0),
    "symmetric": HalfStep(Symmetric, "y", "y"),
    "replacing": HalfStep(Gradient, "y", "y", replaces=True),
}
PQ = (Operator("Kp", rows=0, columns=0, biases=(0,)), Operator("Kq", rows=1, columns=1, biases=(1,)))
NEW = {
    **{name: Architecture(name, ("y",), False, (Operator("K"),), (half,), True) for name, half in WHOLE.items()},
    "skew": Architecture("skew", ("y",), False, (Operator("U", mirrored=True),), (HalfStep(Skew, "y", "y"),), True),
    "coupled": replace(H1, name="coupled", coupling="J2"),
    "pointwise, coupled": replace(
        H1, name="pointwise, coupled", layer=(HalfStep(Direct, "y", "y", coupled="C"),), coupling="J2"
    ),
    "mixed": Architecture(  # a gradient and a pointwise field take turns
        "mixed",
        ("p", "q"),
        True,
        PQ,
        (HalfStep(Gradient, "q", "p", -1.0, 1), HalfStep(Direct, "p", "q", 0.5, 0)),
        False,
    ),
    "together": Architecture(  # two half-steps move the same part at once
        "together",
        ("p", "q"),
        True,
        PQ,
        (HalfStep(Direct, "q", "p", 1.0, 1), HalfStep(Gradient, "p", "p", 1.0, 0)),
        True,
    ),
    "swapped": replace(H2, name="swapped", layer=H2.layer[::-1]),
    "leapfrog": replace(MS3, name="leapfrog", layer=(*MS3.layer, MS3.layer[0])),
}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, architecture in NEW.items():
        monkeypatch.setitem(ARCHITECTURES, name, architecture)


def network(name: str, seed: int = 0, kernel: str = "torch", layers: int = 2, **more: object) -> HDNN:
    agents = place(GRAPH, connect("local"))
    return HDNN(agents, 4, layers, 0.4, name, seed, kernel=kernel, initial="normal", dtype=torch.float64, **more)


def sample(net: HDNN, batch: int = 1) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(net.seed).standard_normal((batch, net.local_features)))


@pytest.mark.parametrize("name", NEW)
def test_the_upper_bound_is_above_the_true_norm_on_100_draws(name: str) -> None:
    """Inputs near zero, where every slope is near one, and far from it."""
    for seed in range(DRAWS):
        net = network(name, seed)
        (_, M), upper = next(exact(net, sample(net) * (seed % 3) / 10, [2])), bounds(net).log_upper(2)
        assert math.log(torch.linalg.matrix_norm(M, 2)) <= upper + 1e-12
    assert upper < 50, "a bound that says nothing"


@pytest.mark.parametrize("name", NEW)
def test_conditions_are_the_sparsity_of_the_jacobian(name: str) -> None:
    whole = GRAPH.pattern()
    kept = (np.random.default_rng(1).random(len(whole)) < 0.5) | (whole.rows == whole.columns)
    T = None if name == "skew" else Pattern(GRAPH.agents, whole.rows[kept], whole.columns[kept])
    net = network(name, pattern=T)
    (_, M) = next(exact(net, sample(net), [2]))
    order = torch.as_tensor(np.argsort(net.architecture.dense_rows(net.features)))
    blocks = M[order][:, order].unflatten(0, (-1, 4)).unflatten(2, (-1, 4))
    found = check(GRAPH, T, None, 2, architecture=name)
    np.testing.assert_array_equal(found.influence, (blocks != 0).any(3).any(1).numpy())


@pytest.mark.parametrize("name", NEW)
def test_the_compiled_kernel_computes_it_too(name: str) -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    found = []
    for kernel in ("torch", "fused"):
        net = network(name, kernel=kernel, layers=3)
        x = sample(net, 40).requires_grad_()
        y = net(x)
        (y * torch.arange(40.0).unsqueeze(1)).sum().backward()
        found.append((y.detach(), x.grad, net.weights.grad, net.agents.ledger.traffic().bytes))
    for given, expected in zip(*(each[:3] for each in found), strict=True):
        assert float((given - expected).abs().max()) <= 1e-10 * float(expected.abs().max())
    assert found[0][3] == found[1][3]


def test_symplecticity_and_volume_follow_from_the_half_steps() -> None:
    """What is said by construction holds to rounding; what is not said does not."""
    said = {name: architecture.symplectic for name, architecture in {**ARCHITECTURES, **NEW}.items()}
    assert {name for name, holds in said.items() if holds} == {"H2", "MS3", "swapped", "leapfrog"}
    for name in NEW:
        net = network(name)
        (_, M), J = next(exact(net, sample(net), [2])), structure_matrix(net)
        assert J is not None
        assert is_symplectic(net) == (residual(M, J) < 1e-12)
        if net.architecture.keeps_volume:
            assert abs(abs(float(torch.linalg.det(M))) - 1) < 1e-8
            assert bounds(net).lower == 1.0
        else:
            assert bounds(net).lower is None


def test_the_default_coupling_is_a_field_of_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.equal(network("coupled").dense().J, network("H1-J2").dense().J)
    assert torch.equal(network("swapped").dense().J, network("H2").dense().J)
    monkeypatch.setitem(ARCHITECTURES, "bare", replace(H2, name="bare", coupling=None))
    with pytest.raises(
        ValueError, match="architecture 'bare' needs a coupling X: pass coupling='I', 'trained' or a matrix"
    ):
        network("bare")


@pytest.mark.parametrize("name", ["residual", "backwards", "gradient flow", "symmetric", "skew", "mixed", "leapfrog"])
def test_the_projection_keeps_the_sensitivity_within_its_bound(name: str) -> None:
    for seed in range(5):
        net = network(name, seed)
        SpectralProjection(net, 1.5)()
        (_, M) = next(exact(net, sample(net) / 10, [2]))
        assert bounds(net).log_upper(2) <= math.log(1.5)
        assert torch.linalg.matrix_norm(M, 2) <= 1.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer": (HalfStep(Direct, "y", "w"),)}, "names a part that the state has not; its parts are y, z"),
        ({"layer": (HalfStep(Direct, "y", "z", operator=1),)}, "uses operator 1, but there are 1, from 0 on"),
        ({"layer": (HalfStep(Direct, "y", "z", bias=2),)}, "uses bias 2, which operator 0 has not"),
        ({"layer": (HalfStep(Direct, "y", "y"),)}, "cannot be undone: read one part and add to another"),
        ({"layer": (HalfStep(Direct, "y", "z", replaces=True),)}, "cannot be undone"),
        ({"operators": (*MS1.operators, Operator("K"))}, "different numbers of biases"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(MS1, **change)


def test_a_gradient_takes_no_coefficients() -> None:
    with pytest.raises(TypeError, match="it takes no coefficients"):
        type("Odd", (Gradient,), {"coefficients": Coefficients(0.0, 1.0)})
