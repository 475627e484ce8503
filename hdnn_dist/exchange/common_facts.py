"""What all ranks must have in common, compared before it can do harm: a rank that differs trains a wrong network.

Facts are short texts by name. Where no graph is agreed on yet, when a world is joined and agents are placed, they are
compared among all ranks of the world; from then on as digests along the tree, see ``agreement``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.patterns import Pattern

Facts = Mapping[str, object]
LONGEST_LIST = 32


def same_in_world(world: World, facts: Facts) -> None:
    """``ValueError`` on every rank, the same, unless all ranks, of all replicas, call it with the same facts.

    One sum of texts.
    """
    if world.job.size == 1:
        return
    texts = [json.loads(text) for text in world.job.texts(json.dumps(told(facts)))]
    for name in facts:
        refuse_difference(name, [text.get(name, "nothing") for text in texts])


def fact(value: object) -> str:
    """What tells a value from another, short enough to be read; arrays and graphs by a digest, whatever their shape."""
    if isinstance(value, Tensor | np.ndarray):
        array = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value
        return f"{array.dtype} of shape {array.shape}, digest {digest(np.ascontiguousarray(array).tobytes())}"
    if isinstance(value, CommunicationGraph):
        edges = digest(value.edges.tobytes())
        return f"{value.name} of {value.agents} agents and {len(value.edges)} edges, digest {edges}"
    if isinstance(value, Pattern):
        return f"{len(value)} blocks, digest {digest(value.rows.tobytes() + value.columns.tobytes())}"
    if isinstance(value, list | tuple):
        parts = [fact(part) for part in value]
        return f"[{', '.join(parts)}]" if len(parts) <= LONGEST_LIST else f"{len(parts)} values, digest {digest(parts)}"
    return repr(value)


def told(facts: Facts) -> dict[str, str]:
    """The facts as texts."""
    return {name: fact(value) for name, value in facts.items()}


def digest(content: bytes | Sequence[str]) -> str:
    """48 bits of SHA-256, as 12 hexadecimal digits."""
    data = content if isinstance(content, bytes) else "\n".join(content).encode()
    return hashlib.sha256(data).hexdigest()[:12]


def refuse_difference(name: str, values: Sequence[str]) -> None:
    """``ValueError`` where the values of the ranks, in their order, are not all the same."""
    other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
    if other is not None:
        raise ValueError(
            f"the ranks disagree: {name} is {values[0]} on rank 0, but {values[other]} on rank {other}; "
            "give every rank the same"
        )
