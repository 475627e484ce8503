"""What surrounds the CUDA graphs of a stepper, with a stand-in that replays by calling; and the graphs on a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from battery import UNEVEN, asymmetric
from problems import CUSTOM_VALUE, Problem, relative_error
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from hdnn_dist import HDNN, CommunicationGraph, connect, place
from hdnn_dist.kernels import registry
from hdnn_dist.kernels.cuda import graphs as cuda_graphs
from hdnn_dist.propagation import activations
from hdnn_dist.propagation.stepper import Propagator

GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not GPU, reason="torch sees no CUDA device here")

WORLD = connect("local", "cuda" if GPU else "cpu")
GRAPH = CommunicationGraph.erdos_renyi(9, 0.4, seed=2)
RING = CommunicationGraph.ring(8)
OWN = activations.custom(CUSTOM_VALUE, lambda z: (1 + z.square()) ** -1.5, name="own")
UNEVEN_BLOCKS = Problem(GRAPH, UNEVEN, "H2", layers=4, batch=7, positions=(2, 3), pattern=asymmetric(GRAPH, 3))
SMALL = Problem(RING, (2,) * 8, "H2", layers=4, batch=37)


def network(problem: Problem, kernel: str, dtype: torch.dtype = torch.float32) -> HDNN:
    """With a ledger of its own."""
    net = problem.network(problem.agents(WORLD))
    net.kernel = kernel
    return net.to(dtype)


def results(net: HDNN, x: Tensor, layers: slice = slice(None)) -> dict[str, Tensor]:
    """Output, and gradients of sum(w * y)."""
    x = x.to(net.weights).requires_grad_()
    w = torch.as_tensor(np.random.default_rng(7).standard_normal(x.shape)).to(x)
    net.zero_grad()
    y = net(x, layers)
    (w * y).sum().backward()
    return {"y": y.detach(), "x": x.grad, "weights": net.weights.grad}


def errors(given: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    return {part: relative_error(given[part].double(), expected[part].double()) for part in expected}


def chosen(problem: Problem, kernel: str, dtype: torch.dtype = torch.float32) -> Propagator | str:
    """What a GPU would be given: the first of the table that serves, or why the last one does not."""
    portable = network(problem, "torch", dtype)._passes.stepper(9, dtype)
    asked = [known for known in registry.KERNELS if kernel in known.asked.get("cuda", ())]
    tried = [known.attempt(portable.system, portable) for known in asked]
    return next((made for made in tried if not isinstance(made, str)), tried[-1])


class Called:
    """In place of ``Captured``: buffers of its own, and a call of which the ledger hears nothing where that replays."""

    def __init__(self, net: HDNN, function: Callable[..., list[Tensor]], like: Sequence[Tensor]) -> None:
        self.routes, self.function = net.agents.ledger._routes, function
        self.own = [part.detach().clone() for part in like]
        for _ in range(cuda_graphs.WARM_UPS + 1):
            function(*self.own)

    def __call__(self, *given: Tensor) -> list[Tensor]:
        counted = [route._exchanges.copy() for route in self.routes]
        for own, part in zip(self.own, given, strict=True):
            own.copy_(part)
        outputs = self.function(*self.own)
        for route, before in zip(self.routes, counted, strict=True):
            route._exchanges = before
        return [part.clone() for part in outputs]


def graphed(problem: Problem, dtype: torch.dtype = torch.float64) -> HDNN:
    """A network that a ``GraphedStepper`` carries out, whatever the device."""
    net = network(problem, "torch", dtype)

    def make(width: int, dtype: torch.dtype) -> object:
        portable = registry.portable_stepper(net.system, width, dtype)
        return cuda_graphs.make(portable.system, portable, "cuda graph")

    net._passes.stepper = lru_cache(maxsize=4)(make)
    return net


GRAPHED = {
    **{name: replace(UNEVEN_BLOCKS, architecture=name) for name in ("H2", "MS1", "MS3", "H1-J1", "H1-J2", "MLP")},
    "MS2": replace(UNEVEN_BLOCKS, architecture="MS2", pattern=None),
    "every third state": replace(UNEVEN_BLOCKS, architecture="H1-J1", store_every=3),
    "H2, X trained": replace(UNEVEN_BLOCKS, coupling="trained"),
    "H2, euler": replace(UNEVEN_BLOCKS, scheme="euler", store_every=2),
}


class TestCudaGraphs:
    def check(self, problem: Problem) -> None:
        """Several steps with other inputs and weights, one without gradients, one of some layers only."""
        nets, x = [graphed(problem), network(problem, "torch", torch.float64)], problem.inputs().to(WORLD.device)
        for scale in (1, -2, 0.5):
            given, expected = (results(net, scale * x) for net in nets)
            assert max(errors(given, expected).values()) < 1e-12
            with torch.no_grad():
                assert relative_error(nets[0](3 * x), nets[1](3 * x)) < 1e-12
                for net in nets:
                    net.weights.mul_(1.5)
        given, expected = (results(net, x, slice(1, 3)) for net in nets)
        assert max(errors(given, expected).values()) < 1e-12
        seen = [net.agents.ledger.traffic() for net in nets]
        assert seen[0].messages == seen[1].messages > 0
        assert np.array_equal(seen[0].edge_bytes, seen[1].edge_bytes)

    @pytest.mark.parametrize("name", GRAPHED)
    def test_what_surrounds_the_graphs(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        net = graphed(GRAPHED[name])
        made: list[HDNN] = []
        monkeypatch.setattr(cuda_graphs, "Captured", lambda function, like: Called(made[0], function, like))
        monkeypatch.setitem(globals(), "graphed", lambda problem: made.append(net) or net)
        self.check(GRAPHED[name])

    @needs_gpu
    @pytest.mark.parametrize("name", GRAPHED)
    def test_equals_the_torch_kernel(self, name: str) -> None:
        self.check(GRAPHED[name])

    def test_two_passes_before_one_backward(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("H2", "H1-J1"):
            net, x = graphed(GRAPHED[name]), GRAPHED[name].inputs().to(WORLD.device)
            if not GPU:
                monkeypatch.setattr(
                    cuda_graphs, "Captured", lambda function, like, net=net: Called(net, function, like)
                )
            apart = [torch.autograd.grad(net(each).square().sum(), net.weights)[0] for each in (x, -2 * x)]
            together = torch.autograd.grad(net(x).square().sum() + net(-2 * x).square().sum(), net.weights)[0]
            assert relative_error(together, sum(apart)) < 1e-12


class TestNothingIsReadOnTheHost:
    """What a pass does must not depend on numbers, or the host would have to wait for them."""

    @pytest.mark.parametrize("name", GRAPHED)
    def test_steppers(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """With tensors that have shapes and no numbers: asking for one raises."""
        problem = GRAPHED[name]
        net = network(problem, "torch", torch.float64)
        monkeypatch.setattr(net._passes.drift, "watch", lambda drift: None)  # which looks at it on a CPU
        results(net, problem.inputs())
        with FakeTensorMode(allow_non_fake_inputs=True):
            shape = problem.batch, sum(problem.features), *problem.positions
            x = torch.empty(shape, dtype=torch.float64, device=WORLD.device, requires_grad=True)
            found = torch.autograd.grad(net(x).sum(), [x, net.weights])
            assert [part.shape for part in found] == [x.shape, net.weights.shape]
            with pytest.raises(DataDependentOutputException):
                bool(found[0].sum() > 0)


class TestWhatIsGraphed:
    @pytest.mark.parametrize("change", [{"architecture": "H1-J1"}, {"features": (18,) * 8}, {"coupling": "trained"}],
                             ids=str)  # fmt: skip
    def test_what_triton_does_not_serve(self, change: dict[str, object]) -> None:
        problem = replace(SMALL, **change)
        assert chosen(problem, "auto").kernel == "cuda graph"
        assert isinstance(chosen(problem, "fused"), str)

    def test_float64(self) -> None:
        assert chosen(SMALL, "auto", torch.float64).kernel == "cuda graph"

    def test_all_where_triton_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "hdnn_dist.kernels.cuda.stepper", None)
        assert chosen(SMALL, "auto").kernel == "cuda graph"
        assert chosen(SMALL, "triton").startswith("it cannot be imported")

    def test_nothing_that_may_change(self) -> None:
        graphs = (RING, CommunicationGraph.path(8)) * 2
        assert chosen(replace(SMALL, graphs=graphs), "auto").endswith("one graph for all layers")
        assert "does not know the activation 'own'" in chosen(replace(SMALL, activation=OWN), "auto")

    @needs_gpu
    def test_on_a_gpu(self) -> None:
        assert network(replace(SMALL, architecture="MS2"), "auto").kernel_for(9) == "cuda graph"


@needs_gpu
@pytest.mark.parametrize("architecture", ["H2", "MS1", "MS3"])
def test_shared_weights(architecture: str) -> None:
    """Without a copy for each agent, replayed, beside the portable pass with copies; the ledger hears of as much."""
    nets = [
        HDNN(place(GRAPH, WORLD), 4, 3, 0.3, architecture, shared=True, dtype=torch.float64, kernel=kernel)
        for kernel in ("torch", "shared")
    ]
    assert isinstance(nets[1]._passes.stepper(2, torch.float64), cuda_graphs.GraphedStepper)
    assert nets[1].kernel_for(2) == "shared"
    for scale in (1, -2):
        found = []
        for net in nets:
            x = torch.full((2, 36), scale, dtype=torch.float64, device=WORLD.device).cumsum(1).div(36).requires_grad_()
            net.zero_grad()
            y = net(x)
            y.square().sum().backward()
            found.append((y.detach(), x.grad, net.shared.roles.grad.clone(), net.tangent(x.detach(), x.detach())[1]))
        assert all(relative_error(given, expected) < 1e-12 for expected, given in zip(*found, strict=True))
    seen = [net.agents.ledger.traffic() for net in nets]
    assert seen[0].messages == seen[1].messages > 0
