"""The fused kernel does what the torch kernel does, and steps aside where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from battery import UNEVEN, asymmetric, graph_matrix
from problems import CUSTOM_VALUE, Problem, relative_error
from torch import Tensor

import hdnn_dist
from hdnn_dist import HDNN, CommunicationGraph, connect, place
from hdnn_dist.kernels.block_tables import TILE
from hdnn_dist.kernels.registry import KernelWarning
from hdnn_dist.propagation import activations
from hdnn_dist.propagation.activations import ACTIVATIONS
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config

numba = pytest.importorskip("numba", reason="numba is not installed: the torch kernel serves")
compiled = pytest.importorskip(
    "hdnn_dist.kernels.cpu.stepper", reason="numba cannot cache here: the torch kernel serves"
)

WORLD = connect("local")
GRAPH = CommunicationGraph.erdos_renyi(9, 0.4, seed=2)
GRID = CommunicationGraph.grid(3, 3)
EVEN = (4,) * 9
J = graph_matrix(GRID, 4, 4)
X = torch.eye(18, dtype=torch.float64) + 0.2 * graph_matrix(GRID, 2, 4)


def own_slope(z: Tensor) -> Tensor:
    return (1 + z.square()) ** -1.5


OWN = activations.custom(CUSTOM_VALUE, own_slope, name="own")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}  # 4 layers, sums of up to 1800 samples

ARCHITECTURES = ("H2", "H1-J1", "H1-J2", "MS1", "MS2", "MS3", "MLP")
CASES = {
    **{name: Problem(GRAPH, UNEVEN, name, layers=4) for name in ARCHITECTURES},
    **{
        f"{name}, T not symmetric": Problem(GRAPH, UNEVEN, name, layers=4, pattern=asymmetric(GRAPH, 3))
        for name in ARCHITECTURES
        if name != "MS2"
    },
    "MS2, T without some blocks": Problem(
        GRAPH, UNEVEN, "MS2", layers=4, pattern=tuple((i, k) for i, k in asymmetric(GRAPH, 3) if i == k or i + k == 9)
        + tuple((k, i) for i, k in asymmetric(GRAPH, 3) if i != k and i + k == 9),
    ),
    **{f"{name}, euler": Problem(GRAPH, UNEVEN, name, layers=4, scheme="euler") for name in ("H2", "MS1", "MS3")},
    **{
        f"{name}, graphs": Problem(
            CommunicationGraph.ring(9), UNEVEN, name, layers=4,
            graphs=(CommunicationGraph.path(9), *[CommunicationGraph.ring(9)] * 2, CommunicationGraph.path(9)),
        )
        for name in ARCHITECTURES
    },
    "H2, X": Problem(GRID, EVEN, "H2", layers=4, coupling=X[0]),
    "H2, X per layer": Problem(GRID, EVEN, "H2", layers=4, coupling=X),
    "H2, X trained": Problem(GRAPH, UNEVEN, "H2", layers=4, coupling="trained"),
    "H2, X trained, euler": Problem(GRAPH, UNEVEN, "H2", layers=4, coupling="trained", scheme="euler"),
    "H1, J": Problem(GRID, EVEN, "H1", layers=4, coupling=J[0] - J[0].mT),
    "H1, J per layer": Problem(GRID, EVEN, "H1", layers=4, coupling=J - J.mT, damping=0.2),
    "H1, J trained": Problem(GRAPH, UNEVEN, "H1", layers=4, coupling="trained", damping=0.2),
    "H1-J1, damped": Problem(GRAPH, UNEVEN, "H1-J1", layers=4, damping=0.3),
    "H1-J2, damped": Problem(GRAPH, UNEVEN, "H1-J2", layers=4, damping=0.3),
}  # fmt: skip


def network(problem: Problem, kernel: str, dtype: torch.dtype = torch.float64) -> HDNN:
    """With a ledger of its own."""
    net = problem.network(problem.agents(WORLD))
    net.kernel = kernel
    return net.to(dtype)


def is_compiled(net: HDNN, x: Tensor) -> bool:
    """Whether compiled code serves."""
    stepper = net._passes.stepper(x.numel() // x.shape[1], x.dtype)
    assert isinstance(stepper, compiled.CompiledStepper) == (stepper.kernel == "fused")
    return stepper.kernel == "fused"


def results(net: HDNN, x: Tensor, layers: slice = slice(None)) -> dict[str, Tensor]:
    """Output and all gradients of sum(w y)."""
    x = x.to(net.weights.dtype).requires_grad_()
    w = torch.as_tensor(np.random.default_rng(7).standard_normal(x.shape), dtype=x.dtype)
    net.zero_grad()
    y = net(x, layers=layers)
    (w * y).sum().backward()
    found = {"y": y.detach(), "x": x.grad, "weights": net.weights.grad}
    return found | ({"coupling": net.coupling.grad} if net.coupling.requires_grad else {})


def check_equal(given: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert given.keys() == expected.keys()
    for name, part in expected.items():
        assert given[name].dtype == part.dtype
        assert given[name].shape == part.shape
        assert relative_error(given[name], part) < tolerance, name


def check_ledgers(given: HDNN, expected: HDNN) -> None:
    """Messages and bytes, of each edge too, and rounds."""
    ledger, known = given.agents.ledger, expected.agents.ledger
    assert ledger.traffic().vector().tolist() == known.traffic().vector().tolist()
    assert ledger.rounds == known.rounds > 0


def check(problem: Problem, dtype: torch.dtype = torch.float64, layers: slice = slice(None)) -> None:
    """One problem with both kernels: numbers, drift, and what the ledger saw."""
    nets, x = [network(problem, kernel, dtype) for kernel in ("fused", "torch")], problem.inputs().to(dtype)
    given, expected = (results(net, x, layers) for net in nets)
    assert [is_compiled(net, x) for net in nets] == [True, False]
    check_equal(given, expected, TOLERANCE[dtype])
    check_ledgers(*nets)
    assert (nets[0].drift is None) == (nets[1].drift is None)
    assert (nets[0].drift or 0.0) < TOLERANCE[dtype]


@pytest.mark.parametrize("batch", [1, 16, 37, 300])
@pytest.mark.parametrize("name", CASES)
def test_float64(name: str, batch: int) -> None:
    """One column, a whole vector of them, a tile that is not full, and several tiles."""
    check(replace(CASES[name], batch=batch))


@pytest.mark.parametrize("name", CASES)
def test_float32(name: str) -> None:
    for batch in (5, 300):
        check(replace(CASES[name], batch=batch), torch.float32)


@pytest.mark.parametrize("name", CASES)
def test_positions(name: str) -> None:
    """Several tiles that begin and end inside a sample."""
    check(replace(CASES[name], batch=50, positions=(3, 2)))
    check(replace(CASES[name], batch=1, positions=(1,)), torch.float32)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("architecture", ["H2", "MLP", "MS1"])
def test_activations(activation: str, architecture: str) -> None:
    problem = Problem(GRAPH, UNEVEN, architecture, layers=4, batch=37, activation=activation)
    check(problem)
    check(problem, torch.float32)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_activations_far_from_zero(activation: str, dtype: torch.dtype) -> None:
    """Where they saturate, at zero, and where a number is infinite; y = s(x) by a network of one layer."""
    z = torch.cat([torch.linspace(-40, 40, 801), torch.tensor([0.0, 1e-30, 1e10, -1e10, torch.inf, -torch.inf])])
    values = []
    for kernel in ("fused", "torch"):
        problem = Problem(CommunicationGraph.path(2), (1, 1), "MLP", 1, activation=activation, pattern=((0, 0), (1, 0)))
        net = network(problem, kernel, dtype)  # both read agent 0, who has z
        net.load_dense(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]), torch.zeros(1, 2))
        values.append(net(torch.stack([z, torch.zeros_like(z)], 1).to(dtype)).detach())
    eps = torch.finfo(dtype).eps
    apart = {"softplus": 3e-9, "sigmoid": eps}  # torch's softplus is z from 20 on; ours of a sigmoid is 1/2 + tanh/2
    torch.testing.assert_close(*values, rtol=4 * eps, atol=apart.get(activation, 0.0))


@pytest.mark.parametrize("kernel", ["fused", "torch"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_is_not_lost(activation: str, kernel: str) -> None:
    """Not by fast-math, not by a comparison: an agent's NaN reaches its neighbours."""
    net = network(Problem(CommunicationGraph.path(3), (2, 2, 2), "H2", 1, activation=activation), kernel)
    x = torch.zeros(40, 6, dtype=torch.float64)
    x[3, 0] = torch.nan
    broken = net(x).isnan()
    assert broken[3].tolist() == [True, True, False, True, False, True]  # q of all reads p of agents 0 and 1
    assert not broken[[*range(3), *range(4, 40)]].any()


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("name", ["H1-J1", "MS2", "MLP", "H1, J per layer", "H1, J trained", "MS1, euler"])
def test_store_every(name: str, every: int) -> None:
    """7 layers: segments of one length, and a last one that is shorter."""
    layers = 4 if "per layer" in name else 7
    check(replace(CASES[name], batch=200, layers=layers, store_every=every))


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("name", ["H2", "H2, X per layer", "H1-J1", "H1, J per layer", "MS2"])
@pytest.mark.parametrize("layers", [slice(1, 3), slice(0, 1), slice(3, None), slice(2, 2), slice(-2, None)], ids=str)
def test_slices_of_layers(name: str, layers: slice, every: int) -> None:
    problem = replace(CASES[name], batch=20, store_every=every)
    if layers == slice(2, 2):
        x = problem.inputs()
        found = results(network(problem, "fused"), x, layers)
        assert torch.equal(found["y"], x)
        assert not found["weights"].any()
        return
    check(problem, layers=layers)


