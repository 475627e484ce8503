"""How far a change gets: against dense Jacobians, inside the light cone, on any ranks, in a file and a picture."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from battery import ALONE
from jobs import LAUNCHERS
from jobs import run as run_ranks
from matplotlib.figure import Figure
from problems import TOLERANCE, Problem, dense_answer, relative_error
from test_careless import held
from test_careless import run as command
from typer.testing import CliRunner

from hdnn_dist import HDNN, CommunicationGraph, cli, place
from hdnn_dist.analysis import analyze_transport as analysing
from hdnn_dist.analysis.transport import transport
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.plots.transport import Panel, draw_transport
from hdnn_dist.weights import wave as wave_weights

STAR = CommunicationGraph(5, [(0, 1), (0, 2), (0, 3), (3, 4)])
FAMILY = ("H2", "H1-J1", "H1-J2", "MS1", "MS2", "MS3", "MLP")
REACH = {"H2": 4, "H1-J1": 2, "H1-J2": 3, "MS1": 2, "MS2": 1, "MS3": 4, "MLP": 1}  # hops a layer


def network(graph: CommunicationGraph, architecture: str, layers: int, **options: Any) -> HDNN:
    options = {"features": 2, "kernel": "torch", "dtype": torch.float64, **options}
    return HDNN(place(graph, ALONE), layers=layers, step=0.3, architecture=architecture, **options)


def states(net: HDNN, samples: int = 2) -> torch.Tensor:
    return torch.randn(samples, net.local_features, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class TestMeasured:
    @pytest.mark.parametrize("architecture", FAMILY)
    @pytest.mark.parametrize("source", [0, 4])
    def test_it_is_the_dense_jacobian(self, architecture: str, source: int) -> None:
        """Of the oracle, by torch: rms over the source's features and the samples, root of the sum over agents."""
        problem = Problem(STAR, (4, 2, 4, 6, 2), architecture, layers=3)
        net = problem.network(problem.agents(ALONE))
        net.kernel = "torch"
        dense, x = net.dense(), problem.inputs()[:2]
        found = transport(net, x, source)
        ends = np.cumsum((0, *problem.features))
        own, hops = slice(ends[source], ends[source + 1]), np.repeat(STAR.hops([source]), problem.features)
        for layers in range(4):

            def after(
                sample: torch.Tensor, K: torch.Tensor = dense.K[:layers], b: torch.Tensor = dense.b[:layers]
            ) -> Any:
                return dense_answer(problem, K, b, dense.J, sample.unsqueeze(0))[0]

            each = torch.stack([torch.autograd.functional.jacobian(after, sample)[:, own] for sample in x])
            squares = each.square().sum(dim=2).mean(dim=0) / problem.features[source]
            expected = torch.stack(
                [squares[torch.as_tensor(hops == far)].sum() for far in range(hops.max() + 1)]
            ).sqrt()
            assert relative_error(torch.as_tensor(found.norms[layers]), expected) < TOLERANCE

    def test_of_many_features_a_few_directions_are_followed(self) -> None:
        """Of unit length, and as many samples as are given."""
        net = network(STAR, "H2", 2, features=[40, 2, 2, 2, 2])
        found = transport(net, states(net), 0)
        assert found.norms[0] == pytest.approx([1, 0, 0])

    @pytest.mark.parametrize("architecture", FAMILY)
    def test_outside_the_light_cone_it_is_exactly_nothing(self, architecture: str) -> None:
        """And inside it is not."""
        net = network(CommunicationGraph.path(12), architecture, 4)
        found = transport(net, states(net), 0)
        assert found.cone.tolist() == [min(REACH[architecture] * layer, 11) for layer in range(5)]
        inside = np.arange(12) <= found.cone[:, None]
        assert (found.norms[~inside] == 0).all()
        assert (found.norms[inside][1:] > 0).all() or architecture in ("MLP", "MS1", "MS2")
        assert (found.norms[np.arange(5), found.cone] > 0).all()

    def test_the_cone_is_that_of_the_pattern_and_the_coupling(self) -> None:
        """A pattern that lets nobody read agent 6; an X with blocks off its diagonal, a round more."""
        path = CommunicationGraph.path(12)
        whole = path.pattern()
        cut = (whole.rows <= 5) == (whole.columns <= 5)
        halves = network(path, "H2", 4, pattern=Pattern(12, whole.rows[cut], whole.columns[cut]))
        found = transport(halves, states(halves), 0)
        assert found.cone.tolist() == [0, 4, 5, 5, 5]
        assert (found.norms[:, 6:] == 0).all()
        coupled = network(path, "H2", 1, coupling="trained")
        assert transport(coupled, states(coupled), 0).cone.tolist() == [0, 6]

    def test_front_and_speed(self) -> None:
        """As the figures say: of norms 0.009 nothing has arrived."""
        found = transport(network(STAR, "MLP", 1), torch.zeros(1, 10, dtype=torch.float64), 1)
        norms = np.array([[1, 0, 0, 0], [0.5, 0.1, 0.009, 0], [0, 0.01, 0.02, 0], [0, 0, 0, 0]])
        given = type(found)(1, norms, np.arange(4))
        assert given.front.tolist() == [0, 1, 2, -1]
        assert given.speed == 1.0
        assert given.total[1] == pytest.approx(np.hypot(np.hypot(0.5, 0.1), 0.009))

    def test_hops_are_those_from_the_nearest(self) -> None:
        assert STAR.hops([4, 1]).tolist() == [1, 0, 2, 1, 0]


