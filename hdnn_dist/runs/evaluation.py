"""How well a saved run does on its data, or on others of the same kind."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hdnn_dist.training.job import Job, Samples
from hdnn_dist.training.loop import Trainer


def parts_of(job: Job) -> dict[str, Samples]:
    """The samples of a job by name."""
    known = {"train": job.train, "validation": job.validation, "test": job.test}
    return {name: part for name, part in known.items() if part is not None}


def scores(job: Job) -> dict[str, dict[str, Any]]:
    """Loss and metrics on each part of the data, by name, the same on every rank, which all have to call it."""
    trainer = Trainer(job)
    return {name: {"samples": len(part), **asdict(trainer.evaluate(part))} for name, part in parts_of(job).items()}
