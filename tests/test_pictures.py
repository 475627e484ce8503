"""Every picture as a reader sees it: nothing cut off, nothing covered, axes with their names, agents apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from battery import ALONE
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.markers import CARETUP
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from hdnn_dist.experiments import EXPERIMENTS
from hdnn_dist.experiments.cells import Finding, Result
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.plots import draw_curves, draw_decision, draw_graph, draw_sparsity
from hdnn_dist.plots.controls import draw_controls
from hdnn_dist.plots.edges import edge_paths
from hdnn_dist.plots.layout import WIDTH, agent_diameter, place_agents
from hdnn_dist.plots.sensitivity import (
    draw_counterexample,
    draw_depth,
    draw_gradient_norms,
    draw_norms,
    draw_singular_values,
)
from hdnn_dist.plots.transport import Panel, draw_transport
from hdnn_dist.runs.pictures import decision_plane, draw_run
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.loop import Trainer

TOPOLOGIES = Path(__file__).parents[1] / "topologies"
SPECS = (
    *("path:1", "path:2", "path:8", "path:60", "ring:8", "ring:100", "grid:8x8", "star:20", "complete:8", "tree:2x5"),
    *("hypercube:4", "exponential:16", "erdos_renyi:40,0.15", "watts_strogatz:60,4,0.2", "random_regular:3,30"),
    *("barbell:8,6", "lollipop:8,6", "crossed_ring:16"),
    *sorted(map(str, TOPOLOGIES.glob("*.[egj]*"))),
)
MAPS = ("geant2010", "ieee118", "tata_nld")  # with places of their own, some nearer than an agent is wide
APART = [spec for spec in SPECS if Path(spec).stem not in MAPS]
RNG = np.random.default_rng(0)
LONG = "A very long name_of a place $x^2$ "


def decision(path: Path) -> Path:
    grid, points = np.linspace(-4.7, 4.7, 30), RNG.uniform(-4, 4, (200, 2))
    probability = (np.add.outer(grid, grid) > 0) * 1.0
    seen = ("column 0, seen by agent 0", "column 1, seen by agent 12")
    title = "What the network decides, double circles\nPoints: the first 200 of 4000 test samples"
    return draw_decision(grid, grid, probability, points, points[:, 0] > 0, path, title=title, axes_show=seen)


def transport(path: Path, panels: int = 3, layers: int = 50, hops: int = 50, title: str = "ring:100") -> Path:
    at, away = np.arange(layers + 1), np.arange(hops + 1)
    norms = np.where(away <= 4 * at[:, None], 10.0 ** np.minimum(at[:, None] / 5 - away, 9), 0)
    front, cone = np.minimum(at // 3, hops), np.minimum(4 * at, hops)
    drawn = [Panel(f"weights {number}", norms, cone, front, 0.9 if number else None) for number in range(panels)]
    return draw_transport(
        drawn, path, title=f"How far a small change at agent 50 gets, layer by layer\n{title}", arrived=0.01
    )


def metrics(epochs: int) -> list[dict[str, float]]:
    falling = [{"loss": 0.7**e, "test_loss": 0.8**e} for e in range(epochs)]
    return [
        {"epoch": e + 1, **row, "train_accuracy": 1 - row["loss"], "test_accuracy": 1 - row["test_loss"]}
        for e, row in enumerate(falling)
    ]


def table(growth: float, bound: float, lower: float | None) -> list[dict[str, Any]]:
    """Norms ``growth``^j, ``bound`` decades a layer."""
    return [
        {
            "j": j,
            "norm": growth**j,
            "smallest_singular_value": growth**-j if growth > 1 else None,
            "singular_values": [growth**j, 1.0, None] if j < 16 else None,
            "lower_bound": lower,
            "log10_upper_bound": bound * j,
            "log10_continuous_bound": 2 * bound * j if lower else None,
        }
        for j in (1, 2, 5, 16, 64, 256)
    ]


TABLES = {"near": table(1.01, 0.005, 1.0), "far": table(1.1, 3.0, 1.0), "vanishing": table(0.1, 0.1, None)}


def controls(path: Path) -> Path:
    figures = {"norm": 4.0, "log10_upper_bound": 9.0, "differences": 2000.0, "weights": 1000.0}
    drawn = [
        {
            "key": "optimizer.weight_decay",
            "network": network,
            "rows": [
                {
                    "control": "smoothness, times h",
                    "strength": strength,
                    **{key: value * 0.7**place for key, value in figures.items()},
                    "test_accuracy": 0.9 - 0.01 * place if network == "H2, 16 layers, trained" else None,
                }
                for place, strength in enumerate((None, 0.001, 0.01, 0.1))
            ],
        }
        for network in ["H2, 16 layers, trained"] * 3 + ["H1-J1, 256 layers, random"]
    ]
    return draw_controls(drawn, path)


def counterexample(path: Path) -> Path:
    t = np.linspace(0, 2000, 400)
    return draw_counterexample(t, np.sin(t)[:, None] * [1, 1], np.multiply.outer(t, np.ones((2, 2))), path, eps=0.1)


def depth(path: Path) -> Path:
    depths = [2**power for power in range(2, 13)]
    norms = {"H2": [1.001**N for N in depths], "H1-J1": [1.002**N for N in depths], "MLP": [0.5**N for N in depths]}
    return draw_depth(norms, depths, path, about="random weights of seed 0, step 0.1, ring:8")


def graph_of(spec: str) -> Callable[[Path], Path]:
    def draw(path: Path) -> Path:
        graph = CommunicationGraph.parse(spec)
        return draw_graph(
            graph, path, owner=np.arange(graph.agents) % 3, inputs=[0, graph.agents // 2], readout=[graph.agents - 1]
        )

    return draw


def named(path: Path) -> Path:
    drawn = CommunicationGraph.watts_strogatz(20, 4, 0.2)
    names = [f"{LONG * (agent % 3)}{agent}$" for agent in range(20)]
    return draw_graph(CommunicationGraph(20, drawn.edges, name=drawn.name, labels=names), path)


def named_blocks(path: Path) -> Path:
    names = [f"{LONG * (agent % 3)}{agent}$" for agent in range(20)]
    return draw_sparsity(np.eye(40), path, block_starts=range(0, 40, 2), names=names)


def experiment(name: str, seeds: int, lost: float = math.inf) -> Callable[[Path], Path]:
    """Accuracies of all heights; every ``lost``-th cell diverged."""

    def draw(path: Path) -> Path:
        cells = EXPERIMENTS[name].cells
        found = [
            Finding(cell, (Result(None if i % lost == 1 else (7 * i % 40) / 40, 1.0, 1.0, 1.0),) * seeds)
            for i, cell in enumerate(cells)
        ]
        drawing = EXPERIMENTS[name].draw
        assert drawing is not None
        return drawing(found, path)

    return draw


DRAWN = [name for name, known in EXPERIMENTS.items() if known.draw is not None]
PICTURES: dict[str, Callable[[Path], Path]] = {
    "decision": decision,
    "decision of classes": lambda path: draw_decision(
        np.arange(9), np.arange(9), np.eye(9, dtype=int), RNG.uniform(0, 8, (9, 2)), np.arange(9) % 8, path
    ),
    "curves": lambda path: draw_curves(metrics(30), path),
    "curves of one epoch": lambda path: draw_curves(metrics(1), path),
    **{f"norms, {name}": lambda path, rows=rows: draw_norms(rows, path) for name, rows in TABLES.items()},
    **{f"values, {name}": lambda path, rows=rows: draw_singular_values(rows, path) for name, rows in TABLES.items()},
    "gradient norms": lambda path: draw_gradient_norms(range(1, 50), RNG.uniform(0, 1, (49, 32)), path),
    "controls": controls,
    "counterexample": counterexample,
    "depth": depth,
    "transport": transport,
    "transport of a run": lambda path: transport(path, 2, 1, 1, LONG * 9),
    "transport through one agent": lambda path: transport(path, 1, 4096, 0),
    "matrix": lambda path: draw_sparsity(np.eye(30, 20), path),
    "blocks": lambda path: draw_sparsity(np.eye(200), path, block_starts=range(0, 200, 2)),
    **{f"graph {Path(spec).name}": graph_of(spec) for spec in SPECS},
    "graph with names": named,
    "pattern with names": named_blocks,
    "graph of a long name": lambda path: draw_graph(
        CommunicationGraph(2, [(0, 1)], name="a$name" * 70), path, owner=range(2)
    ),
    "one layer": lambda path: draw_norms(TABLES["far"][:1], path, about="a$name" * 70),
    "norms beyond numbers": lambda path: draw_norms([{**row, "norm": 1e307} for row in TABLES["far"]], path),
    **{name: experiment(name, 3) for name in DRAWN},
    **{f"{name} of a single seed": experiment(name, 1) for name in DRAWN},
    **{f"{name}, some diverged": experiment(name, 3, lost=5) for name in DRAWN},
}


@contextmanager
def noted() -> Iterator[list[Figure]]:
    """The figures that are saved meanwhile, drawn; their files stay empty."""
    saved: list[Figure] = []

    def draw(figure: Figure, path: Path, **_: Any) -> None:
        FigureCanvasAgg(figure).draw()
        saved.append(figure)
        Path(path).touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", draw)
        yield saved


@pytest.fixture
def figures() -> Iterator[list[Figure]]:
    with noted() as saved:
        yield saved


@pytest.fixture(scope="module", params=PICTURES)
def figure(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Figure:
    with noted() as saved:
        PICTURES[request.param](tmp_path_factory.mktemp("picture") / "picture.png")
    return saved[0]


def texts(figure: Figure) -> Iterator[Text]:
    """All that can be read; ticks beyond the ends of their axis are not drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)  # axes that share have none
            yield from (label for place, label in ticks if low <= place <= high)
            yield axis.label
        yield from (axes.title, *axes.texts)
    yield from figure.texts
    for legend in figure.findobj(Legend):
        yield from legend.get_texts()


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    return [
        (text.get_text(), text.get_window_extent()) for text in texts(figure) if text.get_text() and text.get_visible()
    ]


