"""The readout in one process; battery.py holds it to the same across ranks, and to plain dense heads."""

from __future__ import annotations

import pytest
import torch

from hdnn_dist import HDNN, CommunicationGraph, Readout, connect, place

AGENTS = place(CommunicationGraph.grid(3, 3), connect("local"))
NET = HDNN(AGENTS, 2, 2, dtype=torch.float64)


def test_without_gradients_only_the_metrics_come_down() -> None:
    """Evaluation does not pay for the gradient's message: contract 4 counts it."""
    head = Readout(AGENTS, NET, classes=3)
    y, labels = torch.randn(10, 18, dtype=torch.float64), torch.zeros(10, dtype=torch.long)
    sizes = []
    for enabled in (True, False):
        before = AGENTS.ledger.traffic()
        with torch.set_grad_enabled(enabled):
            head.loss(y, labels)
        spent = AGENTS.ledger.traffic() - before
        assert spent.messages == 2 * 8
        sizes.append(spent.bytes)
    up, gradient, metrics = 8 * 3 * 10 * 8, 8 * 3 * 10 * 8, 8 * 2 * 8
    assert sizes == [up + gradient + metrics, up + metrics]


def test_one_reader_costs_one_small_message_an_edge() -> None:
    head = Readout(AGENTS, NET, classes=3, at=[8])
    before = AGENTS.ledger.traffic()
    head.loss(torch.randn(10, 18, dtype=torch.float64), torch.zeros(10, dtype=torch.long))
    spent = AGENTS.ledger.traffic() - before
    assert (spent.messages, spent.bytes) == (8, 8 * 2 * 8)


def test_binary_cross_entropy_has_one_logit() -> None:
    head = Readout(AGENTS, NET, classes=2, loss="binary_cross_entropy")
    assert head(torch.zeros(4, 18, dtype=torch.float64)).shape == (4, 1)
    with pytest.raises(ValueError, match="binary_cross_entropy was given 3 classes"):
        Readout(AGENTS, NET, classes=3, loss="binary_cross_entropy")


@pytest.mark.parametrize("at", [[9], [-1], [1, 1], [], [0.5]])
def test_readers_that_are_no_agents_are_refused(at: list[int]) -> None:
    with pytest.raises(ValueError, match="readout at"):
        Readout(AGENTS, NET, at=at)


def test_the_root_needs_labels() -> None:
    with pytest.raises(ValueError, match="needs labels, and got None"):
        Readout(AGENTS, NET).loss(torch.zeros(4, 18, dtype=torch.float64))


def test_positions_must_be_those_of_the_state() -> None:
    head = Readout(AGENTS, NET, positions=(5,))
    with pytest.raises(ValueError, match=r"built for positions \(5,\), but the state has \(\)"):
        head(torch.zeros(4, 18, dtype=torch.float64))


def test_micro_batches_of_different_sizes_add_up_to_the_batch() -> None:
    """Each weighted by its share of the samples."""
    agents = place(CommunicationGraph.ring(8), connect("local"))
    net = HDNN(agents, 2, 3, dtype=torch.float64)
    head, labels = Readout(agents, net, classes=3), torch.arange(10) % 3
    x = torch.linspace(-1, 1, 160, dtype=torch.float64).view(10, 16)
    head.loss(net(x), labels).backward()
    whole = [parameter.grad.clone() for parameter in (net.weights, head.weights, head.bias)]
    for parameter in (net.weights, head.weights, head.bias):
        parameter.grad = None
    for part in (slice(0, 7), slice(7, 10)):
        head.backward(net(x[part]), labels[part], weight=len(x[part]) / 10)
    parts = [parameter.grad for parameter in (net.weights, head.weights, head.bias)]
    assert all(torch.allclose(*pair, rtol=1e-12, atol=1e-15) for pair in zip(parts, whole, strict=True))
