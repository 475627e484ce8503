"""What the user says of patterns and graphs, checked and brought to a layout for every layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hdnn_dist.exchange.halo import Halo
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.layer_graphs import check_graphs
from hdnn_dist.graph.patterns import Pattern, stored_once
from hdnn_dist.propagation.architectures import Architecture
from hdnn_dist.support.arguments import require_memory
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.layers import Layers, same_layouts

BYTES = 20  # a number, at least, as measured: as it is drawn, in float64, and in float32 with its gradient

Patterns = Pattern | Sequence[Pattern] | None
Graphs = Sequence[CommunicationGraph] | None


def build_stack(
    agents: Agents, architecture: Architecture, features: np.ndarray, layers: int, pattern: Patterns, graphs: Graphs
) -> Layers:
    """A layout for every different pair of a pattern and a graph; ``features``: (agents,).

    ``ValueError`` for patterns and graphs that do not fit the layers, each other or the agents.
    """
    if graphs is not None:
        check_graphs(graphs, layers, agents.graph)
    if isinstance(pattern, Sequence) and len(pattern) != layers:
        raise ValueError(f"{len(pattern)} patterns were given for {layers} layers: give one, or one for each")
    alike = graphs is None and not isinstance(pattern, Sequence)
    keys = [_stored(agents, architecture, pattern, graphs, layer) for layer in range(1 if alike else layers)]
    which = same_layouts(keys) * (layers if alike else 1)
    different = [keys[which.index(number)] for number in range(max(which) + 1)]
    sizes, biases = architecture.block_sizes(features), len(architecture.operators[0].biases)
    counts = [_most_entries(agents, blocks, sizes) for blocks, _ in different]
    entries = len(architecture.operators) * sum(counts[layout] for layout in which)
    require_weights(layers, entries)
    layouts = [BlockLayout(Halo(agents, blocks, sizes, graph), blocks, biases) for blocks, graph in different]
    return Layers(layouts, which, len(architecture.operators))


def require_weights(layers: int, numbers: float) -> None:
    """``ValueError`` for more numbers, in all layers on one rank, than a machine has memory for."""
    require_memory(f"the weights of {layers} layers, {numbers:.3g} numbers on a rank,", BYTES * int(numbers))


def _most_entries(agents: Agents, blocks: Pattern, sizes: np.ndarray) -> float:
    """Of one K, on the rank that has most, so that all ranks refuse alike; a float, which cannot overflow."""
    each = sizes[blocks.rows].astype(np.float64) * sizes[blocks.columns]
    return float(np.bincount(agents.owner[blocks.rows], each).max())


def _stored(
    agents: Agents, architecture: Architecture, pattern: Patterns, graphs: Graphs, layer: int
) -> tuple[Pattern, CommunicationGraph]:
    graph = agents.graph if graphs is None else graphs[layer]
    chosen = pattern[layer] if isinstance(pattern, Sequence) else pattern
    try:
        blocks = graph.pattern(chosen)
    except ValueError as error:
        raise ValueError(f"layer {layer}: {error}" if graphs is not None else str(error)) from None
    return (stored_once(blocks) if architecture.skew else blocks), graph
