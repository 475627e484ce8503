"""A topology that changes from layer to layer: a graph for each, checked against the one that was placed."""

from __future__ import annotations

from collections.abc import Sequence

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import shown


def check_graphs(graphs: Sequence[CommunicationGraph], layers: int, whole: CommunicationGraph) -> None:
    """``ValueError`` unless there is a graph for each layer, each a part of the agents' graph."""
    if not isinstance(graphs, Sequence):
        raise ValueError(f"graphs is {shown(graphs)}: expected a list with a CommunicationGraph for each layer")
    if len(graphs) != layers:
        raise ValueError(f"{len(graphs)} graphs were given for {layers} layers: give one for each layer")
    for layer, graph in enumerate(graphs):
        if not isinstance(graph, CommunicationGraph):
            raise ValueError(
                f"the graph of layer {layer} is {shown(graph)}: expected a CommunicationGraph, such as "
                "CommunicationGraph.parse('ring:8')"
            )
        if graph.agents != whole.agents:
            raise ValueError(
                f"the graph of layer {layer} has {graph.agents} agents, but {whole.agents} were placed: give the same"
            )
        outside = ~whole.contains(graph.edges[:, 0], graph.edges[:, 1])
        if outside.any():
            i, k = map(whole.label, graph.edges[outside][0].tolist())
            raise ValueError(
                f"the graph of layer {layer} joins agents {i} and {k}, which are not neighbours in the placed graph "
                f"{whole.name!r}: place the union of all graphs"
            )
