"""What a training step has to do: floating point operations of its products, and bytes along the graph."""

from __future__ import annotations

import torch

from hdnn_dist.bench.cases import Case
from hdnn_dist.bench.timing import Step
from hdnn_dist.model.network import HDNN

HALF_STEPS = 2
PRODUCTS = 8  # a half-step: 2 forward, 6 in the backward pass that rebuilds the state
BLOCKS = 3  # of an agent on a ring: its own and those of its two neighbours


def product_flops(case: Case) -> int:
    """Of one product with every block of one K on the ring: 2 * rows * columns * batch for an agent."""
    rows = case.features // 2
    return 2 * case.agents * rows * (BLOCKS * rows) * case.batch


def step_flops(case: Case) -> int:
    """Of all block products of a training step of H2."""
    return PRODUCTS * HALF_STEPS * case.layers * product_flops(case)


def bare_product(case: Case) -> Step:
    """``torch.bmm`` of the shapes of a half-step: what the machine reaches with nothing else to do."""
    rows, columns = case.features // 2, BLOCKS * (case.features // 2)
    K, x = torch.randn(case.agents, rows, columns), torch.randn(case.agents, columns, case.batch)
    out = torch.empty(case.agents, rows, case.batch)
    return lambda: torch.bmm(K, x, out=out)


def megabytes_moved(net: HDNN, step: Step) -> float:
    """What the agents send each other along the edges of the graph in one call, by the ledger."""
    before = net.agents.ledger.traffic()
    step()
    return (net.agents.ledger.traffic() - before).bytes / 1e6
