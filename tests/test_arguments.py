"""What people pass by mistake: one line of ours, a ValueError or TypeError, before memory is touched."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import hdnn_dist
from hdnn_dist import HDNN, CommunicationGraph, Readout, clip_grad_norm_, connect, place
from hdnn_dist.model.lift import ConvolutionalLift

HOUSE = Path(hdnn_dist.__file__).parent
RING = CommunicationGraph.ring(4)
WORLD = connect("local")
AGENTS = place(RING, WORLD)
X = torch.ones(5, 8)
LABELS = torch.zeros(5, dtype=torch.long)


def network(**about: object) -> HDNN:
    return HDNN(AGENTS, **{"layers": 2, "kernel": "torch", **about})


NET = network()
HEAD = Readout(AGENTS, NET)


def refused(call: Callable[[], object]) -> str:
    """The message of a refusal, which is one line of this package's own; fails for any other end."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    raised_in = Path(traceback.extract_tb(caught.value.__traceback__)[-1].filename)
    assert raised_in.is_relative_to(HOUSE), f"{raised_in}: {caught.value!r}"
    assert "\n" not in str(caught.value)
    return str(caught.value)


# A call, and what its line has to say of what was given and of what was expected.
MISTAKES: dict[str, tuple[Callable[[], object], str, str]] = {
    "HDNN on a graph": (lambda: HDNN(RING, 2), "CommunicationGraph(", "hdnn_dist.place(graph, world)"),
    "place of a name": (lambda: place("ring:4", WORLD), "'ring:4'", "CommunicationGraph"),
    "place of nothing": (lambda: place(None, WORLD), "None", "CommunicationGraph"),
    "place without a world": (lambda: place(RING, None), "None", "hdnn_dist.connect()"),
    "type as text": (lambda: network(dtype="float64"), "'float64'", "torch.float32"),
    "whole numbers": (lambda: network(dtype=torch.int64), "torch.int64", "floating-point"),
    "complex numbers": (lambda: network(dtype=torch.complex64), "torch.complex64", "floating-point"),
    "step True": (lambda: network(step=True), "True", "a finite number greater than 0"),
    "damping True": (lambda: network(architecture="H1-J1", damping=True), "True", "a finite number of 0 or more"),
    "architecture of no name": (lambda: network(architecture=[]), "[]", "H2"),
    "input as a list": (lambda: NET([[1.0] * 8]), "a list", "a dense tensor (batch, 8"),
    "sparse input": (lambda: NET(X.to_sparse()), "torch.sparse_coo", "a dense tensor"),
    "layers by number": (lambda: NET(X, 2), "2", "a slice"),
    "tangent of another shape": (lambda: NET.tangent(X, X[:4]), "(4, 8)", "(5, 8)"),
    "no samples": (lambda: NET.kernel_for(0), "0", "a whole number of at least 1"),
    "no classes": (lambda: Readout(AGENTS, NET, classes=0), "0", "a whole number of at least 1"),
    "one class": (lambda: Readout(AGENTS, NET, classes=1), "1 class", "2 or more"),
    "half a class": (lambda: Readout(AGENTS, NET, classes=2.5), "2.5", "a whole number"),
    "too many classes": (lambda: Readout(AGENTS, NET, classes=10**15), "1000000000000000", "ask for less"),
    "loss of no name": (lambda: Readout(AGENTS, NET, loss=[]), "[]", "cross_entropy"),
    "root of no number": (lambda: Readout(AGENTS, NET, root="a"), "'a'", "a whole number"),
    "root between agents": (lambda: Readout(AGENTS, NET, root=1.5), "1.5", "a whole number"),
    "one position": (lambda: Readout(AGENTS, NET, positions=3), "3", "a sequence of sizes"),
    "positions of no size": (lambda: Readout(AGENTS, NET, positions=(-3,)), "-3", "at least 1"),
    "agents of another graph": (
        lambda: Readout(place(CommunicationGraph.ring(5), WORLD), NET),
        "ring:5",
        "give it the agents of the network",
    ),
    "readout of nothing": (lambda: Readout(AGENTS, None), "None", "the HDNN"),
    "labels as a list": (lambda: HEAD.loss(X, [0] * 5), "[0, 0, 0, 0, 0]", "torch.as_tensor"),
    "state of another width": (lambda: HEAD.loss(X[:, :7], LABELS), "(5, 7)", "(batch, 8"),
    "state as a list": (lambda: HEAD([1.0]), "a list", "a dense tensor"),
    "state of another type": (lambda: HEAD(X.double()), "torch.float64", "torch.float32"),
    "weight as text": (lambda: HEAD.backward(X, LABELS, "a"), "'a'", "a finite number"),
    "weight NaN": (lambda: HEAD.backward(X, LABELS, float("nan")), "nan", "a finite number"),
    "half a channel": (lambda: ConvolutionalLift(NET, 1.5), "1.5", "a whole number"),
    "a norm below 0": (lambda: clip_grad_norm_(NET.parameters(), -1.0, NET.tree), "-1.0", "greater than 0"),
    "nothing to clip": (lambda: clip_grad_norm_([], 1.0, NET.tree), "[]", "net.parameters()"),
    "clipping without a tree": (lambda: clip_grad_norm_(NET.parameters(), 1.0, None), "None", "net.tree"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line(mistake: str) -> None:
    call, given_, expected = MISTAKES[mistake]
    message = refused(call)
    assert given_ in message
    assert expected in message


OTHER_WEIGHTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "fewer layers": lambda w: w[:1].clone(),
    "more layers": lambda w: torch.cat([w, w]),
    "turned": lambda w: w.transpose(0, 2).contiguous(),
    "flat": lambda w: w.flatten(),
    "of another type": lambda w: w.double(),
}


@pytest.mark.parametrize("kernel", ["auto", "torch"])
@pytest.mark.parametrize("change", OTHER_WEIGHTS)
def test_weights_of_another_shape_are_refused(change: str, kernel: str) -> None:
    """However they came there: compiled code would read beyond their end."""
    net = network(kernel=kernel)
    other = OTHER_WEIGHTS[change](net.weights.detach())
    refused(lambda: torch.func.functional_call(net, {"weights": other}, (X,)))
    net.weights.data = other
    refused(lambda: net(X))
    net.weights = nn.Parameter(other)
    refused(lambda: net(X))
    refused(lambda: net.tangent(X, X))


@pytest.mark.parametrize("kernel", ["auto", "torch"])
def test_a_trained_coupling_of_another_shape_is_refused(kernel: str) -> None:
    net = network(coupling="trained", kernel=kernel)
    net.coupling = nn.Parameter(net.coupling.detach()[:, :2].clone())
    assert "coupling has shape" in refused(lambda: net(X))


def test_weights_of_a_readout_of_another_shape_are_refused() -> None:
    head = Readout(AGENTS, NET)
    head.weights = nn.Parameter(torch.ones(2, 5))
    for call in (lambda: head(X), lambda: head.loss(X, LABELS), lambda: head.backward(X, LABELS)):
        assert "has shape (2, 5), expected (2, 8)" in refused(call)


@pytest.mark.parametrize("kernel", ["auto", "torch"])
def test_weights_need_not_be_contiguous(kernel: str) -> None:
    net = network(kernel=kernel)
    turned = net.weights.detach().transpose(0, 2).contiguous().transpose(0, 2)
    assert not turned.is_contiguous()
    assert torch.equal(torch.func.functional_call(net, {"weights": turned}, (X,)), net(X))


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["H2", "MLP", "H1", "relu", "trained", "J1", "scaled", "euler", "fused", "torch", "ring:4", "all"]),
    st.binary(max_size=4),
    st.lists(st.integers(-1, 5), max_size=5),
    st.lists(st.floats(), max_size=4),
    st.lists(st.lists(st.integers(-1, 4), min_size=2, max_size=2), max_size=4),
    st.dictionaries(st.integers(0, 4), st.integers(0, 4), max_size=2),
    st.sampled_from(
        [torch.ones(2), torch.ones(5, 8), torch.ones(5, 8).double(), torch.tensor(1.0), torch.float16, torch]
    ),
    st.sampled_from([np.ones((5, 8)), np.eye(4), np.zeros(0), np.float32(0.5), np.int64(2), np.array("a"), object]),
    st.sampled_from([RING, WORLD, AGENTS, NET, HEAD, NET.pattern, slice(0, 1), slice("a"), len, 1j]),
)