def lines(axes: Axes) -> Iterator[tuple[str, np.ndarray]]:
    """Name and (points, 2) on the screen of every line with points."""
    for line in axes.lines:
        points = line.get_transform().transform(np.column_stack(line.get_data(orig=False)))
        yield str(line.get_label()), points[np.isfinite(points).all(axis=1)]


class TestPictures:
    def test_all_text_is_inside_and_none_on_another(self, figure: Figure) -> None:
        found = boxes(figure)
        width, height = figure.bbox.size
        for text, box in found:
            assert box.x0 >= -1, text
            assert box.y0 >= -1, text
            assert box.x1 <= width + 1, text
            assert box.y1 <= height + 1, text
        for (one, first), (other, second) in combinations(found, 2):
            assert not first.padded(-2).overlaps(second.padded(-2)), (one, other)

    def test_no_legend_hides_a_line(self, figure: Figure) -> None:
        for legend in figure.findobj(Legend):
            box = legend.get_window_extent()
            for axes in figure.axes:
                for line in axes.lines:
                    path = line.get_path().cleaned(line.get_transform(), remove_nans=True)
                    assert not len(line.get_xdata()) or not path.intersects_bbox(box, filled=False), line.get_label()

    def test_axes_say_what_they_show(self, figure: Figure) -> None:
        for axes in (axes for axes in figure.axes if axes.axison):
            place = axes.get_subplotspec()
            assert axes.get_ylabel() or not (place is None or place.is_first_col())
            assert axes.get_xlabel() or axes.get_label() == "<colorbar>" or not (place is None or place.is_last_row())

    def test_lines_stay_in_the_picture(self, figure: Figure) -> None:
        for axes in figure.axes:
            frame = axes.get_window_extent().padded(1)
            assert all(frame.contains(*point) for _, points in lines(axes) for point in points)


