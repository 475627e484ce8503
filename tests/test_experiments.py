"""The experiments: their tables are those that were asked for, and what was trained is neither lost nor done twice."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from hdnn_dist import CommunicationGraph, cli
from hdnn_dist.analysis.check import Checked, check_config
from hdnn_dist.experiments import EXPERIMENTS, running, transfer
from hdnn_dist.experiments.cells import Cell, Experiment, Finding, Findings
from hdnn_dist.experiments.cells import Result as Trained
from hdnn_dist.experiments.pages import Output, write_page
from hdnn_dist.experiments.records import Records
from hdnn_dist.experiments.running import train
from hdnn_dist.experiments.table import listed, median_range
from hdnn_dist.graph.families import FAMILIES
from hdnn_dist.plots.lines import Line, draw_lines
from hdnn_dist.training.config import Config

ROOT = Path(__file__).parents[1]
MEASURED = {
    "power": [f"{method} {what}" for method in ("H2", "MLP", "DC", "mean") for what in ("V", "angle")],
    "sensors": ["H2", "MLP", "last", "mean"],
    "longrange": ["H2", "constant", *(f"H2 {family}" for family in FAMILIES)],
    "graph_transfer": ["H2", "seen"],
}  # experiments that are judged by errors, and their names
JUDGED = [name for name in EXPERIMENTS if name not in MEASURED]
TINY = ("epochs=1", "data.samples=40", "batch_size=10")
OTHERS = "# Title\r\n\nbefore\n<!-- reproduce reach -->old<!-- end reach -->\n"
MARKED = OTHERS + "| tiny | <!-- reproduce tiny -->\nold\n<!-- end tiny --> |\nafter\n"


def reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["reproduce", *arguments], catch_exceptions=False)


def tiny(*overrides: str, reads_files: bool = False) -> Experiment:
    """Two cells that train in no time."""
    cells = tuple(
        Cell({"layers": layers}, "double_circles_ring8.toml", (*TINY, f"network.layers={layers}", *overrides))
        for layers in (1, 2)
    )
    return Experiment("tiny", "Tiny", "Nothing.", cells, _table, _headline, _draw, seeds=2, reads_files=reads_files)


def _table(found: Findings) -> str:
    return listed(found, ["layers"])


def _headline(found: Findings) -> str:
    return f"medians {median_range(found)}"


def _draw(found: Findings, path: Path) -> Path:
    return draw_lines({"tiny": [Line("H2", [1, 2], [finding.median for finding in found])]}, path, x="x", y="y")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and the tiny experiment among the others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(EXPERIMENTS, "tiny", tiny())
    return tmp_path


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configs that have been trained, in order."""
    configs: list[Config] = []

    def noted(config: Config) -> Trained:
        configs.append(config)
        return train(config)

    monkeypatch.setattr(running, "train", noted)
    return configs


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "docs/results/tiny.jsonl").read_text().splitlines()]


def checked(cell: Cell) -> Checked:
    config = cell.settings(seed=0)
    return check_config(config, CommunicationGraph.parse(config.graph))


