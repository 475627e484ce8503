"""Pages about runs: whole, self-contained, and good to look at, as a browser sees them."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import pytest
from browser import browser
from matplotlib.image import imread
from typer.testing import CliRunner, Result

from hdnn_dist import cli
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.plots.pages import page_picture
from hdnn_dist.plots.scatter import draw_predictions
from hdnn_dist.runs.record import Record, read_run
from hdnn_dist.runs.report.charts import results
from hdnn_dist.runs.report.graph import graph_card
from hdnn_dist.runs.report.run import changed_keys
from hdnn_dist.runs.report.run import report as report_page
from hdnn_dist.training.config import Config

PHONE, DESK = 380, 1280
SMALL = ("epochs=3", "network.layers=4", "data.samples=400", "network.kernel=torch", "record_gradients=true")
SECTIONS = ("Training", "What it learned", "Graph", "Gradients", "Ranks and links", "Config and versions")
CUT_OFF = """() => [...document.querySelectorAll('svg text')].filter(text => {
    const inner = text.getBoundingClientRect(), outer = text.closest('svg').getBoundingClientRect();
    return inner.left < outer.left - 3 || inner.right > outer.right + 3;
}).map(text => text.textContent)"""


def hdnn_dist(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments, catch_exceptions=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole small run, analysed, with its report."""
    folder = tmp_path_factory.mktemp("runs") / "<b>run & co"  # which HTML would take for markup
    words = [word for key in SMALL for word in ("--set", key)]
    for arguments in (
        ("train", *words, "--run-dir", str(folder)),
        ("analyze", str(folder)),
        ("report", str(folder)),
    ):
        result = hdnn_dist(*arguments)
        assert (result.exit_code, result.stderr) == (0, ""), arguments
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


class TestFindings:
    """What train leaves for its report."""

    def test_bytes_of_all_edges_are_those_of_the_summary(self, run: Path) -> None:
        found, summary = (json.loads((run / name).read_text()) for name in ("edges.json", "summary.json"))
        sizes = [size for *_, size in found["edges"]]
        assert [ends for *ends, _ in found["edges"]] == CommunicationGraph.ring(8).edges.tolist()
        assert sum(sizes) == pytest.approx(summary["bytes_per_step"])
        assert max(sizes) == pytest.approx(summary["bytes_per_edge"])
        assert (found["owner"], found["inputs"], found["readout"]) == ([0] * 8, [0, 4], list(range(8)))

    def test_the_counts_give_the_accuracy(self, run: Path) -> None:
        counts = np.array(json.loads((run / "judged.json").read_text())["counts"])
        summary = json.loads((run / "summary.json").read_text())
        assert counts.sum() == 200
        assert np.trace(counts) / counts.sum() == pytest.approx(summary["test_accuracy"])

    def test_the_plane_is_that_of_the_picture(self, run: Path) -> None:
        found = read_run(run).decided
        assert found["decided"].shape == (200, 200)
        assert found["points"].shape == (200, 2)
        assert list(found["axes"]) == ["column 0, seen by agent 0", "column 1, seen by agent 4"]

    def test_what_agents_predict_is_collected_from_all_ranks(self, tmp_path: Path) -> None:
        """Eight agents on two ranks, of which the first six are told: the same as in one process."""
        keys = ["data.name=diffusing_field", "readout.at=each", "readout.loss=mean_squared_error", "epochs=1"]
        some = ["data.samples=100", "network.layers=2", "network.kernel=torch", "dtype=float64"]
        words = [word for key in (*keys, *some) for word in ("--set", key)]
        assert hdnn_dist("train", *words, "--run-dir", str(tmp_path / "1")).exit_code == 0
        process = jobs.run("torchrun", 2, "-m", "hdnn_dist", "train", *words, "--run-dir", str(tmp_path / "2"))
        assert process.returncode == 0, process.stderr
        alone, two = (json.loads((tmp_path / ranks / "judged.json").read_text()) for ranks in "12")
        assert two["outputs"] == alone["outputs"] == [f"agent {agent}, output 0" for agent in range(6)]
        for key in ("true", "predicted"):
            np.testing.assert_allclose(two[key], alone[key], rtol=1e-9, atol=1e-12)
        assert np.std(two["predicted"], axis=0).min() > 0
        page = report_page(read_run(tmp_path / "2"))
        assert "<dt>test rmse</dt>" in page
        assert "<h3>Error</h3>" in page
        assert "<h3>Predicted against true, agent 5, output 0</h3>" in page


