"""What a finished training leaves for its report: bytes along every edge, and what the test samples were taken for.

edges.json      {"owner": [rank of each agent], "inputs": [agents], "readout": [agents],
                 "edges": [[agent, agent, bytes a training step], ...]}
judged.json     {"task": "classification", "counts": [[...], ...]}: a row for each true class, a column for each
                that was predicted; or {"task": "regression", "outputs": [names], "true": [[...], ...], "predicted":
                [[...], ...]}: of the first samples, a number for each of the first outputs
decision.npz    what is decided over the plane of the data, where they have one
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.data.source import CLASSIFICATION, REGRESSION
from hdnn_dist.model.agent_readouts import AgentReadouts
from hdnn_dist.runs.folder import DECIDED, EDGES, JUDGED
from hdnn_dist.runs.pictures import Plane
from hdnn_dist.support.files import whole_file, write_whole
from hdnn_dist.support.rows import Rows
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import EVALUATION_BATCH, Outcome

MOST_CLASSES = 200  # the table of more is large, and nobody reads it
MOST_SAMPLES, MOST_OUTPUTS = 500, 6  # of regression


def find(job: Job, outcome: Outcome) -> dict[str, dict[str, Any]]:
    """File -> content, whole on the root's rank; every rank has to call it, for a sum or two along the tree."""
    return {EDGES: _edges(job, outcome), JUDGED: _judged(job)}


def write_findings(path: Path, found: dict[str, dict[str, Any]], plane: Plane | None) -> None:
    """Into the run folder; the root's rank writes."""
    for name, content in found.items():
        if content:
            write_whole(path / name, json.dumps(content) + "\n")
    if plane is not None:
        _write_plane(path / DECIDED, plane)


def _edges(job: Job, outcome: Outcome) -> dict[str, Any]:
    agents, sent = job.agents, torch.as_tensor(outcome.traffic.edge_bytes, dtype=torch.float64)
    every = job.head.everyone.sum(sent.to(agents.world.device)).cpu().numpy() / outcome.measured
    return {
        "owner": agents.owner.tolist(),
        "inputs": job.entered,
        "readout": job.head.at.tolist(),
        "edges": [[int(a), int(b), float(size)] for (a, b), size in zip(agents.graph.edges, every, strict=True)],
    }


def _judged(job: Job) -> dict[str, Any]:
    """Empty where there are too many classes, and on ranks that do not know."""
    predicted, labels = _of_test(job)
    if isinstance(job.head, AgentReadouts):
        return _by_agents(job, job.head, predicted, labels)
    if labels is None or (job.head.criterion.integer and job.about.classes > MOST_CLASSES):
        return {}
    if not job.head.criterion.integer:
        names = [f"output {output}" for output in range(job.about.classes)][:MOST_OUTPUTS]
        return _numbers(names, labels[:MOST_SAMPLES, :MOST_OUTPUTS], predicted[:MOST_SAMPLES, :MOST_OUTPUTS])
    counts = np.zeros((job.about.classes,) * 2, dtype=np.int64)
    np.add.at(counts, (labels.numpy(), _classes(job, predicted)), 1)
    return {"task": CLASSIFICATION, "counts": counts.tolist()}


def _by_agents(job: Job, head: AgentReadouts, predicted: Tensor, labels: Tensor | None) -> dict[str, Any]:
    """Of the first outputs, each known where its agent lives: one sum along the tree."""
    every = [(agent, output) for agent, count in head.targets.items() for output in range(count)]
    here = [which for which in every if job.agents.owns(which[0])]
    told = torch.zeros(2, min(len(job.test), MOST_SAMPLES), min(len(every), MOST_OUTPUTS), dtype=torch.float64)
    for place, which in enumerate(here):
        if labels is not None and (column := every.index(which)) < MOST_OUTPUTS:
            told[0, :, column] = labels[: told.shape[1], place]
            told[1, :, column] = predicted[: told.shape[1], place]
    true, found = head.everyone.sum(told.to(job.agents.world.device)).cpu()
    names = [f"{job.agents.graph.named(agent)}, output {output}" for agent, output in every[:MOST_OUTPUTS]]
    return _numbers(names, true, found)


def _numbers(names: list[str], true: Tensor, predicted: Tensor) -> dict[str, Any]:
    return {"task": REGRESSION, "outputs": names, "true": true.tolist(), "predicted": predicted.tolist()}


def _of_test(job: Job) -> tuple[Tensor, Tensor | None]:
    """(samples, outputs) that this rank knows of the test samples, and their labels, both on the CPU."""
    predicted, labels = Rows(), Rows()
    with torch.no_grad():
        for index in torch.arange(len(job.test), device=job.net.trained_weights.device).split(EVALUATION_BATCH):
            x, known = job.test.batch(index)
            predicted.append(job.head(job.forward(x)).cpu())
            if known is not None:
                labels.append(known.cpu())
    return predicted.all(), labels.all() if len(labels) else None


def _classes(job: Job, logits: Tensor) -> np.ndarray:
    decided = job.head.criterion.decide(logits)
    return (decided > 0.5 if decided.is_floating_point() else decided).long().numpy()


def _write_plane(path: Path, plane: Plane) -> None:
    decided, labels = plane.shown
    small = decided.astype(np.float32 if np.issubdtype(decided.dtype, np.floating) else np.int32)
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            x=plane.x,
            y=plane.y,
            decided=small,
            points=plane.test.inputs[: len(labels)],
            labels=labels,
            axes=np.array(plane.axes_show),
        )