class TestTables:
    @pytest.mark.parametrize(("name", "count"), [("architectures", 60), ("topologies", 12), ("reach", 36)])
    def test_every_cell_can_be_trained_and_none_is_there_twice(self, name: str, count: int) -> None:
        cells = EXPERIMENTS[name].cells
        assert len(cells) == count
        assert len({cell.settings(seed=0).model_dump_json() for cell in cells}) == count
        assert len({str(cell) for cell in cells}) == count
        assert all(checked(cell).conditions.refusal is None for cell in cells)

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_what_is_on_record_need_not_be_trained_again(self, name: str) -> None:
        """A new key of the config that changes no result must not be taken for another experiment."""
        on_record, experiment = Records(ROOT / "docs" / "results" / f"{name}.jsonl"), EXPERIMENTS[name]
        found = [on_record.find(cell.settings(seed=0)) is not None for cell in experiment.cells]
        assert all(found) or (experiment.parts and any(found))

    def test_architectures(self) -> None:
        cells = {tuple(cell.labels.values()): cell.settings(seed=0) for cell in EXPERIMENTS["architectures"].cells}
        assert {data for data, _, _ in cells} == {"swiss_roll", "double_moons"}
        assert {name for _, name, _ in cells} == {"MS1", "MS2", "MS3", "H1-J1", "H1-J2", "H2"}
        assert {layers for _, _, layers in cells} == {4, 8, 16, 32, 64}
        for (data, name, layers), config in cells.items():
            chosen = config.network
            assert (config.data.name, chosen.architecture, chosen.layers) == (data, name, layers)
            assert CommunicationGraph.parse(config.graph) == CommunicationGraph.complete(2)
            assert chosen.features == 2

    def test_topologies_differ_in_the_graph_alone(self) -> None:
        for data in ("double_circles", "swiss_roll"):
            cells = [cell for cell in EXPERIMENTS["topologies"].cells if cell.labels["data"] == data]
            configs = [cell.settings(seed=3) for cell in cells]
            assert {"ring:8", "complete:8", "path:8", "star:8"} < {config.graph for config in configs}
            assert {CommunicationGraph.parse(config.graph).agents for config in configs} == {8}
            assert {config.data.name for config in configs} == {data}
            assert len({config.model_copy(update={"graph": ""}).model_dump_json() for config in configs}) == 1

    def test_transfer(self) -> None:
        """Six distances for every architecture and all first weights that it has, at each of which the class can get
        across; nothing but the class tells them apart."""
        cells = EXPERIMENTS["transfer"].cells
        assert len({cell.settings(seed=0).model_dump_json() for cell in cells}) == len(cells)
        rings = [cell for cell in cells if (cell.labels["graph"], cell.labels["others"]) == ("ring", "nothing")]
        kinds = [(name, initial) for name in ("H2", "MS1", "MS3", "H1-J1", "MLP") for initial in transfer.INITIALS]
        kinds.remove(("MLP", "wave"))
        distances = [(*kind, d) for kind in kinds for d in (5, 10, 20, 50, 100, 200)]
        assert [tuple(list(cell.labels.values())[2:]) for cell in rings] == distances
        for cell in cells:
            found = checked(cell) if cell.labels["distance"] <= 20 else None
            assert found is None or not len(found.unreached)

    def test_steps_to_the_goal_are_those_before_three_good_evaluations(self) -> None:
        accuracies = (0.2, 0.99, 0.98, 0.99, 1.0, 0.99)
        rows = [SimpleNamespace(test_accuracy=accuracy) for accuracy in accuracies]
        assert transfer.reached(SimpleNamespace(epochs=rows, steps=120)) == {"steps to 0.99": 80}
        assert transfer.reached(SimpleNamespace(epochs=rows[:-1], steps=100)) == {}

    def test_mnist_patches(self) -> None:
        """Three readers of the same 49 agents, 4 x 4 pixels each."""
        experiment = EXPERIMENTS["mnist_patches"]
        configs = [cell.settings(seed=0, root="folder") for cell in experiment.cells]
        assert [config.readout.at for config in configs] == ["all", "centre", [0]]
        for config in configs:
            assert (config.graph, config.data.name, config.data.patch) == ("grid:7x7", "mnist", (4, 4))
            assert config.data.root == "folder"
        assert experiment.reads_files

    def test_reach_shows_every_graph_at_every_depth(self) -> None:
        cells = [(cell.labels["graph"].partition(":")[0], cell.labels["layers"]) for cell in EXPERIMENTS["reach"].cells]
        assert set(cells) == {(graph, n) for graph in ("grid", "torus", "watts_strogatz") for n in (1, 2, 4, 8, 16, 32)}
        assert all(cell.settings(seed=0).readout.at == [0] for cell in EXPERIMENTS["reach"].cells)

    def test_a_reader_sees_nothing_while_depth_is_less_than_the_distance(self) -> None:
        """N layers of H2 carry what enters in p over 4 N - 2 hops."""
        for cell in EXPERIMENTS["reach"].cells:
            found, distance = checked(cell), cell.labels["nearest"]
            blind = len(found.unreached) == len(found.inputs)
            assert blind == (4 * cell.labels["layers"] - 2 < distance), cell

    @pytest.mark.parametrize("layers", [1, 2])
    def test_what_it_does_not_see_it_does_not_know(self, layers: int) -> None:
        """Chance is a tenth: no digit is more than 37 of the 360 test images."""
        pytest.importorskip("sklearn")
        wanted = {"graph": "grid:8x8", "pixels": "far", "nearest": 9, "layers": layers}
        (cell,) = (cell for cell in EXPERIMENTS["reach"].cells if cell.labels == wanted)
        config = cell.settings(seed=0).model_copy(update={"epochs": 1})
        accuracy = train(config).accuracy
        assert accuracy is not None
        assert accuracy <= 37 / 360

    @pytest.mark.parametrize("name", JUDGED)
    def test_tables_and_pictures_take_what_diverged(self, name: str, tmp_path: Path) -> None:
        experiment = EXPERIMENTS[name]
        results = Trained(0.5, 1.0, 2.0, 3.0), Trained(None, 1.0, 2.0, 3.0), Trained(0.75, 1.0, 2.0, 3.0)
        found = [Finding(cell, results) for cell in experiment.cells]
        lines = experiment.table(found).splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert "0.5000" in lines[2]
        assert "diverged" in lines[2]
        if experiment.draw is not None:
            assert experiment.draw(found, tmp_path / "picture.png").stat().st_size > 1000

    @pytest.mark.parametrize("name", MEASURED)
    @pytest.mark.parametrize(
        ("errors", "cell", "headline"),
        [
            ((0.5,), "| 0.5 |", "H2 0.5"),
            ((0.5, 0.25, 0.75), "| 0.5 (0.75) |", "H2 0.5"),
            ((0.5, None, 0.25), "| 0.5 (diverged) |", "H2 0.5"),
            ((None, None, 0.25), "| diverged (diverged) |", "H2 diverged"),
        ],
    )
    def test_errors_are_shown_with_the_worst(
        self, name: str, errors: tuple[float | None, ...], cell: str, headline: str
    ) -> None:
        """A training that diverged has measured nothing."""
        experiment, figures = EXPERIMENTS[name], MEASURED[name]
        results = tuple(Trained(None, 1.0, 2.0, 3.0, {} if e is None else dict.fromkeys(figures, e)) for e in errors)
        found = [Finding(one, results) for one in experiment.cells]
        lines = experiment.table(found).splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert cell in lines[2]
        assert headline in experiment.headline(found)
        assert not set(experiment.headline(found)) & set("|\n")

    @pytest.mark.parametrize("name", JUDGED)
    @pytest.mark.parametrize(("accuracies", "shown"), [((0.5, None, 0.75), "0.5000"), ((None, None, 0.75), "diverged")])
    def test_a_headline_fits_into_a_cell_of_a_table(
        self, name: str, accuracies: tuple[float | None, ...], shown: str
    ) -> None:
        results = tuple(Trained(accuracy, 1.0, 2.0, 3.0) for accuracy in accuracies)
        headline = EXPERIMENTS[name].headline([Finding(cell, results) for cell in EXPERIMENTS[name].cells])
        assert shown in headline
        assert not set(headline) & set("|\n")

    def test_headlines_sum_up_what_was_found(self) -> None:
        """By hand: the lowest accuracy in the first cell, the highest in the last one, bytes falling."""
        wanted = {
            "architectures": "swiss_roll: best 0.3000, first at 64 layers, H2 0.3000; double_moons: best 0.6000, "
            "first at 64 layers, H2 0.6000",
            "topologies": "medians 0.0100 to 0.1200, worst seed 0.0100; bytes a step 88 (hypercube:3) to 99 (ring:8)",
            "mnist_channels": "0.0100 to 0.1000 at 2 layers, 0.0200 to 0.1100 at 4 layers, "
            "0.0300 to 0.1200 at 8 layers",
            "mnist_patches": "all agents 0.0100, central agent 0.0200, corner agent 0.0300",
            "transfer": "H2: scaled 0.0100 at 5 hops, normal 0.0700 at 5 hops, wave 0.1300 at 5 hops, "
            "wave among noise 0.8500 at 5 hops",
            "reach": "0.0600 to 0.3600 at the best depth; at most 0.3100 with no pixel in reach",
        }
        for name, experiment in ((name, EXPERIMENTS[name]) for name in JUDGED):
            cells = enumerate(experiment.cells)
            found = [Finding(cell, (Trained((i + 1) / 100, 1.0, 2.0, 99.0 - i),)) for i, cell in cells]
            assert experiment.headline(found) == wanted[name]

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_the_readme_has_a_row_for_it(self, name: str) -> None:
        """With a link to its page, and the markers between which the headline goes."""
        begin, end, page = f"<!-- reproduce {name} -->", f"<!-- end {name} -->", f"docs/results/{name}.md"
        (row,) = (line for line in (ROOT / "README.md").read_text().splitlines() if begin in line)
        assert re.fullmatch(rf"\| \[.+\]\({page}\) \| [^|]+ \| {begin}[^|]+{end} \|", row)
        assert (ROOT / page).is_file()

    @pytest.mark.parametrize("name", EXPERIMENTS)
    def test_a_single_seed_has_no_median(self, name: str, tmp_path: Path) -> None:
        experiment = EXPERIMENTS[name]
        for seeds in (1, 3):
            found = [Finding(cell, (Trained(0.5, 1.0, 2.0, 3.0),) * seeds) for cell in experiment.cells]
            write_page(experiment, found, "command", Output(name, tmp_path))
            page = (tmp_path / f"{name}.md").read_text()
            assert ("edian and worst of seeds 0 to 2" in page) == (seeds > 1)
            assert ("edian" in page) == ("worst" in page) == (seeds > 1)

    def test_median_and_worst_count_what_diverged(self) -> None:
        cell = tiny().cells[0]
        found = Finding(cell, tuple(Trained(accuracy, 1.0, 0.0, 0.0) for accuracy in (0.5, 1.0, None)))
        assert (found.median, found.worst) == (0.5, -math.inf)


