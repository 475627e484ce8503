"""What is said when a run ends in numbers that are not finite: where they began, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from hdnn_dist.training.build import Job
from hdnn_dist.training.finite import BEFORE, Place, first_not_finite

LOWER = (
    "the gradient exploded; lower optimizer.learning_rate or network.step, set optimizer.clip, raise "
    "penalties.smoothness, or use network.initial='scaled'"
)
SAMPLES = "the samples have NaN or infinity; look at the data"


class DivergenceError(ArithmeticError):
    """The loss, a state or the weights are no longer finite."""


def diverged(job: Job, inputs: Iterable[Tensor], when: str) -> DivergenceError:
    """The error that names the first layer and agent with NaN or infinity, from the first batch that shows one.

    Every rank has to call it, with the same batches; every rank gets the same error.
    """
    for x in inputs:
        place = first_not_finite(job.net, job.head, x, job.lift)
        if place is not None:
            return DivergenceError(_message(place, when, job.lift is not None))
    return DivergenceError(f"the loss is no longer finite in {when}, but all weights and states seen now are: {LOWER}")


def _message(place: Place, when: str, lifted: bool) -> str:
    given = place.kind == "state" and place.layer == BEFORE and not lifted
    verb = "are" if place.kind == "weights" else "is"
    return f"the {place.kind} {verb} no longer finite in {when}, {place}: {SAMPLES if given else LOWER}"
