"""A config that calls agents by their labels is the same run as one that calls them by their numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jobs import run
from typer.testing import CliRunner, Result

from hdnn_dist.cli import app
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.runs.folder import graph_of
from hdnn_dist.training.config_files import load_config

CITIES = ["Frankfurt", "Köln", 'Ulm "an der" Donau', "5", "$$x", "1", "Bern", "all"]
NUMBERED = """
[network]
layers = 4
pattern = [[0, 0], [1, 0], [2, 2], [3, 3], [4, 4], [5, 5], [6, 6], [7, 7], [4, 5]]
[data]
samples = 64
columns = { 3 = [0], 4 = [1] }
[readout]
at = [4, 5, 7]
root = 5
"""
LABELLED = """
[network]
layers = 4
pattern = [["Frankfurt", "Frankfurt"], ["Köln", "Frankfurt"], ['Ulm "an der" Donau', 'Ulm "an der" Donau'], [5, "5"],
           ["$$x", "$$x"], ["1", 1], ["Bern", "Bern"], ["all", "all"], ["$$x", 1]]
[data]
samples = 64
columns = { 5 = [0], "$$x" = [1] }
[readout]
at = ["$$x", 1, "all"]
root = "1"
"""
RANKS = [0, 0, 1, 1, 0, 0, 1, 1]


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The same config twice, in labels of a GraphML file and in numbers of the ring that it holds."""
    ring = CommunicationGraph.ring(8)
    CommunicationGraph(8, ring.edges, labels=CITIES).save(tmp_path / "cities.graphml")
    ranks = ", ".join(f"{json.dumps(city)} = {rank}" for city, rank in zip(CITIES, RANKS, strict=True))
    head = "epochs = 2\nbatch_size = 16\ndtype = 'float64'\n"
    graph = f"graph = '{tmp_path / 'cities.graphml'}'\n"
    (tmp_path / "labels.toml").write_text(f"{head}{graph}placement = {{ {ranks} }}\n{LABELLED}")
    (tmp_path / "numbers.toml").write_text(f"{head}graph = 'ring:8'\nplacement = {RANKS}\n{NUMBERED}")
    return tmp_path


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_labels_train_as_numbers_do(files: Path) -> None:
    for name in ("labels", "numbers"):
        result = command(
            "train", f"{files}/{name}.toml", "--run-dir", f"{files}/{name}", "--set", "placement=contiguous"
        )
        assert result.exit_code == 0, result.stderr
    assert losses(files / "labels") == losses(files / "numbers")
    own = graph_of(files / "labels", load_config(files / "labels" / "config.toml"))
    assert own.labels == tuple(CITIES)
    assert command("train", f"{files}/labels/config.toml", "--run-dir", f"{files}/again").exit_code == 0
    assert losses(files / "again") == losses(files / "labels")


