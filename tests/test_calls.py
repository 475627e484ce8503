"""A network called as users call it: some layers, no sample, from threads, copied, changed, in inference mode."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Problem, dense_answer, relative_error
from torch import Tensor

from hdnn_dist import HDNN, CommunicationGraph, Readout, activations, connect, place
from hdnn_dist.model.propagation import DriftWarning

WORLD = connect("local")
FEATURES = (2, 4, 2, 6, 2, 4, 8, 2, 4)
GRAPH = CommunicationGraph.erdos_renyi(9, 0.4, seed=2)
KERNELS = ("auto", "torch")
FAMILY = ("H2", "H1-J1", "MS1", "MS2", "MS3", "MLP")
LAYERS = 5
ENDS = st.none() | st.integers(-7, 7)


def network(architecture: str = "H2", kernel: str = "auto", dtype: torch.dtype = torch.float64, **more: object) -> HDNN:
    agents = place(GRAPH, WORLD)
    return HDNN(agents, FEATURES, LAYERS, 0.3, architecture, kernel=kernel, dtype=dtype, **more)


def samples(net: HDNN, batch: int, *positions: int) -> Tensor:
    shape = (batch, net.local_features, *positions)
    return torch.as_tensor(np.random.default_rng(1).standard_normal(shape)).to(net.weights.dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FAMILY),
    st.sampled_from(KERNELS),
    ENDS,
    ENDS,
    st.sampled_from([0, 1, 3, 33]),
    st.sampled_from([(), (2,)]),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([1, 3]),
    st.booleans(),
)
def test_some_layers_of_some_samples_equal_the_oracle(
    architecture: str,
    kernel: str,
    start: int,
    stop: int,
    batch: int,
    positions: tuple[int, ...],
    dtype: torch.dtype,
    threads: int,
    copied: bool,
) -> None:
    """Output and gradients; no layer is the identity, no sample is no work, and both leave the weights as they are.

    Also from threads at once, which share the network or have a copy of it each.
    """
    net, layers = network(architecture, kernel, dtype), slice(start, stop)
    x = samples(net, batch, *positions)

    def answer(own: HDNN) -> tuple[Tensor, Tensor, Tensor]:
        given_ = x.clone().requires_grad_()
        y = own(given_, layers=layers)
        return y.detach(), *torch.autograd.grad(y.square().sum(), (given_, own.weights))

    networks = [copy.deepcopy(net) if copied else net for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(answer, networks))
    for other in answers[1:]:
        assert all(torch.equal(a, b) for a, b in zip(answers[0], other, strict=True))
    y, grad_x, grad_weights = answers[0]
    full = x.double().requires_grad_()
    K, b, J = (part.double() for part in net.dense())
    problem = Problem(GRAPH, FEATURES, architecture)
    expected = dense_answer(problem, K[layers], b[layers], J, full)
    expected.square().sum().backward()
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert y.shape == x.shape
    assert relative_error(y.double(), expected.detach()) < tolerance
    assert relative_error(grad_x.double(), full.grad) < tolerance
    assert bool(grad_weights.any()) == bool(y.numel() and len(range(net.layers)[layers]))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        (slice(None, None, 2), ValueError, "expected a slice without a stride"),
        (slice(None, None, -1), ValueError, "expected a slice without a stride"),
        (2, TypeError, r"expected a slice, such as slice\(0, 4\)"),
    ],
)
def test_other_choices_of_layers_are_refused(kernel: str, layers: object, error: type[Exception], words: str) -> None:
    net = network(kernel=kernel)
    x = samples(net, 2)
    for call in (lambda: net(x, layers=layers), lambda: net.tangent(x, x, layers=layers)):
        with pytest.raises(error, match=words):
            call()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("architecture", ["H2", "H1-J1", "MS2"])
def test_threads_that_share_a_network(architecture: str, kernel: str) -> None:
    """Each gets what it would get alone, forward and back."""
    net = network(architecture, kernel)
    inputs = [number * samples(net, 20) for number in range(6)]

    def passes(x: Tensor) -> tuple[Tensor, Tensor]:
        own = x.clone().requires_grad_()
        y = net(own)
        return y.detach(), torch.autograd.grad(y.square().sum(), own)[0]

    alone = [passes(x) for x in inputs]
    ready = threading.Barrier(len(inputs))

    def repeatedly(number: int) -> bool:
        ready.wait(timeout=60)
        found = [passes(inputs[number]) for _ in range(15)]
        return all(torch.equal(a, b) for each in found for a, b in zip(each, alone[number], strict=True))

    with ThreadPoolExecutor(len(inputs)) as pool:
        assert all(pool.map(repeatedly, range(len(inputs))))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_copy_has_buffers_of_its_own(kernel: str) -> None:
    net = network(kernel=kernel)
    assert copy.deepcopy(net).kernel_for(4) == net.kernel_for(4)
    x = samples(net, 4)
    y = net(x)
    twin = copy.deepcopy(net)
    assert twin._passes is not net._passes
    assert torch.equal(twin(x), y)
    with torch.no_grad():
        twin.weights.mul_(2)
    assert not torch.equal(twin(x), y)
    assert torch.equal(net(x), y)
    assert twin.agents is net.agents


def test_a_copy_of_a_readout_is_counted_like_the_readout() -> None:
    net = network()
    head, labels = Readout(net.agents, net, at=[3, 1]), torch.tensor([0, 1, 1, 0])
    twin, y = copy.deepcopy(head), net(samples(net, 4)).detach()
    spent = []
    for each in (head, twin):
        before = net.agents.ledger.traffic()
        assert torch.equal(each.loss(y, labels), head.loss(y, labels))
        spent.append((net.agents.ledger.traffic() - before).messages)
    assert spent[0] == spent[1] > 0
    with torch.no_grad():
        twin.weights.zero_()
    assert head.weights.any()


def test_pickling_says_what_to_do_instead() -> None:
    with pytest.raises(TypeError, match=r"cannot be pickled: save state_dict\(\), or a checkpoint"):
        pickle.dumps(network())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("architecture", FAMILY)
def test_autocast_changes_nothing(architecture: str, kernel: str) -> None:
    """Forward, loss and backward, also the readout of some agents and a backward pass inside the block."""
    net = network(architecture, kernel, torch.float32)
    x, labels = samples(net, 4), torch.tensor([0, 1, 1, 0])

    def gradients(head: Readout, autocast: bool) -> list[Tensor]:
        net.zero_grad(), head.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            head.loss(net(x), labels).backward()
            head.backward(net(x), labels)
            head(net(x)).square().sum().backward()
            tangent = net.tangent(x, x)
        return [*tangent, net.weights.grad, head.weights.grad]

    for head in (Readout(net.agents, net), Readout(net.agents, net, at=[3, 1])):
        for own, cast in zip(gradients(head, False), gradients(head, True), strict=True):
            assert torch.equal(own, cast)


@pytest.mark.parametrize("kernel", KERNELS)
def test_stored_states_are_let_go_by_the_backward_pass(kernel: str) -> None:
    """Of forward Euler, which stores them; the loss may live on, in a list for example."""
    net = network("H1-J1", kernel)
    head, labels = Readout(net.agents, net), torch.tensor([0, 1, 1, 0])
    y = net(samples(net, 4))
    stored = [weakref.ref(state) for state in y.grad_fn.saved_tensors[4:]]
    loss = head.loss(y, labels)
    assert stored
    assert all(state() is not None for state in stored)
    loss.backward()
    assert all(state() is None for state in stored)
    assert loss.isfinite()


def test_a_drift_is_warned_of_once() -> None:
    """Not with every new number."""
    net = HDNN(place(GRAPH, WORLD), FEATURES, 40, 0.5, initial="normal", seed=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for scale in (1.0, 2.0, 3.0):
            net(scale * samples(net, 4)).square().sum().backward()
    assert [warning.category for warning in caught].count(DriftWarning) == 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_changed_after_a_pass_holds_in_the_next(kernel: str) -> None:
    net = network(kernel=kernel)
    x = samples(net, 4)
    net(x)
    net.step = 0.1
    assert torch.equal(net(x), HDNN(net.agents, FEATURES, LAYERS, 0.1, kernel=kernel, dtype=torch.float64)(x))
    net.activation = activations.activation("relu")
    other = HDNN(net.agents, FEATURES, LAYERS, 0.1, kernel=kernel, dtype=torch.float64, activation="relu")
    assert torch.equal(net(x), other(x))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("architecture", FAMILY)
def test_training_after_an_evaluation_in_inference_mode(architecture: str, kernel: str) -> None:
    """With the same batch: what the evaluation has made can be written to."""
    net = network(architecture, kernel)
    head, labels = Readout(net.agents, net), torch.tensor([0, 1, 1, 0])
    x = samples(net, 4)
    with torch.inference_mode():
        before = head.loss(net(x), labels)
        net.tangent(x, x)
    loss = head.loss(net(x), labels)
    loss.backward()
    assert torch.equal(loss.detach(), before)
    assert net.weights.grad is not None
    net.tangent(x, x)