@pytest.mark.parametrize("spec", APART)
def test_agents_do_not_touch(spec: str) -> None:
    where = place_agents(CommunicationGraph.parse(spec))
    diameter = agent_diameter(where)
    assert diameter >= 7
    for one, other in combinations(where, 2):
        assert WIDTH * np.linalg.norm(one - other) > 1.2 * diameter


@pytest.mark.parametrize("spec", [*APART, "hypercube:5", "torus:3x9", "ring:3"])
def test_edges_do_not_run_under_agents_that_are_not_their_ends(spec: str) -> None:
    """Such an edge reads as two edges of the agent above it."""
    graph = CommunicationGraph.parse(spec)
    where = place_agents(graph)
    diameter = agent_diameter(where)
    paths = edge_paths(where, graph.edges, diameter)
    assert len(paths) == len(graph.edges)
    for ends, path in zip(graph.edges, paths, strict=True):
        assert path[[0, -1]] == pytest.approx(where[ends])
        others = np.delete(where, ends, axis=0)
        away = np.linalg.norm(points_along(path)[:, None] - others, axis=-1)
        assert (WIDTH * away > 0.55 * diameter).all(), ends


def points_along(path: np.ndarray) -> np.ndarray:
    """(points, 2) on ``path`` (corners, 2), an agent's radius or less apart."""
    corners = np.arange(len(path))
    places = np.linspace(0, len(path) - 1, 200)
    return np.column_stack([np.interp(places, corners, side) for side in path.T])


