"""Penalties and the projection against their formulas, written with the dense K and b of the whole network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import hdnn_dist.analysis.bounds as bounds_file
from hdnn_dist import HDNN, CommunicationGraph, Readout, connect, place
from hdnn_dist.model.norms import coupling_norm, operator_norms, squared_norm_bound
from hdnn_dist.training.build import build
from hdnn_dist.training.config import ConfigError
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.loop import Trainer
from hdnn_dist.training.regularization import (
    SpectralProjection,
    add_smoothness_gradient,
    add_weight_penalty_gradient,
    smoothness,
    weight_penalty,
)

ALPHA, STEP = 0.7, 0.3


@pytest.fixture(params=["H2", "H1-J1"])
def net(request: pytest.FixtureRequest) -> HDNN:
    agents = place(CommunicationGraph.path(4), connect("local"))
    return HDNN(
        agents, [2, 4, 2, 6], layers=5, step=STEP, architecture=request.param, initial="normal", dtype=torch.float64
    )


def test_smoothness_is_its_formula(net: HDNN) -> None:
    """(alpha h / 2) sum_j ||K_{j+1} - K_j||_F^2 + ||b_{j+1} - b_j||^2, without a message."""
    before = net.agents.ledger.traffic().messages
    value = smoothness(net, ALPHA)
    assert net.agents.ledger.traffic().messages == before
    dense = net.dense()
    by_hand = 0.0
    for j in range(4):
        by_hand += float(((dense.K[j + 1] - dense.K[j]) ** 2).sum() + ((dense.b[j + 1] - dense.b[j]) ** 2).sum())
    assert value.item() == pytest.approx(ALPHA * STEP / 2 * by_hand, rel=1e-12)


def test_smoothness_divided_by_the_step(net: HDNN) -> None:
    """alpha / (2 h) sum ...: 1 / h^2 times the other."""
    divided, multiplied = smoothness(net, ALPHA, "divide"), smoothness(net, ALPHA)
    assert divided.item() == pytest.approx(multiplied.item() / STEP**2, rel=1e-12)
    with pytest.raises(ValueError, match="unknown scale 'halve'"):
        smoothness(net, ALPHA, "halve")


def test_equal_layers_are_smooth(net: HDNN) -> None:
    with torch.no_grad():
        net.weights.copy_(net.weights[:1].expand_as(net.weights))
    assert smoothness(net, ALPHA).item() == 0.0


def test_weight_penalties_are_half_a_squared_norm(net: HDNN) -> None:
    dense = net.dense()
    by_hand = ALPHA / 2 * float((dense.K**2).sum() + (dense.b**2).sum())
    assert weight_penalty(net, ALPHA).item() == pytest.approx(by_hand, rel=1e-12)
    head = Readout(net.agents, net)
    assert weight_penalty(head, ALPHA).item() == pytest.approx(ALPHA / 2 * (head.weights**2).sum().item(), rel=1e-12)


@pytest.mark.parametrize("graphs", [None, ["path", "ring", "ring", "path", "ring"]])
@pytest.mark.parametrize("scale", ["multiply", "divide"])
@pytest.mark.parametrize("kernel", ["torch", "auto"])
def test_gradients_that_are_added_are_those_of_the_penalties(kernel: str, scale: str, graphs: list[str] | None) -> None:
    """As training adds them, for layers that are alike and for a graph per layer."""
    ring, path = CommunicationGraph.ring(4), CommunicationGraph.path(4)
    each = None if graphs is None else [ring if name == "ring" else path for name in graphs]
    net = HDNN(
        place(ring, connect("local")), 2, 5, STEP, graphs=each, initial="normal", kernel=kernel, dtype=torch.float64
    )
    head = Readout(net.agents, net)
    (smoothness(net, ALPHA, scale) + weight_penalty(net, 2.0) + weight_penalty(head, 3.0)).backward()
    expected = [net.weights.grad, head.weights.grad]
    net.weights.grad, head.weights.grad = torch.zeros_like(net.weights), torch.zeros_like(head.weights)
    add_smoothness_gradient(net, ALPHA, scale)
    add_weight_penalty_gradient(net, 2.0)
    add_weight_penalty_gradient(head, 3.0)
    torch.testing.assert_close([net.weights.grad, head.weights.grad], expected, rtol=1e-12, atol=1e-12)


def test_penalties_have_gradients(net: HDNN) -> None:
    weight_penalty(net, ALPHA).backward()
    torch.testing.assert_close(net.weights.grad, ALPHA * net.weights.detach())


FAMILY = ("H2", "H1-J1", "H1-J2", "MS1", "MS2", "MS3", "MLP")
TREE = CommunicationGraph.tree(2, 2)
BOUND = 20.0


def network(name: str, seed: int = 0, **given: object) -> HDNN:
    """Uneven agents with weights far above any limit."""
    agents = place(TREE, connect("local"))
    wanted = {"layers": 4, "step": STEP, "initial": "normal", "dtype": torch.float64, **given}
    return HDNN(agents, [2, 4, 2, 6, 2, 8, 2], architecture=name, seed=seed, **wanted)  # type: ignore[arg-type]


def product_of_half_steps(net: HDNN) -> float:
    """The upper bound on the sensitivity, with the true norms of the dense matrices."""
    K, _, J = net.dense()
    name, h, m = net.architecture.name, net.step, K.shape[1] // 2
    if name == "MLP":
        factors = [norm(K_j) for K_j in K]
    elif name == "MS2":
        factors = [1 + h * norm(K_j) for K_j in K]
    elif name == "MS1":
        factors = [(1 + h * norm(K_j[m:, :m])) ** 2 for K_j in K]
    elif name == "MS3":
        factors = [(1 + h * norm(K_j[m:, :m]) ** 2) * (1 + h * norm(K_j[:m, m:]) ** 2) for K_j in K]
    elif name == "H2":
        X = norm(J[m:, :m])
        factors = [(1 + h * X * norm(K_j[:m, :m]) ** 2) * (1 + h * X * norm(K_j[m:, m:]) ** 2) for K_j in K]
    else:
        factors = [1 + h * norm(J) * norm(K_j) ** 2 for K_j in K]
    return math.prod(factors)


def norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))


def jacobian(net: HDNN, seed: int) -> Tensor:
    x = torch.as_tensor(np.random.default_rng(seed).standard_normal((1, net.local_features)))
    columns = [net.tangent(x, dx.unsqueeze(0))[1][0] for dx in torch.eye(x.shape[1], dtype=x.dtype)]
    return torch.stack(columns, dim=1)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(1e-6, 1e6), st.integers(0, 100))
def test_the_norm_bound_is_never_below_the_norm(rows: int, columns: int, size: float, seed: int) -> None:
    K = size * torch.as_tensor(np.random.default_rng(seed).standard_normal((rows, columns)))
    bound, squared = squared_norm_bound(K).item(), norm(K) ** 2
    assert squared * (1 - 1e-12) <= bound <= min(rows, columns) ** 0.125 * squared * (1 + 1e-12)


def test_the_norm_bound_of_zero_is_zero() -> None:
    assert squared_norm_bound(torch.zeros(3, 2, 4)).tolist() == [0.0] * 3


@pytest.mark.parametrize("name", FAMILY)
def test_the_norms_found_by_neighbours_are_upper_bounds(name: str) -> None:
    net = network(name)
    K, m = net.dense().K, int(net.features.sum()) // 2
    blocks = {"H2": [(0, 0), (1, 1)], "MS1": [(1, 0)], "MS3": [(1, 0), (0, 1)]}.get(name)
    parts = [K] if blocks is None else [K[:, r * m : (r + 1) * m, c * m : (c + 1) * m] for r, c in blocks]
    exact = torch.stack([torch.linalg.matrix_norm(part, 2) for part in parts], dim=1)
    size = max(half.field.coefficients.size for half in net.architecture.layer)  # 2 for K = U - U^T
    assert (size * operator_norms(net) >= exact).all()
    assert (operator_norms(net) >= torch.linalg.matrix_norm(net.operators(), 2)).all()


class TestProjection:
    @pytest.mark.parametrize("scheme", [None, "euler"])
    @pytest.mark.parametrize("name", FAMILY)
    def test_it_keeps_the_product_and_the_jacobian_below_the_bound(self, name: str, scheme: str | None) -> None:
        for seed in range(3):
            net = network(name, seed, scheme=scheme)
            assert product_of_half_steps(net) > BOUND
            SpectralProjection(net, BOUND)()
            assert norm(jacobian(net, seed)) <= product_of_half_steps(net) <= BOUND

    def test_a_coupling_of_a_larger_norm_counts(self) -> None:
        random = torch.as_tensor(np.random.default_rng(3).standard_normal((13, 13)))
        sizes = torch.tensor([1, 2, 1, 3, 1, 4, 1])
        owner = torch.arange(7).repeat_interleave(sizes)
        allowed = torch.as_tensor(TREE.matrix())[owner][:, owner]
        X = 5 * torch.eye(13, dtype=torch.float64) + random * allowed
        net = network("H2", coupling=X)
        assert coupling_norm(net) >= norm(X)
        SpectralProjection(net, BOUND)()
        assert norm(jacobian(net, 0)) <= product_of_half_steps(net) <= BOUND

    def test_a_coupling_counts_in_every_layer(self) -> None:
        """J2 of a star is larger than J2 of a path, whichever layer has it."""
        star, path = CommunicationGraph.star(7), CommunicationGraph.path(7)
        whole = CommunicationGraph.from_edges(np.unique(np.concatenate([path.edges, star.edges]), axis=0))
        agents = place(whole, connect("local"))
        nets = [HDNN(agents, 2, 2, architecture="H1-J2", graphs=graphs) for graphs in ([path, star], [star, path])]
        assert coupling_norm(nets[0]) == coupling_norm(nets[1]) >= max(norm(J) for J in nets[0].dense().J)
        assert coupling_norm(nets[0]) > coupling_norm(HDNN(place(path, agents.world), 2, 2, architecture="H1-J2"))

    def test_damping_counts(self) -> None:
        net = network("H1-J1", damping=3.0)
        SpectralProjection(net, BOUND)()
        assert product_of_half_steps(net) <= BOUND

    def test_a_graph_per_layer(self) -> None:
        path = CommunicationGraph.path(7)
        whole = CommunicationGraph.from_edges(np.unique(np.concatenate([path.edges, TREE.edges]), axis=0))
        net = HDNN(
            place(whole, connect("local")),
            layers=4,
            step=STEP,
            initial="normal",
            graphs=[path, TREE, TREE, path],
            dtype=torch.float64,
        )
        assert product_of_half_steps(net) > BOUND
        SpectralProjection(net, BOUND)()
        assert product_of_half_steps(net) <= BOUND

    def test_it_leaves_alone_what_is_small(self) -> None:
        """And a second projection changes next to nothing: the first has used its limits up, not overshot them."""
        net = network("H2")
        with torch.no_grad():
            net.weights.mul_(1e-3)
        before = net.weights.detach().clone()
        SpectralProjection(net, BOUND)()
        assert torch.equal(net.weights.detach(), before)

    def test_it_does_not_shrink_what_it_need_not(self) -> None:
        """For equal agents on a ring the bound on each norm is at most sqrt(3) too large: three agents read a block."""
        agents = place(CommunicationGraph.ring(6), connect("local"))
        net = HDNN(agents, layers=2, initial="normal", dtype=torch.float64)
        project = SpectralProjection(net, BOUND)
        project()
        K = net.dense().K[:, :6, :6]
        assert all(project.limits[0] / 3 <= norm(K_j) <= project.limits[0] for K_j in K)

    def test_biases_stay(self) -> None:
        net = network("H2")
        before = net.dense().b
        SpectralProjection(net, BOUND)()
        assert torch.equal(net.dense().b, before)

    def test_two_exchanges_between_neighbours(self) -> None:
        net = network("H2")
        project = SpectralProjection(net, BOUND)
        start = net.agents.ledger.traffic()
        project()
        spent = net.agents.ledger.traffic() - start
        directed = 2 * len(TREE.edges)
        assert (spent.messages, spent.bytes) == (2 * directed, 2 * directed * 8 * net.layers * 2)

    @pytest.mark.parametrize("name", FAMILY)
    def test_the_analysis_of_a_large_network_agrees(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the projection kept is what the bounds say: they measure norms in one way."""
        monkeypatch.setattr(bounds_file, "MOST_DENSE_FEATURES", 4)
        net = network(name)
        SpectralProjection(net, BOUND)()
        limits = bounds_file.bounds(net)
        assert not limits.spectral
        assert math.exp(limits.log_upper(net.layers)) <= BOUND

    @pytest.mark.parametrize("bound", [1.0, 0.5, math.inf, math.nan])
    def test_a_bound_that_cannot_be_kept(self, bound: float) -> None:
        with pytest.raises(ValueError, match="expected a finite number above 1"):
            SpectralProjection(network("H2"), bound)

    def test_a_trained_coupling_has_no_lasting_norm(self) -> None:
        with pytest.raises(ValueError, match="this one is trained"):
            SpectralProjection(network("H2", coupling="trained"), BOUND)


class TestTraining:
    def test_training_keeps_the_bound(self) -> None:
        """In float32, at the start and after every step, although the optimiser pushes beyond it."""
        small = ("data.samples=300", "epochs=2", "network.layers=6", "penalties.bound=50.0")
        config = load_config(None, small)
        job = build(config, CommunicationGraph.parse(config.graph), connect("local"))
        seen = [product_of_half_steps(job.net)]
        Trainer(job).run(lambda epoch, step: seen.append(product_of_half_steps(job.net)), lambda row: None)
        assert len(seen) > 3
        assert max(seen) <= 50.0
        assert max(seen) > 2.0

    def test_the_config_refuses_what_is_no_bound(self) -> None:
        with pytest.raises(ConfigError, match=r"penalties.bound is 0.5: it should be greater than 1"):
            load_config(None, ["penalties.bound=0.5"])
        with pytest.raises(ConfigError, match=r"penalties.smoothness_scale is 'halve'"):
            load_config(None, ["penalties.smoothness_scale='halve'"])
