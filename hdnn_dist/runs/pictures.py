"""The pictures of a run: the graph, the pattern of K, the curves and, for data in the plane, what is decided there.

What draws is imported when it draws: matplotlib takes a while, and only the root's rank needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hdnn_dist.data.dataset import load
from hdnn_dist.data.source import REGRESSION
from hdnn_dist.support.arguments import one_line
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import EVALUATION_BATCH, Epoch

PICTURES = GRAPH, SPARSITY, CURVES, DECISION = "graph.png", "sparsity.png", "curves.png", "decision.png"
GRID_POINTS = 200  # along each axis
MARGIN = 0.05
MOST_POINTS = 1000
LARGEST_MASK = 4096  # features; above, the pattern is drawn agent by agent


class PictureWarning(UserWarning):
    """A picture could not be drawn; the run is complete without it."""


def draw_run(job: Job, epochs: list[Epoch], folder: Path, plane: Plane | None) -> list[Path]:
    """Draw everything into the run folder, on the root's rank; what was drawn. A picture that fails is a warning."""
    from hdnn_dist.plots.curves import draw_curves

    drawings: list[tuple[str, Callable[[Path], Path]]] = [
        (GRAPH, partial(_draw_agents, job)),
        (SPARSITY, partial(_draw_pattern, job)),
    ]
    if epochs:
        drawings.append((CURVES, partial(draw_curves, [vars(row) for row in epochs])))
    if plane is not None:
        drawings.append((DECISION, plane.draw))
    return [path for name, draw in drawings if (path := _drawn(draw, folder / name)) is not None]


def _drawn(draw: Callable[[Path], Path], path: Path) -> Path | None:
    try:
        return draw(path)
    except Exception as error:  # matplotlib raises errors of many kinds; none is worth a run
        warnings.warn(f"{path} could not be drawn: {one_line(error)}", PictureWarning, stacklevel=2)
        return None


def decision_plane(job: Job) -> Plane | None:
    """What the network decides or predicts in the plane of a named data set, where it has one; every rank has to call
    it.

    The network is evaluated on a grid by all agents together, each from its own columns of the grid.
    """
    fits = job.about.columns == 2 and job.about.targets is None and job.config.data.source == "named"
    return Plane(job) if fits else None


class Plane:
    """What the network decides on a grid over the data; ``decided``: (points,) on the root's rank, else ``None``.

    Where numbers are learned, the first of those that it predicts.
    """

    def __init__(self, job: Job) -> None:
        chosen, both = job.config.data, np.arange(2)
        self.numbers = job.about.task == REGRESSION
        self.outputs = job.about.classes
        self.name = chosen.name
        self.axes_show = _axis(job, 0), _axis(job, 1)
        self.test = load(
            chosen.name,
            seed=job.config.seed,
            index=both,
            samples=chosen.samples,
            noise=chosen.noise,
            root=chosen.root,
            graph=job.agents.graph,
        ).test
        low, high = self.test.inputs.min(axis=0), self.test.inputs.max(axis=0)
        edge = MARGIN * (high - low)
        self.x, self.y = np.linspace(low - edge, high + edge, GRID_POINTS).T
        grid = np.stack(np.meshgrid(self.x, self.y), axis=-1).reshape(-1, 2)
        with torch.no_grad():
            logits = torch.cat([job.head(job.forward(part)) for part in job.inputs(grid).split(EVALUATION_BATCH)])
        decided = job.head.criterion.decide(logits).cpu().numpy() if job.is_root else None
        self.decided = decided[:, 0] if decided is not None and self.numbers else decided

    @property
    def shown(self) -> tuple[np.ndarray, np.ndarray]:
        """(ny, nx) what is decided, and (points,) the classes, or numbers, of what is drawn; on the root's rank."""
        assert self.decided is not None
        assert self.test.labels is not None
        labels = self.test.labels[:MOST_POINTS]
        return self.decided.reshape(GRID_POINTS, GRID_POINTS), labels[:, 0] if self.numbers else labels

    def draw(self, path: Path) -> Path:
        from hdnn_dist.plots.decision import draw_decision
        from hdnn_dist.plots.surface import draw_surface

        decided, labels = self.shown
        shown = self.test.inputs[: len(labels)]
        which = (
            f"all {len(self.test)}" if len(shown) == len(self.test) else f"the first {len(shown)} of {len(self.test)}"
        )
        title = f"What the network {self._does}, {self.name.replace('_', ' ')}\nPoints: {which} test samples"
        draw = draw_surface if self.numbers else draw_decision
        return draw(self.x, self.y, decided, shown, labels, path, title=title, axes_show=self.axes_show)

    @property
    def _does(self) -> str:
        if not self.numbers:
            return "decides"
        return "predicts" if self.outputs == 1 else f"predicts, the first of {self.outputs} outputs"


def _axis(job: Job, column: int) -> str:
    """Which agent sees this column of the data."""
    assigned = {} if job.columns is None else job.columns.assignment
    seen = [
        f", seen by agent {job.agents.graph.label(agent)}" for agent, columns in assigned.items() if column in columns
    ]
    return f"column {column}{''.join(seen)}"


def _draw_agents(job: Job, path: Path) -> Path:
    from hdnn_dist.plots.graph import draw_graph

    agents, head = job.agents, job.head
    return draw_graph(
        agents.graph,
        path,
        owner=agents.owner if agents.world.size > 1 else None,
        inputs=job.entered,
        readout=head.at.tolist() if len(head.at) < agents.graph.agents else None,
    )


def _draw_pattern(job: Job, path: Path) -> Path:
    """One picture: all operators of a network have one pattern, in all of its layers."""
    from hdnn_dist.plots.sparsity import draw_sparsity

    sizes = job.net.layout.halo.sizes
    small = sizes.sum() <= LARGEST_MASK
    sizes = sizes if small else np.ones_like(sizes)
    starts = (np.cumsum(sizes) - sizes).tolist()
    operators = [operator.name for operator in job.net.architecture.operators]
    names = list(map(job.agents.graph.label, range(job.agents.graph.agents)))
    both = "both and in " if len(operators) > 1 else ""
    title = f"Pattern of {' and '.join(operators)}, the same in {both}all layers"
    title = f"{title}\n{job.agents.graph.name}{'' if small else ', a cell for each block'}"
    return draw_sparsity(job.net.pattern.mask(sizes), path, block_starts=starts, names=names, title=title)
