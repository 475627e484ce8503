"""What is learned: the head that fits the data set and the keys of ``readout``, or one line about what does not."""

from __future__ import annotations

from hdnn_dist.data.source import CLASSIFICATION, Description
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.model.agent_readouts import AgentReadouts
from hdnn_dist.model.head import Head
from hdnn_dist.model.losses import BALANCED, FOR_NUMBERS, LOSSES, chosen_loss
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.readout import Readout
from hdnn_dist.support.arguments import concerning, named
from hdnn_dist.training.config import EACH, ReadoutConfig
from hdnn_dist.training.job import Samples


def check_objective(chosen: ReadoutConfig, about: Description) -> None:
    """``ValueError`` unless the keys of ``readout`` fit what the data set has to be learned."""
    with concerning("readout.loss"):
        integer = named("loss", chosen.loss, LOSSES).integer
    if not integer and about.task == CLASSIFICATION:
        raise ValueError(
            f"readout.loss {chosen.loss!r} needs targets that are numbers, but the data set {about.name} has "
            f"{about.classes} classes: use 'cross_entropy'"
        )
    if integer and about.task != CLASSIFICATION:
        raise ValueError(
            f"readout.loss {chosen.loss!r} needs classes, but the data set {about.name} has targets that are numbers: "
            f"use {_listed(FOR_NUMBERS)}"
        )
    _check_place(chosen, about)
    with concerning("readout"):
        chosen_loss(chosen.loss, about.classes, chosen.class_weights, chosen.delta)


def make_head(
    chosen: ReadoutConfig,
    about: Description,
    net: HDNN,
    at: list[int] | None,
    root: int | None,
    positions: tuple[int, ...],
) -> Head:
    """The head of a config whose ``readout`` fits, see ``check_objective``. Every rank has to call it."""
    agents: Agents = net.agents
    if about.targets is not None:
        return AgentReadouts(agents, net, about.targets, chosen.loss, root, positions, chosen.delta, chosen.shared)
    return Readout(
        agents,
        net,
        classes=about.classes,
        loss=chosen.loss,
        at=at,
        root=root,
        positions=positions,
        class_weights=chosen.class_weights,  # type: ignore[arg-type]
        delta=chosen.delta,
        shared=chosen.shared,
    )


def balance(head: Head, chosen: ReadoutConfig, train: Samples, about: Description) -> None:
    """Where classes shall count alike, count the training labels on the root's rank, which tells nobody."""
    if chosen.class_weights == BALANCED and isinstance(head, Readout) and head.everyone.is_root:
        with concerning("readout.class_weights"):
            head.balance(train.class_counts(about.classes))


def _check_place(chosen: ReadoutConfig, about: Description) -> None:
    if chosen.at == EACH and about.targets is None:
        raise ValueError(
            f"readout.at 'each' needs agents with targets of their own, but the data set {about.name} has its labels "
            "at the root: use 'all', 'centre' or a list of agents"
        )
    if chosen.at != EACH and about.targets is not None:
        raise ValueError(
            f"the data set {about.name} has targets at its agents, each of which predicts its own: "
            "set readout.at = 'each'"
        )


def _listed(names: list[str]) -> str:
    return f"{', '.join(map(repr, names[:-1]))} or {names[-1]!r}"
