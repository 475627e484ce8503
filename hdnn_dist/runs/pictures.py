"""The pictures of a run: the graph, the pattern of K, the curves and, for data in the plane, the decision regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hdnn_dist.data.dataset import load
from hdnn_dist.plots.curves import draw_curves
from hdnn_dist.plots.decision import draw_decision
from hdnn_dist.plots.graph import draw_graph
from hdnn_dist.plots.sparsity import draw_sparsity
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import EVALUATION_BATCH, Epoch

PICTURES = GRAPH, SPARSITY, CURVES, DECISION = "graph.png", "sparsity.png", "curves.png", "decision.png"
GRID_POINTS = 200  # along each axis
MARGIN = 0.05
MOST_POINTS = 1000
LARGEST_MASK = 4096  # features; above, the pattern is drawn agent by agent


def draw_run(job: Job, epochs: list[Epoch], folder: Path) -> list[Path]:
    """Draw everything into the run folder; every rank has to call it, the root's rank draws.

    The network is evaluated on a grid by all agents together, each from its own columns of the grid.
    """
    plane = _Plane(job) if job.about.columns == 2 else None
    if not job.is_root:
        return []
    pictures = [_draw_agents(job, folder / GRAPH), _draw_pattern(job, folder / SPARSITY)]
    if epochs:
        pictures.append(draw_curves([vars(row) for row in epochs], folder / CURVES))
    if plane is not None:
        pictures.append(plane.draw(folder / DECISION))
    return pictures


class _Plane:
    """What the network decides on a grid over the data; ``decided``: (points,) on the root's rank, else ``None``."""

    def __init__(self, job: Job) -> None:
        chosen, both = job.config.data, np.arange(2)
        self.name = chosen.name
        self.test = load(
            chosen.name,
            seed=job.config.seed,
            index=both,
            samples=chosen.samples,
            noise=chosen.noise,
            root=chosen.root,
        ).test
        low, high = self.test.inputs.min(axis=0), self.test.inputs.max(axis=0)
        edge = MARGIN * (high - low)
        self.x, self.y = np.linspace(low - edge, high + edge, GRID_POINTS).T
        grid = np.stack(np.meshgrid(self.x, self.y), axis=-1).reshape(-1, 2)
        with torch.no_grad():
            logits = torch.cat([job.head(job.forward(part)) for part in job.inputs(grid).split(EVALUATION_BATCH)])
        self.decided = job.head.criterion.decide(logits).cpu().numpy() if job.is_root else None

    def draw(self, path: Path) -> Path:
        assert self.decided is not None
        shown, labels = self.test.inputs[:MOST_POINTS], self.test.labels
        assert labels is not None
        shape = (GRID_POINTS, GRID_POINTS)
        title = f"Decision regions, {self.name.replace('_', ' ')}"
        return draw_decision(
            self.x, self.y, self.decided.reshape(shape), shown, labels[:MOST_POINTS], path, title=title
        )


def _draw_agents(job: Job, path: Path) -> Path:
    agents, head = job.agents, job.head
    return draw_graph(
        agents.graph,
        path,
        owner=agents.owner if agents.world.size > 1 else None,
        inputs=job.entered,
        readout=head.at.tolist() if len(head.at) < agents.graph.agents else None,
    )


def _draw_pattern(job: Job, path: Path) -> Path:
    sizes = job.net.layout.halo.sizes
    sizes = sizes if sizes.sum() <= LARGEST_MASK else np.ones_like(sizes)
    operator = job.net.architecture.operators[0].name
    starts = (np.cumsum(sizes) - sizes).tolist()
    title = f"Sparsity of {operator}, {job.agents.graph.name}"
    return draw_sparsity(job.net.pattern.mask(sizes), path, block_starts=starts, title=title)
