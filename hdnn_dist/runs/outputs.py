"""What a head gives, as one table: the outputs of all agents side by side, whoever computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.model.agent_readouts import AgentReadouts
from hdnn_dist.model.head import Head

EVERY = slice(None)


def places_of(head: Head) -> dict[int, slice]:
    """Agent that is read -> which outputs it adds to: all, or its own where each predicts for itself."""
    if not isinstance(head, AgentReadouts):
        return dict.fromkeys(head.at.tolist(), EVERY)
    ends = np.cumsum(list(head.targets.values())).tolist()
    return {agent: slice(end - head.targets[agent], end) for agent, end in zip(head.targets, ends, strict=True)}


def views_of(head: Head) -> Iterator[tuple[int | None, slice, Tensor]]:
    """What is trained of a head on this rank, as views: (agent, its outputs, weights (outputs, features times
    positions)), and (None, its outputs, a bias (outputs,)). What agents share comes again for each, its weights
    as a copy.
    """
    places = places_of(head)
    if head.shared is not None:
        count = 1 if isinstance(head, AgentReadouts) else len(places)  # outputs are then a mean over agents
        for agent, place in places.items():
            yield agent, place, head.shared.weights / count
            yield None, place, head.shared.bias
        return
    for part in head.trained():
        view = part.view(part.parameter)
        if part.name.endswith("bias"):
            yield None, EVERY if len(view) == outputs_of(head) else places[part.agent], view
        else:
            yield part.agent, places[part.agent], view


def outputs_of(head: Head) -> int:
    """How many outputs all agents have together."""
    count: int = head.outputs  # type: ignore[attr-defined]
    return count


def names_of(head: Head, label: Callable[[int], str]) -> list[str] | None:
    """A name for each output of agents that predict for themselves; ``None`` where outputs are common to all."""
    if not isinstance(head, AgentReadouts):
        return None
    several = [(label(agent), number, count) for agent, count in head.targets.items() for number in range(count)]
    return [name if count == 1 else f"{name}_{number}" for name, number, count in several]


def at_root(head: Head, own: Tensor) -> Tensor:
    """What the head gave on each rank -> (samples, outputs) on the root's rank, (samples, 0) elsewhere.

    Every rank has to call it; where agents predict for themselves, it costs a sum along the tree.
    """
    if not isinstance(head, AgentReadouts):
        return own
    every, places = own.new_zeros(len(own), outputs_of(head)), places_of(head)
    here = [places[agent] for agent in head.agents.local.tolist() if agent in places]
    if here:
        every[:, torch.cat([torch.arange(place.start, place.stop) for place in here])] = own
    every = head.everyone.sum(every)
    return every if head.everyone.is_root else every[:, :0]
