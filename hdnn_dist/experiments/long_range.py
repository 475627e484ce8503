"""Experiment 8: distances, eccentricities and diameters on graphs that were not trained on, with weights all share."""

from __future__ import annotations

from hdnn_dist.experiments.cells import Cell, Experiment, Finding, Findings
from hdnn_dist.experiments.many_graphs import train_on_graphs
from hdnn_dist.experiments.table import median_figure, seconds
from hdnn_dist.graph.families import FAMILIES
from hdnn_dist.support.markdown import plain_table

TASKS = {
    "sssp": "distance from a source",
    "eccentricity": "eccentricity",
    "diameter": "diameter",
}
FIELD = {
    "A-DGN": ("1.176", "4.981", "1.151"),
    "SWAN": ("0.896", "4.840", "1.121"),
    "GRIT": ("0.121", "5.091", "1.014"),
    "best known": ("0.085", "0.885", "1.014"),
}  # mean absolute errors in hops, on the files of ECHO: its leaderboard of 23 December 2025; the best as of 2026


WAVE = ("network.layers=30", "network.initial=wave", "network.courant=0.7", "network.jitter=0.1")
FARTHER = (
    "network.layers=40",
    "network.initial=wave",
    "network.jitter=0.3",
    "network.step=1.0",
    "optimizer.learning_rate=0.0003",
    "epochs=200",
)
LESSONS = ("graph=drawn:17,40,3", "data.samples=960", "batch_size=12")  # small graphs first
SUMS = ("network.layers=12", "network.initial=scaled", "network.normalisation=sum", "optimizer.learning_rate=0.003")
SETTINGS = {"sssp": WAVE, "eccentricity": (*FARTHER, *LESSONS), "diameter": (*SUMS, *LESSONS, "epochs=90")}


def _cell(task: str) -> Cell:
    return Cell({"task": task}, "long_range.toml", (f"data.name={task}", *SETTINGS[task]))


def _table(found: Findings) -> str:
    head = ["task", "H2", *FAMILIES, "a constant", *FIELD, "seconds"]
    return plain_table(head, [_row(finding) for finding in found])


def _row(finding: Finding) -> list[str]:
    task = str(finding.cell.labels["task"])
    own = [median_figure(finding, "H2"), *(median_figure(finding, f"H2 {family}", worst=False) for family in FAMILIES)]
    others = [figures[list(TASKS).index(task)] for figures in FIELD.values()]
    constant = median_figure(finding, "constant", worst=False)
    return [TASKS[task], *own, constant, *others, seconds(finding.seconds)]


def _headline(found: Findings) -> str:
    shown = [f"{TASKS[str(one.cell.labels['task'])]} H2 {median_figure(one, 'H2', worst=False)}" for one in found]
    return f"mean absolute error in hops: {', '.join(shown)}"


EXPERIMENT = Experiment(
    name="longrange",
    title="How far agents are from each other",
    compares=(
        "H2 with weights that all agents share learns, on some graphs, what it is then asked on others: the distance "
        "of every agent from a source, the eccentricity of every agent, and the diameter of the graph, all in hops. "
        "Lines, ladders, grids, trees, caterpillars and lobsters with diameters of 17 to 40, three quarters of them "
        "to train with; each agent sees a random number, whether it is the source, and how many neighbours it has. "
        "Mean absolute errors on the other graphs, over all of their agents, or over graphs for the diameter: of H2, "
        "of H2 by family, and of the constant that is best on those trained with. Beside them the figures of the "
        "field on the files of the ECHO benchmark, from [its "
        "leaderboard](https://github.com/Graph-ECHO-Benchmark/ECHO), and the best known to us. **The graphs here are "
        "drawn by its recipe and are not its files**, which are more and differ in sizes: compare with the constant."
    ),
    cells=tuple(_cell(task) for task in TASKS),
    table=_table,
    headline=_headline,
    train=train_on_graphs,
    judged_by="Mean absolute errors in hops on the test graphs after the last epoch",
    seeds=1,
)
