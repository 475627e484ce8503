"""Experiment 8: class transfer, a class that is shown at one agent and read at another, by distance and first weights.

``steps to 0.99``: of the optimiser, up to the first of three evaluations in a row at which the accuracy was that good.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hdnn_dist.experiments.cells import Cell, Experiment, Finding, Findings
from hdnn_dist.experiments.depth import accuracy_axis
from hdnn_dist.experiments.table import accuracy, grouped, median_and_worst, seconds
from hdnn_dist.plots.lines import Line, draw_lines
from hdnn_dist.support.markdown import plain_table
from hdnn_dist.training.loop import Outcome

CONFIG = "class_transfer_ring100.toml"
DISTANCES = (5, 10, 20, 50, 100, 200)
NOISY = (5, 10, 20, 50, 100)
INITIALS = ("scaled", "normal", "wave")
GOAL, IN_A_ROW = 0.99, 3  # evaluations, as in the config
STEPS = f"steps to {GOAL}"
RING, ACROSS = "ring", "across"
CHANCE = 0.2
FEWEST, ELSEWHERE = 6, 1.2  # layers: in all, and a hop on other graphs than rings, on which waves spread out
NEAR, NEAR_RATE, FAR_RATE = 50, 1e-3, 3e-4  # hops, learning rates: many layers take small ones only
JITTER = 0.02  # what is random of a wave scatters it, the more the farther it goes
STEPS_OF = {"scaled": 0.5, "normal": 0.5, "wave": 2.0}  # h: the larger, the smaller the weights of a wave


@dataclass(frozen=True)
class Kind:
    """An architecture: its layers a hop, the first weights that there are for it, the Courant number of its waves and
    the layers a hop that these take, if they are others.
    """

    layers: float
    initials: tuple[str, ...] = INITIALS
    courant: float = 0.9
    for_waves: float | None = None

    def layers_a_hop(self, graph: str, initial: str) -> float:
        """What a cell takes."""
        if initial == "wave" and self.for_waves is not None:
            return self.for_waves
        return self.layers if graph == RING else ELSEWHERE


KINDS = {
    "H2": Kind(0.8),
    "MS1": Kind(0.8),
    "MS3": Kind(0.8),
    "H1-J1": Kind(0.8, courant=0.3, for_waves=2.0),
    "MLP": Kind(1.2, ("scaled", "normal")),  # a layer reads neighbours alone, and there is no wave
}
GRAPHS = {
    "path:51": (0, 50),
    "grid:20x20": (0, 38),
    "torus:20x20": (0, 20),
    "barbell:25,50": (0, 53),
    "watts_strogatz:400,4,0.05,0": (6, 24),
    "topologies/tata_nld.json": (108, 28),
}  # the agent that is read, an end of a longest shortest path, and how long that is
NOISE = ("data.noise=1.0", "data.samples=16000", "batch_size=128", "epochs=10")  # 100 steps an epoch


def _cells() -> Iterator[Cell]:
    for architecture, kind in KINDS.items():
        for initial in kind.initials:
            yield from (_cell(RING, d, f"ring:{2 * d}", 0, architecture, initial) for d in DISTANCES)
    yield from (_cell(RING, d, f"ring:{2 * d}", 0, noise=True) for d in NOISY)
    yield from (_cell(graph, distance, graph, agent) for graph, (agent, distance) in GRAPHS.items())


def _cell(
    named: str,
    distance: int,
    graph: str,
    read_at: int,
    architecture: str = "H2",
    initial: str = "wave",
    noise: bool = False,
) -> Cell:
    layers = KINDS[architecture].layers_a_hop(named, initial)
    labels = {
        "graph": named,
        "others": "noise" if noise else "nothing",
        "architecture": architecture,
        "initial": initial,
        "distance": distance,
    }
    overrides = (
        f"graph={graph}",
        f"readout.at=[{read_at}]",
        f"network.architecture={architecture}",
        f"network.initial={initial}",
        f"network.step={STEPS_OF[initial]}",
        f"network.layers={max(FEWEST, math.ceil(layers * distance))}",
        *(NOISE if noise else ()),
        *((f"network.courant={KINDS[architecture].courant}", f"network.jitter={JITTER}") if initial == "wave" else ()),
        f"optimizer.learning_rate={NEAR_RATE if distance <= NEAR else FAR_RATE}",
    )
    return Cell(labels, CONFIG, overrides)


def reached(outcome: Outcome) -> Mapping[str, float]:
    """The steps to the goal, if it was reached."""
    rows = outcome.epochs
    good = [row.test_accuracy is not None and row.test_accuracy >= GOAL for row in rows]
    first = next((at for at in range(len(good) - IN_A_ROW + 1) if all(good[at : at + IN_A_ROW])), None)
    return {} if first is None else {STEPS: float((first + 1) * (outcome.steps // len(rows)))}


def _table(found: Findings) -> str:
    head = ["graph", "others see", "architecture", "initial", *(f"{d} hops" for d in DISTANCES), ACROSS, "seconds"]
    groups = grouped(found, ["graph", "others", "architecture", "initial"])
    return plain_table(head, [_row(key, line) for key, line in groups.items()])


def _row(key: tuple[str, ...], line: Findings) -> list[str]:
    """Distances of rings have columns, that across another graph is named in the last one."""
    shown = {finding.cell.labels["distance"]: _shown(finding) for finding in line}
    across = "" if key[0] == RING else "; ".join(f"{distance} hops: {what}" for distance, what in shown.items())
    columns = [shown.get(distance, "") if key[0] == RING else "" for distance in DISTANCES]
    return [*key, *columns, across, ", ".join(seconds(finding.seconds) for finding in line)]


def _shown(finding: Finding) -> str:
    """The accuracy, and the median of the steps to 0.99 where most seeds got there."""
    steps = statistics.median(finding.figure(STEPS))
    return median_and_worst(finding) + (f", {steps:.0f}" if math.isfinite(steps) else "")


def _headline(found: Findings) -> str:
    """H2 on the rings: how far each kind of first weights gets, and a wave among noise."""
    lines: dict[str, list[Finding]] = {}
    for finding in found:
        name = _line(finding)
        if name is not None and finding.cell.labels["architecture"] == "H2":
            lines.setdefault(name, []).append(finding)
    return "H2: " + ", ".join(f"{name} {_farthest(line)}" for name, line in lines.items())


def _line(finding: Finding) -> str | None:
    """What the line of a ring is called in a picture; None for other graphs."""
    labels = finding.cell.labels
    if labels["graph"] != RING:
        return None
    return str(labels["initial"]) if labels["others"] == "nothing" else f"{labels['initial']} among noise"


def _farthest(line: Findings) -> str:
    """The farthest distance with the goal reached, or else what the shortest gives."""
    solved = [finding for finding in line if finding.median >= GOAL] or line[:1]
    return f"{accuracy(solved[-1].median)} at {solved[-1].cell.labels['distance']} hops"


def _draw(found: Findings, path: Path) -> Path:
    panels: dict[str, list[Line]] = {}
    rings = [finding for finding in found if finding.cell.labels["graph"] == RING]
    for (architecture, _, _), line in grouped(rings, ["architecture", "initial", "others"]).items():
        distances = [finding.cell.labels["distance"] for finding in line]
        drawn = Line(str(_line(line[0])), distances, [finding.median for finding in line])
        panels.setdefault(architecture, []).append(drawn)
    return draw_lines(panels, path, x="distance in hops", y=accuracy_axis(found), level=("chance, a fifth", CHANCE))


EXPERIMENT = Experiment(
    name="transfer",
    title="Class transfer: how far gradients carry a class",
    compares=(
        "One of 5 classes is shown to one agent alone and read at another one alone, so many hops away: across a "
        "ring of twice as many agents, or between the ends of another graph. All other agents see nothing, or "
        "uniform noise from 0 to 1 (16,000 samples, batches of 128; else there are as many different inputs as "
        "classes, and batches are of 20). 6 features an agent, at least 6 layers, 0.8 a hop (MLP, and graphs that "
        "are no rings: 1.2). From a wave h = 2 and the Courant number is 0.9 (H1-J1, whose forward Euler steps let "
        "waves grow: 0.3, with 2 layers a hop); from other weights h = 0.5; a fiftieth of a wave is random. Adam, "
        "one cycle to 1e-3 up to 50 hops and to 3e-4 beyond, ten times that for the readout, clipped at 1, 1000 "
        "steps at most. A training ends before that when three evaluations in a row gave 0.99 or more, or when 25 "
        "in a row were not better than the best before by more than 0.02; there is one every 20 steps, with noise "
        "every 100. A cell: the accuracy, and behind it the steps to the first of those three evaluations. There "
        "is no wave for the MLP. `across`: between the ends of the other graphs. What is empty has not been "
        "trained."
    ),
    cells=tuple(_cells()),
    table=_table,
    headline=_headline,
    draw=_draw,
    trace=reached,
    judged_by="Test accuracy at the end",
    parts=True,
)
