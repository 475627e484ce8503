"""Where the numbers of a run stop being finite: the first such place, the agent that has it there, and what mends it.

The order is that in which a training step meets them: the input (or the lift), the weights of layer 0, the state after
it, ..., the weights of the readout; on the way back the gradient of the readout, of the last layer, ..., of the first.
So weights come before the state that they spoil, and a state before those that it spreads to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.trained import BEFORE, Trained, TrainedModule
from hdnn_dist.training.job import Job

LOWER = (
    "the gradient exploded; lower optimizer.learning_rate or network.step, set optimizer.clip, raise "
    "penalties.smoothness, or use network.initial='scaled'"
)
GROWN = 1e6  # times as large as at first, or as 1, no loss means anything, finite or not
SAMPLES = "the samples have NaN or infinity; look at the data"


class DivergenceError(ArithmeticError):
    """The loss, a state or the weights are no longer finite, or the loss has grown beyond any meaning."""


@dataclass(frozen=True)
class Place:
    """``kind``: "weights", "state" or "gradient" (of weights). ``layer``: from 0; ``BEFORE``, or ``layers`` (readout).

    ``layers``: of the network.
    """

    kind: str
    layer: int
    agent: int
    layers: int

    def __str__(self) -> str:
        return f"{self.part}, agent {self.agent}"

    @property
    def part(self) -> str:
        """The layer, or what stands before or behind all."""
        before = "input" if self.kind == "state" else "lift"
        return {BEFORE: before, self.layers: "readout"}.get(self.layer, f"layer {self.layer}")

    @property
    def order(self) -> int:
        """The number of this place in a training step, whoever the agent."""
        if self.kind == "gradient":
            return 2 * (self.layers + 2) + self.layers - self.layer
        return 2 * (self.layer + 1) + (self.kind == "state")

    @staticmethod
    def at(order: int, agent: int, layers: int) -> Place:
        """The inverse of ``order``."""
        if order >= 2 * (layers + 2):
            return Place("gradient", layers - (order - 2 * (layers + 2)), agent, layers)
        return Place("state" if order % 2 else "weights", order // 2 - 1, agent, layers)


def first_not_finite(net: HDNN, others: Sequence[TrainedModule], x: Tensor) -> Place | None:
    """The first place on any rank with NaN or infinity, the same on all; ``None`` where all is finite.

    ``others``: what is trained beside the network; ``x``: (batch, local features[, positions...]) its input. Every rank
    has to call it with the same batch: it costs a forward pass, layer by layer, since later layers may heal what an
    earlier one broke, and one sum along the tree. Gradients are those that the parameters hold.
    """
    with torch.no_grad():
        trained = [part for module in (net, *others) for part in module.trained()]
        values = [_first_of(net, "weights", part, part.parameter) for part in trained]
        gradients = [_first_of(net, "gradient", part, part.parameter.grad) for part in trained]
        states = [_first(net, *state) for state in _states(net, x)]
    return _earliest(net, [place for place in (*values, *states, *gradients) if place is not None])


def all_finite(tree: SumTree, *tensors: Tensor | None) -> bool:
    """Whether no rank has NaN or infinity in these, of any shape; the same answer everywhere, for one sum."""
    flags = [given.isfinite().all() for given in tensors if given is not None]
    broken = torch.stack(flags).logical_not().any().to(torch.float64)
    return not bool(tree.agents.world.of_replicas(tree.sum(broken.reshape(1))).any())


def diverged(job: Job, inputs: Iterable[Tensor], when: str) -> DivergenceError:
    """The error that names the first layer and agent with NaN or infinity, from the first batch that shows one.

    ``inputs``: batches (batch, local features), or images before a lift. Every rank has to call it, with the same
    batches; every rank gets the same error.
    """
    for x in inputs:
        with torch.no_grad():
            place = first_not_finite(job.net, job.others, job.state(x))
        if place is not None:
            return DivergenceError(_message(place, when, job))
    return DivergenceError(f"the loss is no longer finite in {when}, but all weights and states seen now are: {LOWER}")


def refuse_growth(loss: float, first: float, when: str) -> None:
    """``DivergenceError`` for a loss that is a million times the first one, or 1, though every number is finite."""
    if loss > GROWN * max(first, 1.0):
        raise DivergenceError(f"the loss is {loss:.3g} in {when}, and was {first:.3g} in the first step: {LOWER}")


def _message(place: Place, when: str, job: Job) -> str:
    given = place.kind == "state" and place.layer == BEFORE and job.lift is None
    verb = "are" if place.kind == "weights" else "is"
    who = "which all agents share" if _is_shared(place, job) else job.agents.graph.named(place.agent)
    where = f"{place.part}, {who}"
    return f"the {place.kind} {verb} no longer finite in {when}, {where}: {SAMPLES if given else LOWER}"


def _is_shared(place: Place, job: Job) -> bool:
    holder = {job.net.layers: job.head, BEFORE: job.lift}.get(place.layer, job.net)
    return place.kind != "state" and holder is not None and holder.shared is not None


def _states(net: HDNN, x: Tensor) -> Iterator[tuple[int, Tensor, np.ndarray]]:
    """(layer, state (..., local features), the agent of each feature) before the first layer and after each."""
    owners = np.repeat(net.agents.local, net.features[net.agents.local])
    yield BEFORE, x.movedim(1, -1), owners
    for layer in range(net.layers):
        x = net(x, layers=slice(layer, layer + 1))
        yield layer, x.movedim(1, -1), owners


def _first(net: HDNN, layer: int, state: Tensor, owners: np.ndarray) -> Place | None:
    """The lowest agent here with a state that is not finite."""
    broken = state.isfinite().flatten(0, -2).all(0).logical_not().cpu().numpy()
    return Place("state", layer, int(owners[broken].min()), net.layers) if broken.any() else None


def _first_of(net: HDNN, kind: str, part: Trained, numbers: Tensor | None) -> Place | None:
    """The first of its layers, or of gradients the last, in which an agent has a number that is not finite."""
    if numbers is None:
        return None
    finite = part.view(numbers).isfinite().reshape(len(part.layers), -1).all(1).tolist()
    broken = [layer for layer, whole in zip(part.layers, finite, strict=True) if not whole]
    return Place(kind, broken[-1 if kind == "gradient" else 0], part.agent, net.layers) if broken else None


def _earliest(net: HDNN, found: list[Place]) -> Place | None:
    """The earliest place on any rank, of equally early ones that with the lowest agent; one sum along the tree."""
    agents = net.agents.graph.agents
    earliest = 1 + min((place.order * agents + place.agent for place in found), default=-1)  # 0 where a rank has none
    known = SumTree(net.agents).collect(torch.tensor(earliest, dtype=torch.float64, device=net.agents.world.device))
    known = net.agents.world.of_replicas(known)
    known = known[known > 0]
    return None if not len(known) else Place.at(*divmod(int(known.min()) - 1, agents), net.layers)