def test_labels_place_agents_on_two_ranks(files: Path) -> None:
    """And what is said of the graph's file is said by one rank."""
    (files / "weights.edges").write_text("".join(f"{i} {(i + 1) % 8} 0.5\n" for i in range(8)))
    jobs = {"labels": (), "numbers": ("--set", f"graph={files / 'weights.edges'}")}
    for name, more in jobs.items():
        settings = (f"{files}/{name}.toml", "--run-dir", f"{files}/{name}", *more)
        job = run("torchrun", 2, "-m", "hdnn_dist", "train", *settings)
        assert job.returncode == 0, job.stderr
        assert job.stderr.count("warning: ") == job.stderr.count("such as weights") == len(more) // 2
    assert losses(files / "labels") == losses(files / "numbers")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.columns={Frankfrt=[0], Bern=[1]}", "data.columns: no agent is called 'Frankfrt': did you mean 'Frankfu"),
        ("data.columns={0=[0], Bern=[1]}", "data.columns: no agent is called '0'"),
        ("data.columns={Bern=[0, 1, 0]}", "agent 6 (Bern) has 2 features"),
        ("data.columns={Bern=[0], 1=[0]}", "column 0 is given to agent 6 (Bern) and agent 5 (1)"),
        ("data.columns={Bern=[7]}", "column 7, given to agent 6 (Bern), does not exist"),
        ("readout.at=['Frankfurt', 'Rom']", "readout.at: no agent is called 'Rom'"),
        ("readout.at=['Bern', 'Rom', 'Bern']", "readout.at: no agent is called 'Rom'"),
        ("readout.at=['Bern', 1, 'Bern']", "readout.at: agent 6 (Bern) is there 2 times: name each agent once"),
        ("readout.at=[1, '1']", "readout.at: agent 5 (1) is there 2 times"),
        ("readout.at=[2.5]", "readout.at is [2.5]: it should be 'all', 'centre', 'each' or a list of agents"),
        ("readout.root=Rom", "readout.root: no agent is called 'Rom'"),
        ("readout.root=2.5", "readout.root is 2.5: it should be an agent"),
        ("network.pattern=[['Rom', 'Bern']]", "network.pattern: no agent is called 'Rom'"),
        ("placement={Rom=0}", "placement: no agent is called 'Rom'"),
        ("placement={Bern=0}", "placement gives no rank to agent 0 (Frankfurt) (7 of 8 agents have none)"),
        ("placement={Bern=0.5}", "placement is {'Bern': 0.5}: it should be"),
    ],
)
def test_what_is_wrong_is_told_in_labels(files: Path, setting: str, message: str) -> None:
    result = command("check", f"{files}/labels.toml", "--set", "placement=auto", "--set", setting)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_placement_of_a_list_names_the_label(files: Path) -> None:
    result = command("train", f"{files}/labels.toml", "--set", f"placement={RANKS}", "--run-dir", f"{files}/run")
    assert 'puts agent 2 (Ulm "an der" Donau) on rank 1' in result.stderr


@pytest.mark.parametrize(
    "words", [("topology", "{}/cities.graphml", "--picture", "{}/x.png"), ("check", "{}/labels.toml")]
)
def test_agents_are_listed_with_label_and_degree(files: Path, words: tuple[str, ...]) -> None:
    result = command(*(word.format(files) for word in words))
    for agent, city in enumerate(CITIES):
        assert f"agent {agent}            {city}, degree 2\n" in result.stdout


def test_of_many_agents_the_first_are_listed(tmp_path: Path) -> None:
    CommunicationGraph(100, CommunicationGraph.path(100).edges, labels=range(1, 101)).save(tmp_path / "long.json")
    result = command("topology", f"{tmp_path}/long.json", "--picture", f"{tmp_path}/x.png")
    assert "agent 39           40, degree 2" in result.stdout
    assert "60 more agents" in result.stdout
    assert "agent 40" not in result.stdout


def test_all_that_is_said_of_a_file_is_seen_once(tmp_path: Path) -> None:
    (tmp_path / "w.edges").write_text("1 2 0.5\n2 5 0.5\n")
    result = command(
        "topology", f"{tmp_path}/w.edges", "--picture", f"{tmp_path}/x.png", "--save", f"{tmp_path}/c.edges"
    )
    assert result.stderr.count("such as weights") == 1
    assert result.stderr.count("with gaps") == 1
    assert (tmp_path / "c.edges").read_text() == "1 2\n2 5\n"


def test_a_diameter_that_takes_too_long_is_not_computed(tmp_path: Path) -> None:
    result = command("topology", "path:40000", "--picture", f"{tmp_path}/x.png")
    assert "diameter           not computed for so many agents" in result.stdout
    with pytest.raises(ValueError, match="diameter and centre of path:40000 would take too long"):
        _ = CommunicationGraph.path(40000).centre


def test_what_a_large_graph_would_take_is_not_computed(tmp_path: Path) -> None:
    result = command("topology", "complete:520", "--picture", f"{tmp_path}/x.png")
    assert result.exit_code == 0, result.stderr
    assert "picture: none of more than 131072 edges" in result.stdout
    assert "forward, a layer   not computed" in result.stdout
    assert not (tmp_path / "x.png").exists()
