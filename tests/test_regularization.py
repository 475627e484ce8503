"""Penalties against their formulas, written with the dense K and b of the whole network."""

from __future__ import annotations

import pytest
import torch

from hdnn_dist import HDNN, CommunicationGraph, Readout, connect, place
from hdnn_dist.regularization import smoothness, weight_penalty

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


def test_penalties_have_gradients(net: HDNN) -> None:
    weight_penalty(net, ALPHA).backward()
    torch.testing.assert_close(net.weights.grad, ALPHA * net.weights.detach())
