"""The sensors on a graph of the Topology Zoo: who knows what, and the bar that the last value sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdnn_dist import CommunicationGraph
from hdnn_dist.experiments import EXPERIMENTS
from hdnn_dist.experiments.running import train
from hdnn_dist.training.config_files import load_config

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "launch" / "configs" / "sensors_geant37.toml"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_graph_names_its_nodes() -> None:
    graph = CommunicationGraph.load("topologies/geant2010.json")
    assert (graph.agents, len(graph.edges)) == (37, 56)
    assert graph.label(graph.centre) == "DE"


@pytest.mark.parametrize(("name", "ours"), [("Geant2010", "geant2010"), ("TataNld", "tata_nld")])
def test_the_graphs_are_those_of_topohub(name: str, ours: str) -> None:
    topohub = pytest.importorskip("topohub")
    theirs = Path(topohub.__file__).parent / "data" / "topozoo" / f"{name}.json"
    assert CommunicationGraph.load(theirs) == CommunicationGraph.load(f"topologies/{ours}.json")


def test_figures_are_of_all_methods() -> None:
    config = load_config(CONFIG, ["epochs=1", "data.samples=60", "network.kernel=torch", "network.layers=1"])
    figures = train(config, EXPERIMENTS["sensors"].measure).figures
    assert list(figures) == ["H2", "MLP", "last", "mean"]
    assert 0 < figures["last"] < 2


@pytest.mark.slow
def test_a_sensor_beats_the_last_value() -> None:
    """At least 30 % below its error."""
    found = train(load_config(CONFIG), EXPERIMENTS["sensors"].measure).figures
    assert found["H2"] <= 0.7 * found["last"]