CALLS: dict[str, tuple[Callable[..., object], dict[str, object]]] = {
    "HDNN": (
        HDNN,
        {"agents": AGENTS, "features": 2, "layers": 2, "step": 0.1, "architecture": "H2", "seed": 0, "scheme": None,
         "activation": "tanh", "initial": "scaled", "courant": 0.9, "jitter": 0.02, "pattern": None, "graphs": None,
         "coupling": None, "coupling_pattern": None, "damping": 0.0, "store_every": 1, "dtype": torch.float32,
         "kernel": "torch"},
    ),
    "Readout": (
        Readout,
        {"agents": AGENTS, "net": NET, "classes": 2, "loss": "cross_entropy", "at": None, "root": None,
         "positions": ()},
    ),
    "ConvolutionalLift": (ConvolutionalLift, {"net": NET, "channels": 1}),
    "place": (place, {"graph": RING, "world": WORLD, "method": "auto"}),
    "connect": (connect, {"transport": "local", "device": None, "timeout": 10.0}),
    "CommunicationGraph": (CommunicationGraph, {"agents": 2, "edges": [[0, 1]], "name": "two", "positions": None}),
    "from_edges": (CommunicationGraph.from_edges, {"edges": [[0, 1]], "agents": None}),
    "from_networkx": (CommunicationGraph.from_networkx, {"graph": RING.networkx}),
    "parse": (CommunicationGraph.parse, {"spec": "ring:4"}),
    "ring": (CommunicationGraph.ring, {"n": 4}),
    "grid": (CommunicationGraph.grid, {"rows": 2, "columns": 2}),
    "erdos_renyi": (CommunicationGraph.erdos_renyi, {"n": 4, "p": 0.9, "seed": 0}),
    "watts_strogatz": (CommunicationGraph.watts_strogatz, {"n": 6, "k": 2, "p": 0.1, "seed": 0}),
    "barbell": (CommunicationGraph.barbell, {"clique": 3, "path": 2}),
    "neighbours": (RING.neighbours, {"agent": 0}),
    "has_edge": (RING.has_edge, {"i": 0, "k": 1}),
    "forward": (NET.forward, {"x": X, "layers": slice(None)}),
    "tangent": (NET.tangent, {"x": X, "dx": X, "layers": slice(None)}),
    "load_dense": (NET.load_dense, {"K": NET.dense().K, "b": NET.dense().b}),
    "kernel_for": (NET.kernel_for, {"samples": 5}),
    "logits": (HEAD.forward, {"y": X}),
    "loss": (HEAD.loss, {"y": X, "labels": LABELS}),
    "backward": (HEAD.backward, {"y": X, "labels": LABELS, "weight": 1.0}),
    "clip": (clip_grad_norm_, {"parameters": list(NET.parameters()), "max_norm": 1.0, "tree": NET.tree}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_arguments_end_well(name: str, data: st.DataObject) -> None:
    """Either the call is right, or it is refused as above."""
    call, right = CALLS[name]
    wrong = data.draw(st.dictionaries(st.sampled_from(list(right)), ANYTHING, min_size=1, max_size=3))
    try:
        call(**{**right, **wrong})
    except (ValueError, TypeError):
        refused(lambda: call(**{**right, **wrong}))
