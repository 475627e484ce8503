"""What a finished training leaves for its report: bytes along every edge, and what the test samples were taken for.

edges.json      {"owner": [rank of each agent], "inputs": [agents], "readout": [agents],
                 "edges": [[agent, agent, bytes a training step], ...]}
judged.json     {"task": "classification", "counts": [[...], ...]}: a row for each true class, a column for each
                that was predicted; or {"task": "regression", "true": [[...], ...], "predicted": [[...], ...]}: of the
                first samples, a number for each output
decision.npz    what is decided over the plane of the data, where they have one
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.runs.folder import DECIDED, EDGES, JUDGED
from hdnn_dist.runs.pictures import Plane
from hdnn_dist.support.files import whole_file, write_whole
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import EVALUATION_BATCH, Outcome

MOST_CLASSES = 200  # the table of more is large, and nobody reads it
MOST_SAMPLES = 1000  # of regression


def find(job: Job, outcome: Outcome) -> dict[str, dict[str, Any]]:
    """File -> content, the same keys on the root's rank as on all, which have to call it; one sum along the tree."""
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
    every = job.head.everyone.sum(sent.to(agents.world.device)).cpu().numpy() / max(outcome.steps, 1)
    return {
        "owner": agents.owner.tolist(),
        "inputs": job.entered,
        "readout": job.head.at.tolist(),
        "edges": [[int(a), int(b), float(size)] for (a, b), size in zip(agents.graph.edges, every, strict=True)],
    }


def _judged(job: Job) -> dict[str, Any]:
    """Empty where there are too many classes, and on ranks without labels."""
    logits, labels = _test_logits(job)
    if labels is None or (job.head.criterion.integer and job.about.classes > MOST_CLASSES):
        return {}
    if not job.head.criterion.integer:
        return {
            "task": "regression",
            "true": labels[:MOST_SAMPLES].tolist(),
            "predicted": logits[:MOST_SAMPLES].tolist(),
        }
    counts = np.zeros((job.about.classes,) * 2, dtype=np.int64)
    np.add.at(counts, (labels.numpy(), _classes(job, logits)), 1)
    return {"task": "classification", "counts": counts.tolist()}


def _test_logits(job: Job) -> tuple[Tensor, Tensor | None]:
    """(samples, outputs) of the test samples, and their labels, both on the CPU; no labels but on the root's rank."""
    logits, labels = [], []
    with torch.no_grad():
        for index in torch.arange(len(job.test), device=job.net.weights.device).split(EVALUATION_BATCH):
            x, known = job.test.batch(index)
            logits.append(job.head(job.forward(x)).cpu())
            labels += [] if known is None else [known.cpu()]
    return torch.cat(logits), torch.cat(labels) if labels else None


def _classes(job: Job, logits: Tensor) -> np.ndarray:
    decided = job.head.criterion.decide(logits)
    return (decided > 0.5 if decided.is_floating_point() else decided).long().numpy()


def _write_plane(path: Path, plane: Plane) -> None:
    decided, labels = plane.shown
    small = decided.astype(np.float16 if np.issubdtype(decided.dtype, np.floating) else np.int32)
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
