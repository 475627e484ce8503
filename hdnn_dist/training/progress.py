"""Where a training stands between two steps, taken out of a trainer and put back into one, on any number of ranks.

What lies like a parameter, the moments of the optimiser, is cut into the same parts of agents (``Trained.view``). The
order of an epoch is a function of seed and epoch, so a position is all that is kept of the data; no step draws a random
number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from hdnn_dist.training.gradients import StepGradients
from hdnn_dist.training.loop import Epoch, Results, Trainer

SCHEDULE = ("last_epoch", "_step_count", "_last_lr")
RESULTS, GRADIENTS, NORMS = "run.results.", "run.gradients.", "root.gradients."
UNTIL_THE_END = ("one_cycle", "cosine")  # schedules that depend on how many epochs there are


def moments(trainer: Trainer) -> dict[str, dict[nn.Parameter, Tensor]]:
    """What the optimiser keeps of each parameter, of its shape: name -> parameter -> tensor."""
    found: dict[str, dict[nn.Parameter, Tensor]] = {}
    for parameter in trainer.parameters:
        for name, value in trainer.optimizer.state.get(parameter, {}).items():
            if name != "step" and isinstance(value, Tensor) and value.shape == parameter.shape:
                found.setdefault(name, {})[parameter] = value
    return found


def counts(trainer: Trainer) -> dict[str, Any]:
    """The position and what else is the same on every rank, as JSON holds it."""
    groups = [{"lr": float(group["lr"])} for group in trainer.optimizer.param_groups]
    kept = trainer.schedule.state_dict()
    return {
        "schedule": {"groups": groups, **{name: kept[name] for name in SCHEDULE if name in kept}},
        "rows": [_without_gradients(row) for row in trainer.rows],
        "extra": {
            "seconds": trainer.seconds,
            "first_loss": None if math.isnan(trainer.first_loss) else trainer.first_loss,
            "moments": sorted(moments(trainer)),
            "optimizer_steps": _optimizer_steps(trainer),
        },
    }


def tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of what is small: ``run.results.I`` (steps,), the same on every rank, this rank's ``run.gradients`` and,
    on the root's, ``root.gradients`` of what was written.
    """
    found = {f"{RESULTS}{at}": column for at, column in enumerate(_columns(trainer.results))}
    if trainer.record is not None:
        found |= {GRADIENTS + name: value for name, value in trainer.record.state().items()}
        if trainer.job.is_root:
            found |= _norms(trainer)
    return found


def restore(
    trainer: Trainer,
    epoch: int,
    known: dict[str, Any],
    shared: dict[str, Tensor],
    gradients: Sequence[dict[str, Tensor]],
) -> None:
    """Put back ``counts`` and ``tensors``, (steps, ...); ``gradients``: the ``run.gradients`` that this rank takes on.

    Weights and moments are put back by whoever has read them, see ``make_moments``.
    """
    device = trainer.job.net.trained_weights.device
    trainer.rows = _rows(trainer, known["rows"], shared)
    columns = [shared[name] for name in sorted(name for name in shared if name.startswith(RESULTS))]
    if columns:
        told = torch.stack([column.double() for column in columns[1:]], 1).to(device)
        trainer.results = Results(columns[0].tolist(), told)
    trainer.seconds = known["extra"]["seconds"]
    first = known["extra"]["first_loss"]
    trainer.first_loss = math.nan if first is None else first
    _restore_schedule(trainer, known["schedule"])
    if trainer.record is not None:
        trainer.record.restore(trainer.steps, *_summed(trainer, gradients))


def make_moments(trainer: Trainer, known: dict[str, Any]) -> dict[str, dict[nn.Parameter, Tensor]]:
    """As ``moments``, of a trainer that has made no step: zeros, to be filled."""
    extra = known["extra"]
    for parameter in (parameter for group in trainer.optimizer.param_groups for parameter in group["params"]):
        state: dict[str, Tensor] = {name: torch.zeros_like(parameter) for name in extra["moments"]}
        if extra["optimizer_steps"] is not None:
            state["step"] = torch.tensor(extra["optimizer_steps"], dtype=torch.float32, device=parameter.device)
        if state:
            trainer.optimizer.state[parameter] = state
    return moments(trainer)


def _restore_schedule(trainer: Trainer, known: dict[str, Any]) -> None:
    for group, kept in zip(trainer.optimizer.param_groups, known["groups"], strict=True):
        group["lr"] = kept["lr"]
    trainer.schedule.__dict__.update({name: known[name] for name in SCHEDULE if name in known})


def _optimizer_steps(trainer: Trainer) -> float | None:
    """How many steps the optimiser says that it has made, where it counts them."""
    steps = [state["step"] for state in trainer.optimizer.state.values() if "step" in state]
    return float(steps[0]) if steps else None


def _columns(results: Results) -> list[Tensor]:
    """Of what steps have given: a tensor (steps,) of each kind, on the CPU."""
    if not results.sizes:
        return []
    columns = results.told().T.cpu().unbind()
    sizes = torch.tensor(results.sizes, dtype=torch.int64)
    return [sizes, *(column.clone(memory_format=torch.contiguous_format) for column in columns)]


def _without_gradients(row: Epoch) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name != "gradients"}


def _norms(trainer: Trainer) -> dict[str, Tensor]:
    """``root.gradients.steps`` (n,) and ``root.gradients.norms`` (n, layers) of all epochs that are finished."""
    lines = [step for row in trainer.rows for step in row.gradients]
    norms = torch.tensor([line.norms for line in lines], dtype=torch.float64)
    return {f"{NORMS}steps": torch.tensor([line.step for line in lines]), f"{NORMS}norms": norms}


def _rows(trainer: Trainer, rows: Sequence[dict[str, Any]], shared: dict[str, Tensor]) -> list[Epoch]:
    """Rows with the lines of their gradients, where this rank has these."""
    known = {field.name for field in fields(Epoch)}
    lines: dict[int, list[StepGradients]] = {}
    if f"{NORMS}steps" in shared:
        pairs = zip(shared[f"{NORMS}steps"].tolist(), shared[f"{NORMS}norms"].tolist(), strict=True)
        for step, norms in pairs:
            lines.setdefault((step - 1) // trainer.steps_per_epoch, []).append(StepGradients(step, norms))
    return [
        Epoch(**{name: value for name, value in row.items() if name in known}, gradients=lines.get(at, []))
        for at, row in enumerate(rows)
    ]


def _summed(trainer: Trainer, gradients: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Steps (n,) and squares (n, layers) of several ranks of the past, as one rank has them now."""
    if not gradients:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, trainer.job.net.layers, dtype=torch.float64)
    squares = gradients[0][f"{GRADIENTS}squares"]
    for other in gradients[1:]:
        squares = squares + other[f"{GRADIENTS}squares"]
    return gradients[0][f"{GRADIENTS}steps"], squares
