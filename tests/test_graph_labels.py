"""What people call the agents: found again in every file that keeps it, in configs, and in what errors say."""

from __future__ import annotations

import warnings
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.layer_graphs import check_graphs
from hdnn_dist.graph.source import GraphFileWarning

CITIES = CommunicationGraph(3, [(0, 1), (1, 2)], labels=["Frankfurt", "Köln", "Ulm"])
NUMBERS = CommunicationGraph(3, [(0, 1), (1, 2)], labels=[1, 2, 7])
PLAIN = CommunicationGraph.path(3)


@pytest.mark.parametrize(
    ("graph", "given_", "agent"),
    [
        (CITIES, "Köln", 1),
        (CITIES, " Köln ", 1),
        (CITIES, 2, 2),
        (CITIES, "2", 2),
        (NUMBERS, 2, 1),
        (NUMBERS, "1", 0),
        (PLAIN, 2, 2),
        (PLAIN, "2", 2),
        (CommunicationGraph(2, [(0, 1)], labels=["1", "0"]), 1, 0),
        (CommunicationGraph(2, [(0, 1)], labels=["007", "x"]), "007", 0),
    ],
)
def test_who_is_meant(graph: CommunicationGraph, given_: object, agent: int) -> None:
    assert graph.agent(given_) == agent


@pytest.mark.parametrize(
    ("graph", "given_", "message"),
    [
        (CITIES, "Frankfrt", "no agent is called 'Frankfrt': did you mean 'Frankfurt'"),
        (CITIES, 3, "no agent is called '3': there are Frankfurt, Köln, Ulm"),
        (NUMBERS, 0, "no agent is called '0': there are 1, 2, 7"),
        (PLAIN, 3, "agent 3 does not exist: there are 3 agents, 0 to 2"),
        (PLAIN, -1, "agent -1 does not exist"),
        (PLAIN, "Ulm", "agent Ulm does not exist"),
        (PLAIN, True, "True is no agent: expected a whole number"),
        (CITIES, 1.0, "1.0 is no agent: expected a label"),
        (CITIES, None, "None is no agent"),
    ],
)
def test_nobody_is_meant(graph: CommunicationGraph, given_: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph.agent(given_)


def test_one_agent_under_two_names_is_refused() -> None:
    assert CITIES.by_agent({"Ulm": 1, 0: 2}) == {2: 1, 0: 2}
    with pytest.raises(ValueError, match="2 is agent 2, which is there under another name too"):
        CITIES.by_agent({"Ulm": 1, 2: 2})


def test_labels_are_no_part_of_what_makes_graphs_equal() -> None:
    assert CITIES == PLAIN
    assert hash(CITIES) == hash(PLAIN)


def test_numbers_of_agents_are_no_labels() -> None:
    assert CommunicationGraph(3, [(0, 1), (1, 2)], labels=["0", 1, "2"]).labels is None


@pytest.mark.parametrize("labels", [["a"], ["a", "a", "b"], ["a", "", "b"], ["a", "\x07", "b"], "abc", 3])
def test_labels_that_do_not_tell_agents_apart_are_refused(labels: object) -> None:
    with pytest.raises(ValueError, match="expected a different text, not empty, for each of 3 agents"):
        CommunicationGraph(3, [(0, 1), (1, 2)], labels=labels)


def test_labels_are_one_printable_line_and_short_in_messages() -> None:
    graph = CommunicationGraph(2, [(0, 1)], labels=["a\n b\x1b[31m", "x" * 500])
    assert graph.labels is not None
    assert graph.labels[0] == "a b[31m"
    assert len(graph.named(1)) < 60


def test_networkx_carries_labels_both_ways() -> None:
    graph = nx.relabel_nodes(nx.path_graph(3), {0: "Ulm", 1: "Köln", 2: "Rom"})
    read = CommunicationGraph.from_networkx(graph)
    assert read.labels == ("Köln", "Rom", "Ulm")
    assert [read.networkx.nodes[agent]["label"] for agent in range(3)] == list(read.labels)
    again = CommunicationGraph.from_networkx(read.networkx)
    assert (again, again.labels) == (read, read.labels)


def test_networkx_nodes_that_read_alike_have_no_labels() -> None:
    with pytest.warns(GraphFileWarning, match="do not tell them apart"):
        assert CommunicationGraph.from_networkx(nx.Graph([(1, "1")])).labels is None


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([".graphml", ".json"]))
def test_any_labels_survive_a_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, suffix: str) -> None:
    text = st.text(max_size=12) | st.sampled_from(["0", "1", "2", "01", '"', "<&>", "$$", "é", "None", "nan"])
    clean = text.filter(lambda label: "".join(c for c in " ".join(label.split()) if c.isprintable()).strip() == label)
    labels = data.draw(st.lists(clean.filter(bool), min_size=1, max_size=6, unique=True))
    graph = CommunicationGraph(len(labels), list(nx.path_graph(len(labels)).edges), labels=labels)
    file = tmp_path_factory.mktemp("labels") / f"any{suffix}"
    graph.save(file)
    again = CommunicationGraph.load(file)
    assert (again, again.labels) == (graph, graph.labels)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=8, unique=True), st.randoms(use_true_random=False))
def test_numbers_survive_an_edge_list(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], random: object
) -> None:
    tree = nx.random_labeled_tree(len(numbers), seed=random)
    graph = CommunicationGraph(len(numbers), list(tree.edges), labels=sorted(numbers))
    file = tmp_path_factory.mktemp("labels") / "numbers.edges"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GraphFileWarning)
        graph.save(file)
        again = CommunicationGraph.load(file)
    assert (again, again.labels) == (graph, graph.labels)


@pytest.mark.parametrize("labels", [["Ulm", "Rom", "Bern"], ["9", "5", "7"], ["1", "01", "x"]])
def test_an_edge_list_says_which_labels_it_does_not_hold(tmp_path: Path, labels: list[str]) -> None:
    graph = CommunicationGraph(3, [(0, 1), (1, 2)], labels=labels)
    with pytest.warns(GraphFileWarning, match=r"holds no such labels.*\.graphml and \.json keep labels"):
        graph.save(tmp_path / "names.edges")
    assert CommunicationGraph.load(tmp_path / "names.edges") == graph


def test_blocks_outside_the_graph_are_told_in_labels() -> None:
    graph = CommunicationGraph(3, [[0, 1], [1, 2]], labels=["Rom", "Bern", "Chur"])
    with pytest.raises(ValueError, match=r"T has block \(Rom, Chur\), but agents Rom and Chur are not neighbours"):
        graph.pattern(np.ones((3, 3)))
    with pytest.raises(ValueError, match=r"agent 2 \(Chur\) reads no block of T .* block \(Chur, Chur\)"):
        graph.pattern(np.diag([1, 1, 0]))


def test_a_graph_of_a_layer_outside_is_told_in_labels() -> None:
    with pytest.raises(ValueError, match="layer 0 joins agents Frankfurt and Ulm, which are not neighbours"):
        check_graphs([CommunicationGraph.complete(3)], 1, CITIES)