class TestReproduce:
    def test_it_trains_every_cell_with_every_seed_and_writes_the_table(self, here: Path, trained: list[Config]) -> None:
        (here / "README.md").write_bytes(MARKED.encode())
        result = reproduce("tiny")
        assert result.exit_code == 0
        assert [(config.seed, config.network.layers) for config in trained] == [(0, 1), (0, 2), (1, 1), (1, 2)]
        assert [line.partition("]")[0] for line in result.stderr.splitlines()] == ["[1/4", "[2/4", "[3/4", "[4/4"]
        page = (here / "docs/results/tiny.md").read_text()
        accuracies = [row["result"]["accuracy"] for row in records(here) if row["layers"] == 1]
        median = f"{sum(accuracies) / 2:.4f}"
        assert f"| 1 | {median} | {min(accuracies):.4f} | " in page
        assert "`hdnn-dist reproduce tiny --seeds 2`" in page
        assert (here / "docs/results/tiny.png").stat().st_size > 1000

    def test_bytes_are_those_of_the_summary(self, here: Path) -> None:
        """By hand, one layer on the ring: 4 rounds each way of 16 messages of 10 samples, twice as wide backward, and
        the readout's tree: 10 x 2 logits up each of its 7 edges, as many down."""
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        row = records(here)[0]["result"]
        assert row["messages_per_step"] == 8 * 16 + 2 * 7
        assert row["bytes_per_step"] == pytest.approx(4 * 10 * (4 * 16 * 3 + 2 * 7 * 2), rel=0.05)

    def test_the_readme_changes_between_the_markers_alone(self, here: Path) -> None:
        (here / "README.md").write_bytes(MARKED.encode())
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        once = (here / "README.md").read_bytes().decode()
        before, begin, rest = once.partition("<!-- reproduce tiny -->")
        headline, end, after = rest.partition("<!-- end tiny -->")
        assert (before, after) == (OTHERS + "| tiny | ", " |\nafter\n")
        accuracies = sorted({f"{row['result']['accuracy']:.4f}" for row in records(here)})
        assert headline == f"medians {' to '.join(accuracies)}; seed 0"
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        assert (here / "README.md").read_bytes().decode() == once
        assert begin
        assert end

    def test_a_readme_without_markers_stays_as_it_is(self, here: Path) -> None:
        (here / "README.md").write_bytes(OTHERS.encode())
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        assert (here / "README.md").read_bytes().decode() == OTHERS

    def test_it_goes_on_where_it_was_interrupted(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Config] = []

        def interrupted(config: Config) -> Trained:
            seen.append(config)
            if len(seen) == 3:
                raise KeyboardInterrupt
            return train(config)

        monkeypatch.setattr(running, "train", interrupted)
        result = reproduce("tiny")
        assert result.exit_code == 130
        assert "the same command goes on from there" in result.stderr
        assert {path.name for path in (here / "docs/results").iterdir()} == {"tiny.jsonl"}
        assert len(records(here)) == 2
        result = reproduce("tiny")
        assert (result.exit_code, result.stderr.splitlines()[0]) == (0, "2 of 4 trainings are on record already")
        assert seen[3:] == [cell.settings(seed=1) for cell in tiny().cells]
        assert len(records(here)) == 4

    def test_a_part_is_trained_and_the_page_shows_what_is_there(
        self, here: Path, trained: list[Config], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A second part adds to the first; a cell without all of its seeds is not shown."""
        monkeypatch.setitem(EXPERIMENTS, "tiny", replace(tiny(), parts=True, draw=None))
        page = here / "docs/results/tiny.md"
        assert reproduce("tiny", "--only", "layers=2").exit_code == 0
        assert [(config.seed, config.network.layers) for config in trained] == [(0, 2), (1, 2)]
        assert ("\n| 2 | " in page.read_text(), "\n| 1 | " in page.read_text()) == (True, False)
        assert reproduce("tiny", "--only", "layers=1", "--seeds", "1").exit_code == 0
        assert reproduce("tiny", "--only", "layers=2,1").exit_code == 0
        assert len(trained) == 4
        assert "\n| 1 | " in page.read_text()

    def test_a_config_that_changed_is_trained_again(
        self, here: Path, trained: list[Config], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        changed = tiny()
        slower = Cell(changed.cells[0].labels, changed.cells[0].config, (*changed.cells[0].overrides, "epochs=2"))
        monkeypatch.setitem(EXPERIMENTS, "tiny", Experiment(**{**vars(changed), "cells": (slower, changed.cells[1])}))
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        assert [config.epochs for config in trained] == [1, 1, 2]
        assert f"| 1 | {records(here)[-1]['result']['accuracy']:.4f} |" in (here / "docs/results/tiny.md").read_text()

    def test_a_line_that_was_cut_off_is_trained_again(self, here: Path, trained: list[Config]) -> None:
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        path = here / "docs/results/tiny.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole[:-20])
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        assert len(trained) == 3
        lines = path.read_text().splitlines()
        assert len(lines) == 3
        assert json.loads(lines[-1])["layers"] == 2
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        assert len(trained) == 3

    def test_the_records_know_no_folder_of_this_machine(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same files elsewhere give the same results."""
        monkeypatch.setitem(EXPERIMENTS, "tiny", tiny(reads_files=True))
        assert reproduce("tiny", "--seeds", "1", "--data-root", str(here)).exit_code == 0
        for path in (here / "docs/results").glob("tiny.[jm]*"):
            assert str(here) not in path.read_text()
        result = reproduce("tiny", "--seeds", "1", "--data-root", "elsewhere")
        assert "2 of 2 trainings are on record already" in result.stderr

    def test_what_a_wave_would_be_is_no_part_of_other_records(
        self, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A default of waves that changes leaves the results of other first weights as they are."""
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        monkeypatch.setitem(EXPERIMENTS, "tiny", tiny("network.courant=0.5", "network.initial=wave"))
        assert "are on record already" not in reproduce("tiny", "--seeds", "1").stderr
        monkeypatch.setitem(EXPERIMENTS, "tiny", tiny("network.courant=0.7", "network.initial=wave"))
        assert "are on record already" not in reproduce("tiny", "--seeds", "1").stderr
        path = here / "docs/results/tiny.jsonl"
        earlier = path.read_text().replace('"initial": "normal"', '"initial": "normal", "courant": 0.5')
        assert earlier.count('"courant": 0.5') == 2 + 2
        path.write_text(earlier)
        monkeypatch.setitem(EXPERIMENTS, "tiny", tiny())
        assert "2 of 2 trainings are on record already" in reproduce("tiny", "--seeds", "1").stderr

    def test_processes_give_the_same_results(self, here: Path) -> None:
        for jobs in ("1", "2"):
            result = reproduce("tiny", "--seeds", "1", "--jobs", jobs, "--out", f"jobs{jobs}")
            assert result.exit_code == 0, result.stderr
        one, two = (
            {row["layers"]: row["result"]["accuracy"] for row in map(json.loads, path.read_text().splitlines())}
            for path in (here / "jobs1/tiny.jsonl", here / "jobs2/tiny.jsonl")
        )
        assert one == two

    def test_a_loss_that_diverges_is_a_result(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wild = tiny("optimizer.learning_rate=1e30", "optimizer.schedule=constant", "epochs=3")
        monkeypatch.setitem(EXPERIMENTS, "tiny", wild)
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        assert [row["result"]["accuracy"] for row in records(here)] == [None, None]
        assert "| 1 | diverged | 0 |" in (here / "docs/results/tiny.md").read_text()

    def test_it_downloads_when_asked_and_only_then(self, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Path] = []
        monkeypatch.setattr(cli.reproduce, "download_mnist", asked.append)
        monkeypatch.setitem(EXPERIMENTS, "tiny", tiny("data.root=kept", reads_files=True))
        assert reproduce("tiny", "--seeds", "1").exit_code == 0
        assert asked == []
        assert reproduce("tiny", "--seeds", "1", "--download").exit_code == 0
        assert reproduce("tiny", "--seeds", "1", "--download", "--data-root", "given").exit_code == 0
        assert asked == [Path("kept"), Path("given")]


def unbalanced(folder: Path) -> None:
    (folder / "README.md").write_text("<!-- end tiny -->\n<!-- reproduce tiny -->\n")


def nothing(folder: Path) -> None:
    """An empty folder."""


BAD_INPUT: dict[str, tuple[tuple[str, ...], str, Callable[[Path], None]]] = {
    "no name": ((), "which experiment? there are architectures, topologies, ", nothing),
    "unknown name": (("topologis",), "unknown experiment 'topologis': did you mean 'topologies'? there are", nothing),
    "no seeds": (("tiny", "--seeds", "0"), "--seeds is '0': expected a whole number of at least 1", nothing),
    "seeds that are no number": (("tiny", "--seeds", "many"), "--seeds is 'many': expected a whole", nothing),
    "no jobs": (("tiny", "--jobs", "-1"), "--jobs is '-1': expected a whole number of at least 1", nothing),
    "part of a whole": (("tiny", "--only", "layers=1"), "--only layers=1: the table of tiny needs all", nothing),
    "part that is none": (("transfer", "--only", "distance"), "--only is 'distance': expected label=values", nothing),
    "label that is none": (("transfer", "--only", "hops=5"), "unknown label 'hops': there are graph, others,", nothing),
    "value that is none": (("transfer", "--only", "distance=5,7"), "unknown distance '7': there are 5, 10,", nothing),
    "nothing in common": (
        ("transfer", "--only", "graph=path:51", "--only", "others=noise"),
        "--only graph=path:51 --only others=noise: no cell of transfer has all of it",
        nothing,
    ),
    "files for data that are made": (("tiny", "--data-root", "x"), "tiny makes its data and reads no files", nothing),
    "download of data that are made": (("tiny", "--download"), "--download: tiny makes its data", nothing),
    "no files": (("mnist_patches", "--data-root", "x"), "train-images-idx3-ubyte, train-labels", nothing),
    "file for a folder": (
        ("tiny", "--out", "f"),
        "--out f is a file: give a folder",
        lambda folder: (folder / "f").touch(),
    ),
    **{
        f"a user's {suffix}": (
            ("tiny", "--out", "."),
            f"tiny.{suffix} is not of an experiment: give another folder with --out",
            lambda folder, suffix=suffix: (folder / f"tiny.{suffix}").write_text('{"mine": 1}\n'),
        )
        for suffix in ("md", "jsonl", "png")
    },
    "markers the wrong way round": (("tiny",), "README.md: expected one '<!-- reproduce tiny -->'", unbalanced),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_status_2(name: str, here: Path) -> None:
    arguments, words, arrange = BAD_INPUT[name]
    arrange(here)
    before = {path: path.read_bytes() for path in here.iterdir()}
    result = reproduce(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("hdnn-dist: error: ")
    assert words in result.stderr
    assert {path: path.read_bytes() for path in here.iterdir()} == before


def test_a_key_of_all_cells_is_changed(here: Path) -> None:
    assert reproduce("tiny", "--seeds", "1", "--set", "epochs=0", "--set", "network.step=0.2").exit_code == 0
    assert {(row["config"]["epochs"], row["config"]["network"]["step"]) for row in records(here)} == {(0, 0.2)}
    page = (here / "docs/results/tiny.md").read_text()
    assert "`hdnn-dist reproduce tiny --seeds 1 --set epochs=0 --set network.step=0.2`" in page