class TestArrangement:
    def test_neighbours_on_a_long_path_are_side_by_side(self) -> None:
        where = place_agents(CommunicationGraph.path(60))
        steps = np.linalg.norm(np.diff(where, axis=0), axis=1)
        assert steps == pytest.approx(np.full(59, 1 / 7))

    def test_a_tree_has_no_crossings_and_a_ring_for_each_level(self) -> None:
        graph = CommunicationGraph.tree(3, 3)
        where = place_agents(graph)
        radius = np.linalg.norm(where - where[0], axis=1)
        level = np.array([nx.shortest_path_length(graph.networkx, 0, agent) for agent in range(graph.agents)])
        assert [np.ptp(radius[level == k]) < 1e-9 for k in range(4)] == [True] * 4
        assert not any(
            cross(where[list(a)], where[list(b)]) for a, b in combinations(graph.edges, 2) if not {*a} & {*b}
        )

    def test_a_tree_of_many_shapes_keeps_its_agents_apart(self) -> None:
        """A hub of 50 with a tail of 10."""
        edges = [(0, leaf) for leaf in range(1, 51)] + [(agent, agent + 1) for agent in range(50, 60)]
        where = place_agents(CommunicationGraph(61, edges))
        assert min(np.linalg.norm(a - b) for a, b in combinations(where, 2)) * WIDTH > 1.2 * agent_diameter(where)

    def test_a_grid_without_positions_is_laid_out_like_one(self) -> None:
        """Edges are about equally long: nothing is folded over."""
        graph = CommunicationGraph(36, CommunicationGraph.grid(6, 6).edges)
        where = place_agents(graph)
        length = np.linalg.norm(where[graph.edges[:, 0]] - where[graph.edges[:, 1]], axis=1)
        assert length.max() < 1.6 * length.min()