@pytest.mark.parametrize("kernel", ["fused", "torch"])
@pytest.mark.parametrize(("layers", "every"), [(7, 1), (7, 2), (7, 3), (6, 3), (2, 5)])
def test_memory_of_stored_states(layers: int, every: int, kernel: str) -> None:
    """ceil(N / k) states wait for the backward pass, whose gradients are those of storing all."""
    problem = replace(CASES["H1-J1"], layers=layers, batch=300, store_every=every)
    net, x = network(problem, kernel), problem.inputs()
    stored = net(x).grad_fn.saved_tensors[4:]  # behind x, y and the weights
    columns = sum(part.numel() for part in stored) / (ceil(layers / every) * x.shape[1])
    assert columns == (3 * TILE if kernel == "fused" else 300)  # tiles are filled up
    whole = results(network(replace(problem, store_every=1), kernel), x)
    check_equal(results(net, x), whole, 1e-14)


@pytest.mark.parametrize("kernel", ["fused", "torch"])
def test_nothing_is_stored_where_states_are_rebuilt(kernel: str) -> None:
    problem = replace(CASES["H2"], batch=20)
    assert network(problem, kernel)(problem.inputs()).grad_fn.saved_tensors[4:] == ()


@pytest.fixture
def _forced_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads for problems that are not worth it."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("this machine has one core")
    monkeypatch.setattr(compiled, "WORTH_THREADS", 0)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_forced_threads")
