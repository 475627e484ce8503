"""What weights are of: kept beside them, so that those of another network or of other agents are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from hdnn_dist.exchange.common_facts import told
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.propagation.activations import Activation
from hdnn_dist.propagation.architectures import Architecture
from hdnn_dist.weights.layers import Layers


def network_facts(
    architecture: Architecture, step: float, activation: Activation, agents: Agents, stack: Layers
) -> dict[str, str]:
    """What the weights of a network depend on to mean the same; the same on every rank."""
    blocks = [layout.pattern for layout in stack.layouts]
    return {
        "architecture": architecture.name,
        "activation": activation.name,
        **told({"step": step, "graph": agents.graph, "pattern": blocks}),
    }


def packed(facts: Mapping[str, str]) -> Tensor:
    """Facts as (bytes,) uint8, which any way of saving tensors can hold."""
    return torch.tensor(list(json.dumps(dict(facts)).encode()), dtype=torch.uint8)


def unpacked(state: Tensor) -> dict[str, str]:
    """The inverse of ``packed``, for (bytes,)."""
    facts: dict[str, str] = json.loads(bytes(state.tolist()))
    return facts


def refuse_other_weights(where: str, found: Mapping[str, str], own: Mapping[str, str]) -> None:
    """``ValueError`` that names the first fact of which ``where`` says something else than this network."""
    for name in own:
        if name in found and found[name] != own[name]:
            raise ValueError(
                f"{where} holds weights for {name} {found[name]}, but this network has {name} {own[name]}: "
                "load them into a network like the one that they were saved from"
            )