class TestPage:
    def test_it_has_all_that_the_folder_holds(self, run: Path) -> None:
        text = (run / "report.html").read_text()
        assert tuple(re.findall("<h2>(.*?)</h2>", text)) == SECTIONS
        for title in (
            *("Loss", "Accuracy", "Scores", "Learning rate", "Pace", "Decision regions", "Classes of the test samples"),
            *("ring:8: 8 agents, 8 edges", "Pattern of Kp and Kq, in every layer", "Time by rank", "Links"),
            *("Gradient of the loss by the weights of a layer", "Keys that are not the default", "config.toml"),
        ):
            assert f"<h3>{title}</h3>" in text
        assert "Norm of the backward sensitivity matrix" in text
        assert "&lt;b&gt;run &amp; co" in text
        assert "agent 0 and agent 1: " in text

    def test_it_needs_nothing_from_elsewhere(self, run: Path) -> None:
        text = (run / "report.html").read_text()
        assert not re.findall(r'(?:src|href)="(?!data:|#)|url\((?!#)|@import|<script', text)

    def test_colours_are_those_of_the_page(self) -> None:
        """No ink is black in the dark, and names in one page are of one picture."""
        one, two = (page_picture(lambda path: draw_predictions([1, 2], [2, 1], path, title="a\nb")) for _ in range(2))
        assert one.title == "a\nb"
        assert not re.search("#(?:000000|222222|ffffff)", one.svg)
        assert "var(--ink)" in one.svg
        assert not set(re.findall(r'id="([^"]*)"', one.svg)) & set(re.findall(r'id="([^"]*)"', two.svg))

    def test_a_run_that_is_not_finished_has_a_page_too(self, run: Path, tmp_path: Path) -> None:
        for name in ("config.toml", "metrics.jsonl"):
            shutil.copy(run / name, tmp_path)
        text = report_page(read_run(tmp_path))
        assert ", not finished" in text
        assert "<h3>Loss</h3>" in text
        assert "<h2>Ranks and links</h2>" not in text

    def test_numbers_are_drawn_against_those_that_are_true(self) -> None:
        judged = {"task": "regression", "true": [[0.0, 1.0], [1.0, 2.0]], "predicted": [[0.1, 1.0], [0.9, 2.2]]}
        cards = list(results(Record(Path(), Config(), judged={**judged, "outputs": ["heat", "agent 3"]})))
        assert [card.title for card in cards] == ["Predicted against true, heat", "Predicted against true, agent 3"]

    def test_many_classes_are_told_by_their_confusions(self) -> None:
        counts = np.diag(np.full(40, 9))
        counts[3, 7] = 5
        (card,) = results(Record(Path(), Config(), judged={"task": "classification", "counts": counts.tolist()}))
        assert re.search(r"3</th><td>7</td><td>5</td>", card.body)

    @pytest.mark.parametrize("spec", ["path:1", "star:20", "grid:8x8", "complete:8", "ring:100"])
    def test_graphs_of_all_sizes(self, spec: str) -> None:
        graph = CommunicationGraph.parse(spec)
        edges = [[int(a), int(b), 10.0 * at] for at, (a, b) in enumerate(graph.edges)]
        owner = [agent % 3 for agent in range(graph.agents)]
        found = {"owner": owner, "inputs": [0], "readout": [0], "edges": edges}
        card = graph_card(Record(Path(), Config(graph=spec), edges=found))
        assert card is not None
        assert card.body.count("<polyline") == len(graph.edges)
        assert card.body.count("<circle") == graph.agents + (graph.agents > 1)
        assert len(re.findall(r">\d+</text>", card.body)) == (graph.agents if graph.agents <= 64 else 0)

    def test_keys_that_are_not_the_default(self) -> None:
        assert changed_keys(Config()) == {}
        assert changed_keys(Config(epochs=3)) == {"epochs": "3"}