def cross(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two segments (2, 2) cross."""

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> bool:
        return bool((b[0] - a[0]) * (c[1] - a[1]) > (b[1] - a[1]) * (c[0] - a[0]))

    apart = side(*one, other[0]) != side(*one, other[1])
    return apart and side(*other, one[0]) != side(*other, one[1])


class TestWords:
    """What was asked of a picture and had no answer in it."""

    def words(self, figures: list[Figure]) -> str:
        return "\n".join(text for text, _ in boxes(figures[-1]))

    @pytest.mark.parametrize(("seeds", "said"), [(1, "test accuracy, a single seed"), (3, "median of 3 seeds")])
    @pytest.mark.parametrize("name", DRAWN)
    def test_a_median_is_one(self, name: str, seeds: int, said: str, tmp_path: Path, figures: list[Figure]) -> None:
        experiment(name, seeds)(tmp_path / "p.png")
        assert said in self.words(figures)
        assert ("median" in self.words(figures)) == (seeds > 1)

    def test_curves_are_those_of_training_and_test(self, tmp_path: Path, figures: list[Figure]) -> None:
        draw_curves(metrics(5), tmp_path / "p.png")
        loss, accuracy = ([line.get_ydata()[-1] for line in axes.lines] for axes in figures[0].axes)
        assert loss == pytest.approx([0.7**4, 0.8**4])
        assert accuracy == pytest.approx([1 - 0.7**4, 1 - 0.8**4])
        assert self.words(figures).count("training") == self.words(figures).count("test") == 2

    @pytest.mark.parametrize("draw", [draw_norms, draw_singular_values])
    def test_bsm_is_spelled_out(self, draw: Callable[..., Path], tmp_path: Path, figures: list[Figure]) -> None:
        draw(TABLES["far"], tmp_path / "p.png", about="H2")
        assert "backward sensitivity matrix (BSM), M_j = d y_N / d y_(N-j)" in self.words(figures)

    def test_controls_show_what_they_cost(self, tmp_path: Path, figures: list[Figure]) -> None:
        controls(tmp_path / "p.png")
        assert "the cost:\ntest accuracy" in self.words(figures)
        assert "not trained" in self.words(figures)

    @pytest.mark.parametrize(("bound", "arrows"), [("near", 0), ("far", 2)])
    def test_bounds_end_in_an_arrow_where_they_leave(
        self, bound: str, arrows: int, tmp_path: Path, figures: list[Figure]
    ) -> None:
        draw_norms(TABLES[bound], tmp_path / "p.png")
        assert self.words(figures).count("\u25b2 beyond the picture") == arrows
        assert sum(line.get_marker() == CARETUP for line in figures[0].axes[0].lines) == arrows
        assert "lower bound, 1" in self.words(figures)

    def test_singular_values_say_what_their_extremes_are(self, tmp_path: Path, figures: list[Figure]) -> None:
        draw_singular_values(TABLES["far"], tmp_path / "p.png")
        assert "largest (the 2-norm): gradients grow at most so much" in self.words(figures)
        assert "smallest above rounding: they shrink at most so much" in self.words(figures)

    @pytest.mark.parametrize(("spec", "numbers"), [("path:8", 8), ("tree:2x5", 63), ("ring:100", 0)])
    def test_agents_are_numbered_where_they_are_few(
        self, spec: str, numbers: int, tmp_path: Path, figures: list[Figure]
    ) -> None:
        draw_graph(CommunicationGraph.parse(spec), tmp_path / "p.png")
        assert [text.get_text() for text in figures[0].axes[0].texts] == list(map(str, range(numbers)))

    def test_names_are_plain_text_and_short(self, tmp_path: Path, figures: list[Figure]) -> None:
        named(tmp_path / "p.png")
        shown = [text.get_text() for text in figures[0].axes[0].texts]
        assert shown[0] == "0$"
        assert shown[1].startswith("A very")
        assert len(set(shown)) == 20
        assert max(map(len, shown)) <= 14
        assert not any(text.get_parse_math() for text in figures[0].axes[0].texts)

    @pytest.mark.parametrize(("architecture", "operators"), [("H2", "Kp and Kq"), ("MS1", "K0"), ("MS3", "K1 and K2")])
    def test_a_run_says_which_agents_operators_and_points(
        self, architecture: str, operators: str, tmp_path: Path, figures: list[Figure]
    ) -> None:
        config = load_config(
            None, ["epochs=1", "data.samples=3000", "network.layers=2", f"network.architecture={architecture}"]
        )
        job = build(config, CommunicationGraph.ring(8), ALONE)
        rows = Trainer(job).run(lambda epoch, step: None, lambda row: None).epochs
        draw_run(job, rows, tmp_path, decision_plane(job))
        _, sparsity, _, decided = ("\n".join(text for text, _ in boxes(figure)) for figure in figures)
        assert f"Pattern of {operators}, the same in" in sparsity
        assert "agent that owns the rows" in sparsity
        assert "Points: the first 1000 of 1500 test samples" in decided
        assert "column 0, seen by agent 0" in decided
        assert "column 1, seen by agent 4" in decided
