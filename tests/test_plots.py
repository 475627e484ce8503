"""The pictures of a run: whole PNG files of the promised size, whatever the graph, or no file at all."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hdnn_dist import plots
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.plots import style
from hdnn_dist.plots.arrangement import MOST_BY_DISTANCE
from hdnn_dist.plots.edges import edge_paths
from hdnn_dist.plots.layout import agent_diameter, place_agents
from hdnn_dist.plots.style import DPI, INK, PALETTE, PAPER

SQUARE, FULL_SQUARE = (480, 480), (960, 960)
LARGE = 2000


@pytest.fixture(autouse=True)
def half_the_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing pixels is what takes the time here."""
    monkeypatch.setattr(style, "DPI", DPI // 2)


def pixels(path: Path, size: tuple[int, int] = SQUARE) -> np.ndarray:
    """(height, width, 3) of a PNG of this size."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == size
        return np.asarray(image.convert("RGB")).astype(int)


def share_of(path: Path, colour: str, size: tuple[int, int] = SQUARE) -> float:
    """The share of pixels within a few levels of a colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((np.abs(pixels(path, size) - wanted).max(axis=2) <= 6).mean())


def draw_plane(path: Path, probability: Any, points: int = 50) -> Path:
    grid = np.linspace(-1, 1, 20)
    inputs = np.random.default_rng(0).uniform(-1, 1, (points, 2))
    return plots.draw_decision(grid, grid, probability, inputs, (inputs[:, 0] > 0).astype(int), path)


GRAPHS = {
    "one agent": CommunicationGraph(1, []),
    "two agents": CommunicationGraph(2, [(0, 1)]),
    "ring": CommunicationGraph.ring(8),
    "path": CommunicationGraph.path(70),
    "star": CommunicationGraph.star(64),
    "torus": CommunicationGraph.torus(3, 5),
    "complete": CommunicationGraph.complete(12),
    "random": CommunicationGraph.erdos_renyi(300, 0.05, seed=1),
}


class TestGraph:
    @pytest.mark.parametrize("name", GRAPHS)
    def test_every_graph_has_a_picture(self, name: str, tmp_path: Path) -> None:
        """Degenerate shapes (a point, a line, no positions) must not stop a run that trained well."""
        graph = GRAPHS[name]
        owner = np.arange(graph.agents)
        last = [graph.agents - 1]
        path = plots.draw_graph(graph, tmp_path / "g.png", owner=owner, inputs=[0], readout=last)
        assert path == tmp_path / "g.png"
        assert share_of(path, INK) > 0
        assert share_of(path, PALETTE[5]) > 0

    def test_ranks_are_told_apart_by_colour(self, tmp_path: Path) -> None:
        owner = [0, 0, 0, 1, 1, 1, 2, 2]
        path = plots.draw_graph(CommunicationGraph.ring(8), tmp_path / "g.png", owner=owner)
        shares = [share_of(path, PALETTE[rank]) for rank in range(3)]
        assert shares[0] > shares[2] > 0
        assert share_of(path, PALETTE[3]) == 0

    def test_edges_are_drawn(self, tmp_path: Path) -> None:
        """Fails if the edges are lost between the graph and the figure."""
        ring = plots.draw_graph(CommunicationGraph.ring(12), tmp_path / "a.png")
        complete = plots.draw_graph(CommunicationGraph.complete(12), tmp_path / "b.png")
        assert (pixels(complete) < 250).mean() > 1.5 * (pixels(ring) < 250).mean()

    @pytest.mark.parametrize("columns", [5, 30])
    def test_edges_round_a_torus_do_not_hide_behind_its_agents(self, columns: int) -> None:
        graph = CommunicationGraph.torus(columns - 1, columns)
        where = place_agents(graph)
        paths = edge_paths(where, graph.edges, agent_diameter(where))
        assert sum(len(path) > 2 for path in paths) == 2 * columns - 1

    @pytest.mark.parametrize("lattice", [True, False])
    def test_a_large_graph_takes_seconds(self, lattice: bool, tmp_path: Path) -> None:
        small_world = nx.watts_strogatz_graph(LARGE, 6, 0.1, seed=0)
        graph = CommunicationGraph.torus(40, LARGE // 40) if lattice else CommunicationGraph(LARGE, small_world.edges)
        start = time.perf_counter()
        pixels(plots.draw_graph(graph, tmp_path / "g.png", owner=np.arange(LARGE) % 50))
        assert time.perf_counter() - start < 15.0

    @pytest.mark.parametrize("agents", [60, MOST_BY_DISTANCE + 1])
    def test_a_layout_does_not_need_scipy(self, agents: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """SciPy is in no list of ours; networkx imports it for some layouts only."""
        monkeypatch.setitem(sys.modules, "scipy", None)
        where = place_agents(CommunicationGraph.watts_strogatz(agents, 4, 0.2))
        assert where.shape == (agents, 2)
        assert where.max() == 1

    def test_the_same_graph_gives_the_same_picture(self, tmp_path: Path) -> None:
        first, second = (
            plots.draw_graph(CommunicationGraph.hypercube(4), tmp_path / name) for name in ("a.png", "b.png")
        )
        assert first.read_bytes() == second.read_bytes()

    @pytest.mark.parametrize(
        ("marks", "words"),
        [
            ({"owner": [0, 1]}, r"owner has shape \(2,\).* 8 agents"),
            ({"inputs": [8]}, "inputs names agent 8: the graph has agents 0 to 7"),
            ({"readout": [-1]}, "readout names agent -1"),
        ],
    )
    def test_marks_must_fit_the_graph(self, marks: dict[str, Any], words: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=words):
            plots.draw_graph(CommunicationGraph.ring(8), tmp_path / "g.png", **marks)
        assert not list(tmp_path.iterdir())


class TestSparsity:
    def test_filled_share_is_that_of_the_matrix(self, tmp_path: Path) -> None:
        """Fails if zero and nonzero are swapped, or if entries are lost."""
        K = np.kron(np.eye(4), np.ones((8, 8)))
        path = plots.draw_sparsity(K, tmp_path / "k.png")
        filled, empty = share_of(path, PALETTE[0]), share_of(path, PAPER)
        assert filled / (filled + empty) == pytest.approx(0.25, abs=0.01)

    def test_one_entry_of_a_large_matrix_is_seen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A plain resampling of the picture drops single entries."""
        monkeypatch.setattr(style, "DPI", DPI)
        K = np.zeros((3000, 2000), dtype=bool)
        K[1234, 777] = True
        assert share_of(plots.draw_sparsity(K, tmp_path / "k.png"), PALETTE[0], FULL_SQUARE) > 0

    def test_blocks_are_separated(self, tmp_path: Path) -> None:
        K = np.ones((12, 12))
        plain = plots.draw_sparsity(K, tmp_path / "a.png")
        lined = plots.draw_sparsity(K, tmp_path / "b.png", block_starts=range(0, 12, 3))
        assert share_of(lined, PALETTE[0]) < share_of(plain, PALETTE[0])

    @pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 2, 2)])
    def test_only_matrices(self, shape: tuple[int, ...], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"K has shape .*expected a matrix"):
            plots.draw_sparsity(np.ones(shape), tmp_path / "k.png")


class TestCurves:
    SIZE = (720, 330)

    @pytest.mark.parametrize(
        "metrics",
        [
            [],
            [{"epoch": 1, "loss": 0.5}],
            [{"epoch": 1, "loss": 0.5, "test_accuracy": None}, {"epoch": 2, "train_accuracy": 0.5}],
            [{"epoch": 1, "loss": float("nan"), "train_accuracy": 0.5}, {"epoch": 2, "loss": -1.0}],
        ],
    )
    def test_gaps_in_the_metrics_are_left_out(self, metrics: list[dict[str, Any]], tmp_path: Path) -> None:
        """A run of no epoch, or one that diverged, still gets its picture."""
        pixels(plots.draw_curves(metrics, tmp_path / "c.png"), self.SIZE)

    def test_train_and_test_are_both_drawn(self, tmp_path: Path) -> None:
        metrics = [
            {"epoch": e, "loss": 0.6**e, "train_accuracy": 1 - 0.5**e, "test_loss": 0.7**e, "test_accuracy": 1 - 0.6**e}
            for e in range(1, 31)
        ]
        path = plots.draw_curves(metrics, tmp_path / "c.png")
        assert share_of(path, PALETTE[0], self.SIZE) > 0
        assert share_of(path, PALETTE[1], self.SIZE) > 0

    def test_errors_stand_where_there_is_no_accuracy(self, tmp_path: Path) -> None:
        """Of the test samples, in colours of their own; without them nothing is drawn beside the loss."""
        none = {"train_accuracy": None, "test_accuracy": None}
        rows = [{"epoch": e, "loss": 0.6**e, **none} for e in range(1, 31)]
        errors = [{**row, "metrics": {"mae": 0.5 ** row["epoch"], "rmse": 0.6 ** row["epoch"]}} for row in rows]
        drawn, without = plots.draw_curves(errors, tmp_path / "c.png"), plots.draw_curves(rows, tmp_path / "d.png")
        assert share_of(drawn, PALETTE[2], self.SIZE) > 0
        assert share_of(without, PALETTE[2], self.SIZE) == 0


class TestSurface:
    def test_points_predicted_right_are_hardly_seen(self, tmp_path: Path) -> None:
        """Since they have the colours of what is behind them, on one scale."""
        grid, points = np.linspace(-1, 1, 20), np.random.default_rng(0).uniform(-1, 1, (50, 2))
        x, _ = np.meshgrid(grid, grid)
        drawn = [
            pixels(plots.draw_surface(grid, grid, x, points[: len(given)], given, tmp_path / "s.png"))
            for given in (points[:0, 0], points[:, 0], -points[:, 0])
        ]
        plain, right, wrong = (image.astype(float) for image in drawn)
        assert 0 < np.abs(right - plain).mean() < 0.5 * np.abs(wrong - plain).mean()

    @pytest.mark.parametrize(
        ("value", "points", "targets", "words"),
        [
            (np.zeros((3, 4)), np.zeros((2, 2)), np.zeros(2), r"predicted has shape \(3, 4\)"),
            (np.zeros((4, 3)), np.zeros((2, 3)), np.zeros(2), r"inputs have shape \(2, 3\)"),
            (np.zeros((4, 3)), np.zeros((2, 2)), np.zeros((2, 1)), r"targets \(2, 1\)"),
        ],
    )
    def test_shapes_that_do_not_fit(
        self, value: np.ndarray, points: np.ndarray, targets: np.ndarray, words: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match=words):
            plots.draw_surface(np.arange(3), np.arange(4), value, points, targets, tmp_path / "s.png")


class TestDecision:
    def test_regions_lie_where_the_probability_does(self, tmp_path: Path) -> None:
        """Fails if the picture is transposed or upside down."""
        y = np.linspace(-1, 1, 20)
        probability = np.repeat((y > 0).astype(float)[:, None], 20, axis=1)
        image = pixels(draw_plane(tmp_path / "d.png", probability, points=0))
        upper, lower = image[125, 200], image[350, 200]
        assert upper[0] > upper[2]
        assert lower[2] > lower[0]

    @pytest.mark.parametrize("points", [0, 1, 4000])
    def test_any_number_of_points(self, points: int, tmp_path: Path) -> None:
        pixels(draw_plane(tmp_path / "d.png", np.full((20, 20), 0.5), points))

    def test_more_than_two_classes(self, tmp_path: Path) -> None:
        classes = np.repeat(np.arange(20) // 7, 20).reshape(20, 20)
        pixels(draw_plane(tmp_path / "d.png", classes))

    def test_shapes_must_fit(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"probability has shape \(20, 19\).*expected \(ny, nx\)"):
            draw_plane(tmp_path / "d.png", np.zeros((20, 19)))
        grid = np.linspace(0, 1, 3)
        with pytest.raises(ValueError, match=r"inputs have shape \(5, 3\), labels \(5,\)"):
            plots.draw_decision(grid, grid, np.eye(3), np.ones((5, 3)), np.ones(5), tmp_path / "d.png")


def test_a_failing_draw_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract 7: no file is left half-written, and what was there stays."""
    path = tmp_path / "k.png"
    plots.draw_sparsity(np.eye(3), path)
    before = path.read_bytes()

    def half(self: Figure, target: Path, **_: Any) -> None:
        Path(target).write_bytes(before[:100])
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        plots.draw_sparsity(np.eye(4), path)
    assert [file.name for file in tmp_path.iterdir()] == ["k.png"]
    assert path.read_bytes() == before