class TestInABrowser:
    def seen(self, chromium: Any, page: Path, width: int, scheme: str) -> tuple[Any, list[str], np.ndarray]:
        """The page, what went wrong in it, and its picture (height, width, 3)."""
        shown = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        wrong: list[str] = []
        shown.on("console", lambda message: wrong.append(message.text))
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("requestfailed", lambda request: wrong.append(request.url))
        shown.on("request", lambda request: wrong.extend([request.url] * request.url.startswith("http")))
        shown.goto(page.as_uri())
        return shown, wrong, imread(io.BytesIO(shown.screenshot(full_page=True)))[..., :3]

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [PHONE, DESK])
    def test_a_report(self, chromium: Any, run: Path, width: int, scheme: str) -> None:
        page, wrong, image = self.seen(chromium, run / "report.html", width, scheme)
        assert wrong == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(CUT_OFF) == []
        assert page.locator("svg").count() >= 9
        assert (image.mean() > 0.8) if scheme == "light" else (image.mean() < 0.35)
        assert image.std() > 0.05  # there is something on it

    @pytest.mark.parametrize("width", [PHONE, DESK])
    def test_a_comparison(self, chromium: Any, run: Path, tmp_path: Path, width: int) -> None:
        others = [tmp_path / f"run-{number}" for number in range(6)]
        for other in others:
            shutil.copytree(run, other)
        page = tmp_path / "compare.html"
        where = ["-o", str(page), "--picture", str(tmp_path / "compare.png")]
        assert hdnn_dist("compare", *map(str, others), *where).exit_code == 0
        shown, wrong, _ = self.seen(chromium, page, width, "light")
        assert wrong == []
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.evaluate(CUT_OFF) == []


class TestCompare:
    @pytest.fixture
    def other(self, run: Path, tmp_path: Path) -> Path:
        """The same run with another rate, which was not finished."""
        folder = tmp_path / "other"
        shutil.copytree(run, folder)
        config = folder / "config.toml"
        config.write_text(config.read_text().replace("learning_rate = 0.05", "learning_rate = 0.01"))
        (folder / "summary.json").unlink()
        return folder

    def test_only_keys_that_differ_are_told(self, run: Path, other: Path, tmp_path: Path) -> None:
        picture = tmp_path / "compare.png"
        result = hdnn_dist("compare", str(run), str(other), "--picture", str(picture))
        assert (result.exit_code, result.stderr) == (0, "")
        head, _, key, *rest = result.stdout.splitlines()
        assert re.fullmatch(r"\| +\| <b>run & co \| other \|", head)
        assert re.fullmatch(r"\| optimizer.learning_rate \| 0.05 +\| 0.01 +\|", key)
        assert any(re.fullmatch(r"\| finished +\| yes +\| no +\|", line) for line in rest)
        assert any(re.fullmatch(r"\| test accuracy +\| 0\.\d{4} +\| - +\|", line) for line in rest)
        assert rest[-1] == f"picture: {picture}"
        assert imread(picture).std() > 0.05

    def test_markdown_is_markdown_alone(self, run: Path, other: Path, tmp_path: Path) -> None:
        result = hdnn_dist("compare", str(run), str(other), "--markdown", "--picture", str(tmp_path / "c.png"))
        assert result.stdout.startswith("## Keys that differ\n\n|  | <b>run & co | other |\n| --- | --- | --- |\n")
        assert "picture" not in result.stdout


def damaged(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


WRONG = {
    "no run": (removed("config.toml"), ("report", "run"), r"run is no run folder, it has no config\.toml: give the"),
    "no metrics": (removed("metrics.jsonl"), ("report", "run"), r"run is no run folder, it has no metrics\.jsonl"),
    "a line of something else": (
        damaged("metrics.jsonl", '{"epoch": 1}\n[3]\n'),
        ("report", "run"),
        r"metrics\.jsonl, line 2: '\[3\]' is not what an epoch writes; remove it",
    ),
    "half a summary": (damaged("summary.json", '{"loss": '), ("report", "run"), r"summary\.json is damaged: remove it"),
    "no arrays": (damaged("decision.npz", "PK"), ("report", "run"), r"decision\.npz is damaged: remove it"),
    "one run": (lambda folder: None, ("compare", "run"), r"run is alone: give two runs or more"),
    "a folder for a page": (lambda folder: None, ("report", "run", "-o", "run"), r"run is a folder: name a file"),
    "nowhere": (lambda folder: None, ("report", "run", "-o", "no/x.html"), r"no/x\.html cannot be written: no is no"),
    "a file of somebody else": (
        lambda folder: None,
        ("report", "run", "-o", "mine.html"),
        r"mine\.html is not a file of ours: choose another name, or pass --overwrite",
    ),
    "a picture of somebody else": (
        lambda folder: None,
        ("compare", "run", "run", "--picture", "mine.html"),
        r"mine\.html is not a picture of ours: choose another --picture",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(case: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrange, arguments, words = WRONG[case]
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "run" / "report.html").unlink()
    arrange(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    result = hdnn_dist(*arguments)
    assert result.exit_code == 2
    assert re.search(words, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert not (tmp_path / "run" / "report.html").exists()