TINY = ("graph=path:9", "network.layers=4", "network.step=0.5", "data.samples=80")
FAR = ("readout.at=[0]", *TINY)


def settings(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def said(*arguments: object) -> list[str]:
    """The lines that an analysis of transport prints."""
    done = CliRunner().invoke(cli.app, ["analyze", "transport", *map(str, arguments)], catch_exceptions=False)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout.splitlines()


def analysis(folder: Path) -> Any:
    return json.loads((folder / "transport.json").read_text())


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of the pictures that are saved."""
    seen: list[str] = []
    save = Figure.savefig

    def noted(figure: Figure, *arguments: Any, **options: Any) -> None:
        seen.extend([figure.get_suptitle(), *(axes.get_title() for axes in figure.axes if axes.get_title())])
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", noted)
    return seen


class TestCommand:
    def test_a_config_has_every_initialisation_side_by_side(self, tmp_path: Path, titles: list[str]) -> None:
        lines = said(*settings(*FAR), "--run-dir", tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"transport.json", "transport.png"}
        title = "How far a small change at agent 8 gets, layer by layer\nH2, 4 layers, step 0.5, path:9"
        assert titles == [title, "scaled", "normal", "wave"]
        head, _, *body = [line.strip("|").split("|") for line in lines if line.startswith("|")]
        assert [cell.strip() for cell in head][1:4] == ["hops at layer 1", "hops at layer 2", "hops at layer 4"]
        for cells, row in zip(body, analysis(tmp_path)["weights"], strict=True):
            assert cells[0].strip() == row["weights"]
            assert int(cells[3]) == row["hops_at_layer_4"]
            assert np.shape(row["norms"]) == (5, 9)

    def test_what_an_architecture_refuses_is_left_out_with_its_reason(self, tmp_path: Path, titles: list[str]) -> None:
        lines = said(*settings(*FAR, "network.architecture=MLP"), "--run-dir", tmp_path)
        assert titles[1:] == ["scaled", "normal"]
        assert len([line for line in lines if line.startswith("wave is left out: initial='wave' is not known")]) == 1

    def test_what_a_config_says_of_its_wave_is_no_matter_for_the_others(
        self, tmp_path: Path, titles: list[str]
    ) -> None:
        said(*settings(*FAR, "network.initial=wave", "network.courant=0.5", "network.jitter=0"), "--run-dir", tmp_path)
        assert titles[1:] == ["scaled", "normal", "wave"]

    @pytest.mark.parametrize(("bias", "held_back"), [(0.0, 0), (wave_weights.BIAS, 1)], ids=["unbiased", "biased"])
    @pytest.mark.parametrize(("architecture", "graph"), [("H2", "ring:160"), ("MS1", "path:80"), ("MS3", "grid:32x32")])
    def test_the_front_of_a_wave_keeps_to_its_line(
        self,
        architecture: str,
        graph: str,
        bias: float,
        held_back: int,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It runs beside it, ahead by the few hops by which 1 % of a packet is: they grow at first, then hardly.
        Biases, by which tanh is not steepest, hold it back by less than a hop.
        """
        monkeypatch.setattr(wave_weights, "BIAS", bias)
        drawn: list[Panel] = []
        monkeypatch.setattr(analysing, "draw_transport", lambda panels, path, **_: drawn.extend(panels))
        network = (f"graph={graph}", "network.layers=40", "network.step=0.5", f"network.architecture={architecture}")
        said(*settings(*FAR, *network, "network.features=4"), "--run-dir", tmp_path)
        assert [panel.speed is None for panel in drawn] == [True, True, False]
        wave, layers = drawn[2], np.arange(12, 37)
        assert np.polyfit(layers, wave.front[layers], 1)[0] == pytest.approx(wave.speed, rel=0.15)
        assert (wave.front[layers] > wave.speed * layers - held_back).all()

    def test_a_run_is_seen_before_and_after_training(self, trained: Path, tmp_path: Path, titles: list[str]) -> None:
        """Before it is what its config says, in its own folder; from agent 0, for all are read, or from another."""
        shutil.copytree(trained, tmp_path / "run")
        said(tmp_path / "run", "--from", 3)
        assert titles[1:] == ["before training: normal", "after training"]
        assert titles[0].startswith("How far a small change at agent 3 gets")
        said(tmp_path / "run")
        before, after = analysis(tmp_path / "run")["weights"]
        assert analysis(tmp_path / "run")["from"] == 0
        assert before["norms"] != after["norms"]
        said(trained / "config.toml", "--run-dir", tmp_path / "again")
        assert analysis(tmp_path / "again")["weights"][1]["norms"] == before["norms"]

    @pytest.mark.slow  # the battery has what is computed, on ranks that are there anyway
    @pytest.mark.parametrize("launcher", LAUNCHERS)
    def test_two_ranks_say_the_same(self, launcher: str, trained: Path, tmp_path: Path) -> None:
        """Of a run, which one of them writes about."""
        for ranks in "12":
            shutil.copytree(trained, tmp_path / ranks)
        said(tmp_path / "1")
        done = run_ranks(launcher, 2, "-m", "hdnn_dist", "analyze", "transport", str(tmp_path / "2"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("transport.png") == 1
        for one, two in zip(*(analysis(tmp_path / ranks)["weights"] for ranks in "12"), strict=True):
            np.testing.assert_allclose(two["norms"], one["norms"], rtol=1e-9, atol=0)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (
                ("transport", "--from", "9", *settings(*TINY)),
                "--from: agent 9 does not exist: there are 9 agents, 0 to 8",
            ),
            (("transport", "none"), "config file none does not exist"),
            (
                ("transport", "empty"),
                "empty is no run folder, it has no config.toml: give the folder of a run, or a config",
            ),
            (("transport", "RUN", "--run-dir", "x"), "the analysis of a run is written into its own folder"),
            (("transport", "--run-dir", "full", *settings(*TINY)), "--run-dir full holds files, which could be lost"),
            (("transport", *settings("network.initial=foo", *TINY)), "unknown initial 'foo'"),
            (("depth", "RUN"), "RUN or CONFIG is given, but only 'analyze transport' takes it, not 'analyze depth'"),
            (("RUN", "--from", "3"), "--from is given, but only 'analyze transport' takes it"),
            (("counterexample", "--set", "seed=3"), "--set is given, but only 'analyze transport' takes it"),
        ],
    )
    def test_wrong_input_is_one_line(
        self, arguments: tuple[str, ...], words: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty").mkdir()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine.png").touch()
        before = held(tmp_path)
        status, errors = command(["analyze", *(str(trained) if word == "RUN" else word for word in arguments)])
        assert (status, errors.count("\n")) == (2, 1)
        assert words in errors
        assert held(tmp_path) == before


def test_norms_of_different_shapes_are_refused(tmp_path: Path) -> None:
    panels = [Panel(str(size), np.ones((3, size)), np.zeros(3), np.zeros(3)) for size in (2, 4)]
    with pytest.raises(ValueError, match=re.escape("norms have the shapes [(3, 2), (3, 4)]: expected")):
        draw_transport(panels, tmp_path / "t.png", title="", arrived=0.01)