@pytest.mark.parametrize(
    "name",
    [name if name in ("H2", "MS1", "H1-J2, damped") else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_any_number_of_threads_gives_the_same_bits(name: str) -> None:
    check_threads(replace(CASES[name], batch=200))


@pytest.mark.usefixtures("_forced_threads")
def test_responses_share_rows_on_two_threads_too() -> None:
    net = check_threads(Problem(CommunicationGraph.ring(64), (2,) * 64, "H2", layers=2, batch=200))
    stepper = net._passes.stepper(200, torch.float32)
    torch.set_num_threads(2)
    slots = stepper._plan(stepper._threads()).net.steps.slots
    assert 0 < slots.max() < stepper._tables.rows - 1


def check_threads(problem: Problem) -> HDNN:
    net, x = network(problem, "fused", torch.float32), problem.inputs()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(results(net, x))
        stepper = net._passes.stepper(200, torch.float32)
        used = stepper._plan(stepper._threads()).passes
        assert used is (compiled.SERIAL if threads == 1 else compiled.THREADED)
    for part, expected in found[0].items():
        assert torch.equal(found[1][part], expected), part
    return net


def test_inputs_that_are_not_contiguous() -> None:
    problem = replace(CASES["H2"], batch=30, positions=(2,))
    nets = [network(problem, kernel) for kernel in ("fused", "torch")]
    x = problem.inputs().movedim(2, 0).contiguous().movedim(0, 2)
    assert not x.is_contiguous()
    found = []
    for net in nets:
        y = net(x.clone(memory_format=torch.preserve_format).requires_grad_())
        y.movedim(2, 0).flatten(1)[:, ::2].square().sum().backward()
        found.append({"y": y.detach(), "weights": net.weights.grad})
    check_equal(*found, 1e-12)


def test_two_passes_before_one_backward() -> None:
    """Tiles are shared between passes, so what the backward pass needs must not stay in them."""
    for name in ("H2", "H1-J1"):
        problem = replace(CASES[name], batch=40)
        net, x = network(problem, "fused"), problem.inputs()
        apart = [torch.autograd.grad(net(each).square().sum(), net.weights)[0] for each in (x, -2 * x)]
        together = torch.autograd.grad(net(x).square().sum() + net(-2 * x).square().sum(), net.weights)[0]
        assert relative_error(together, sum(apart)) < 1e-12


class TestWhichKernelServes:
    RING = CommunicationGraph.ring(6)

    def warned(self, **about: object) -> tuple[list[str], list[dict[str, Tensor]]]:
        """Warnings of passes of two widths, and the results, by "auto" and by "torch"."""
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("default")
            found = []
            for kernel in ("auto", "torch"):
                net = HDNN(place(self.RING, WORLD), 4, 3, kernel=kernel, **about)
                x = torch.linspace(-1, 1, 24 * 10).reshape(10, 24)
                found += [results(net, x[:4]), results(net, x)]
        return [str(each.message) for each in seen if each.category is KernelWarning], found

    @pytest.mark.parametrize(
        ("about", "reason"),
        [
            ({"activation": OWN}, "it does not know the activation 'own'"),
            ({"dtype": torch.bfloat16}, "it computes in float32 and float64, not in torch.bfloat16"),
        ],
        ids=["activation", "bfloat16"],
    )
    def test_what_it_does_not_know_is_left_to_torch(self, about: dict[str, object], reason: str) -> None:
        told, found = self.warned(**about)
        assert told == [f"the fused kernel cannot be used: {reason}; the slower torch kernel serves"]
        for given, expected in zip(found[:2], found[2:], strict=True):
            assert all(torch.equal(given[part], expected[part]) for part in expected)

    def test_a_built_in_name_with_other_functions_is_not_taken_for_it(self) -> None:
        tanh = activations.custom(CUSTOM_VALUE, own_slope, name="tanh")
        told, found = self.warned(activation=tanh)
        assert len(told) == 1
        assert torch.equal(found[1]["y"], found[3]["y"])

    def test_no_warning_where_it_serves(self) -> None:
        assert self.warned()[0] == []
        graphs = [self.RING, CommunicationGraph.path(6), self.RING]
        assert self.warned(graphs=graphs)[0] == []

    def test_auto_takes_it(self) -> None:
        x = torch.zeros(5, 12)
        assert is_compiled(HDNN(place(self.RING, WORLD), 2, 2), x)
        assert not is_compiled(HDNN(place(self.RING, WORLD), 2, 2, kernel="torch"), x)

    @pytest.mark.parametrize(
        ("about", "reason"),
        [
            ({"activation": OWN}, "it does not know the activation 'own'"),
            ({"dtype": torch.bfloat16}, "it computes in float32 and float64"),
        ],
        ids=["activation", "bfloat16"],
    )
    def test_fused_insists(self, about: dict[str, object], reason: str) -> None:
        net = HDNN(place(self.RING, WORLD), 2, 2, kernel="fused", **about)
        with pytest.raises(ValueError, match=f"^kernel 'fused' cannot be used: {reason}") as error:
            net(torch.zeros(3, 12, dtype=net.weights.dtype))
        assert str(error.value).endswith("use 'auto' or 'torch'")
        assert "\n" not in str(error.value)

    def test_an_unknown_kernel(self) -> None:
        with pytest.raises(ValueError, match=r"^unknown kernel 'fusd': did you mean 'fused'\? there are [^\n]*$"):
            HDNN(place(self.RING, WORLD), 2, 2, kernel="fusd")


class TestConfig:
    def test_the_network_has_the_kernel_of_the_config(self) -> None:
        for kernel in ("auto", "torch", "fused"):
            config = load_config(None, [f"network.kernel={kernel}"])
            assert build(config, CommunicationGraph.ring(8), WORLD).net.kernel == kernel

    def test_an_unknown_kernel(self) -> None:
        config = load_config(None, ["network.kernel=fusd"])
        with pytest.raises(ValueError, match=r"^unknown kernel 'fusd': did you mean 'fused'"):
            build(config, CommunicationGraph.ring(8), WORLD)


PASSES = """
import sys
{first}
import torch
from hdnn_dist import HDNN, CommunicationGraph, connect, place

agents = place(CommunicationGraph.ring(6), connect("local"))
for architecture in ("H2", "H1-J1"):
    found = []
    for kernel in ("auto", "torch"):
        net = HDNN(agents, 2, 3, architecture=architecture, kernel=kernel)
        for width in (3, 40):
            x = torch.linspace(-1, 1, 12 * width).reshape(width, 12).requires_grad_()
            y = net(x)
            y.square().sum().backward()
            found.append((y, x.grad, net.weights.grad))
    for given, expected in zip(found[:2], found[2:]):
        assert all(map(torch.equal, given, expected))
print(type(HDNN(agents, 2, 2)._passes.stepper(3, torch.float32)).__name__)
"""


class TestWithoutCompiler:
    """In a process of its own: what has been imported here stays imported."""

    @staticmethod
    def run(first: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        started = [sys.executable, "-c", PASSES.format(first=first)]
        return subprocess.run(started, capture_output=True, text=True, env=variables, timeout=250, check=False)

    def check(self, process: subprocess.CompletedProcess[str], reason: str) -> None:
        assert process.returncode == 0, process.stderr
        assert process.stdout.split() == ["SemiImplicitStepper"]
        told = [line for line in process.stderr.splitlines() if "KernelWarning" in line]
        assert len(told) == 1, process.stderr
        assert reason in told[0]

    def test_numba_is_missing(self) -> None:
        self.check(self.run("sys.modules['numba'] = None"), "it cannot be imported (import of numba halted")

    def test_no_folder_for_the_cache(self, tmp_path: Path) -> None:
        """A copy of the package, as if installed where nobody may write, for a user without a home."""
        blocked = tmp_path / "file"
        blocked.touch()
        copy = tmp_path / "hdnn_dist"
        shutil.copytree(Path(hdnn_dist.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
            (folder / "__pycache__").touch()
        places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), str(blocked / "below"))
        process = self.run(f"sys.path.insert(0, {str(tmp_path)!r})", PYTHONDONTWRITEBYTECODE="1", **places)
        self.check(process, "it could not be compiled (cannot cache function")
