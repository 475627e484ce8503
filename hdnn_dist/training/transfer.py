"""From a config to the data set that it names; class transfer is made for the agent that is read."""

from __future__ import annotations

from hdnn_dist.data.class_transfer import NAME, ClassTransfer
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.propagation.state import features_per_agent
from hdnn_dist.support.arguments import concerning
from hdnn_dist.training.config import Config
from hdnn_dist.training.transfer_config import TransferConfig


def named_source(config: Config, graph: CommunicationGraph) -> str | ClassTransfer:
    """What ``describe`` and ``load`` take for ``data.name``; ``ValueError`` for keys that do not go together."""
    chosen = config.data.transfer
    if config.data.name != NAME:
        if chosen != TransferConfig():
            raise ValueError(f"data.transfer is given, but data.name is {config.data.name!r}: set data.name = {NAME!r}")
        return config.data.name
    read_at = _reader(config, graph)
    with concerning("data.transfer.shown_at"):
        shown_at = None if chosen.shown_at is None else graph.agent(chosen.shown_at)
    features = features_per_agent(config.network.features, graph.agents).tolist()
    made = ClassTransfer(chosen.classes, chosen.distance, shown_at, read_at, features, config.data.noise or 0.0)
    with concerning("data.transfer"):
        made.on(graph)
    return made


def _reader(config: Config, graph: CommunicationGraph) -> int:
    """The only agent of ``readout.at``."""
    at = config.readout.at
    if at == "centre":
        return graph.centre
    if not isinstance(at, list) or len(at) != 1:
        raise ValueError(
            f"the data set {NAME} is read at one agent alone, but readout.at is {at!r}: name one, such as "
            "readout.at = [0]"
        )
    with concerning("readout.at"):
        return graph.agent(at[0])
