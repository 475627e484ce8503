"""Graph files: what is saved is read back, what is malformed is named, and nothing is half-written."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdnn_dist.graph.communication import CommunicationGraph

READY = Path(__file__).parents[1] / "topologies"


@pytest.mark.parametrize("suffix", [".edges", ".txt", ".edgelist", ".graphml", ".json", ".JSON"])
@pytest.mark.parametrize("spec", ["path:1", "ring:11", "grid:3x4", "star:12", "watts_strogatz:12,4,0.3,2"])
def test_file_round_trip(tmp_path: Path, suffix: str, spec: str) -> None:
    """What was saved is read back: edges always, name and exact positions where the format has them."""
    graph = CommunicationGraph.parse(spec)
    file = tmp_path / f"graph{suffix}"
    graph.save(file)
    again = CommunicationGraph.parse(f" {file} ")
    assert again == graph
    if suffix.lower() in (".graphml", ".json"):
        assert again.name == spec
        np.testing.assert_array_equal(again.positions, graph.positions)
    else:
        assert (again.name, again.positions) == ("graph", None)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 12),
    st.floats(0, 1),
    st.integers(0, 99),
    st.sampled_from([".edges", ".graphml", ".json"]),
    st.data(),
)
def test_any_graph_survives_a_file(
    tmp_path_factory: pytest.TempPathFactory,
    agents: int,
    p: float,
    seed: int,
    suffix: str,
    data: st.DataObject,
) -> None:
    """Any graph, any finite positions, down to the last bit."""
    drawn = nx.compose(nx.random_labeled_tree(agents, seed=seed), nx.gnp_random_graph(agents, p, seed=seed))
    numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2)
    positions = data.draw(st.lists(numbers, min_size=agents, max_size=agents))
    file = tmp_path_factory.mktemp("graphs") / f"any{suffix}"
    graph = CommunicationGraph(agents, list(drawn.edges), positions=positions)
    graph.save(file)
    again = CommunicationGraph.load(file)
    assert again == graph
    if suffix != ".edges":
        np.testing.assert_array_equal(again.positions, graph.positions)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1\n1 x\n", "line 2: '1 x' is not an edge; write two agent numbers, for example '0 1'"),
        ("0 1 {\n", "line 1: '0 1 {' is not an edge"),
        ("0 1\n-1 0\n", "line 2: '-1 0' is not an edge"),
        ("0 99999999999\n", "line 1: .* is not an edge"),
        ("0 1\n# a comment\n\n1 0\n", r"line 4: edge \(0, 1\) is given twice"),
        ("0 1\n\n1 1 # here\n", r"line 3: edge \(1, 1\) is a self-loop"),
        ("# agents: 2\n0 1\n1 2\n", r"line 3: edge \(1, 2\) names an agent outside 0\.\.1"),
        ("# agents: eight\n0 1\n", "line 1: 'eight' is no number of agents; write for example '# agents: 8'"),
        ("# agents: 0\n", "line 1: '0' is no number of agents"),
        ("# agents: 2\n0 1\n# agents: 2\n", "line 3: the number of agents was given before"),
        ("# agents: 3\n0 1\n", "agents 0 and 2 are not connected"),
        ("# nothing\n", "no edges; write one a line, or '# agents: 1'"),
    ],
)
def test_malformed_edge_lists(tmp_path: Path, text: str, message: str) -> None:
    """The file and the line are named, the mend too, on one line."""
    file = tmp_path / "bad.edges"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        CommunicationGraph.load(file)
    assert str(caught.value).startswith(f"{file}")
    assert "\n" not in str(caught.value)


def test_edge_list_by_hand(tmp_path: Path) -> None:
    """Comments, blank lines, tabs, Windows line ends and a byte order mark do no harm; no header needed."""
    file = tmp_path / "hand.txt"
    file.write_bytes(b"\xef\xbb\xbf# my graph\r\n\r\n0\t1\r\n  2 1  # a link\r\n")
    assert CommunicationGraph.load(file) == CommunicationGraph.path(3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("bad.json", '{"nodes": [\n', "line 2: not JSON"),
        ("bad.json", "[1, 2]", "not a graph in node-link JSON"),
        ("bad.json", '{"nodes": [{"id": 0}]}', "not a graph in node-link JSON"),
        ("bad.json", '{"nodes": [{"id": 0}], "edges": [{"source": 0}]}', "not a graph in node-link JSON"),
        ("bad.json", '{"nodes": 3, "edges": []}', "not a graph in node-link JSON"),
        (
            "bad.json",
            '{"nodes": [{"id": 0}, {"id": 1}], "edges": [{"source": 0, "target": 7}]}',
            "2 nodes are declared, but nodes and edges name 3",
        ),
        ("bad.json", '{"nodes": [{"id": 0}, {"id": 0}], "edges": []}', "2 nodes are declared, but .* name 1"),
        (
            "bad.json",
            '{"nodes": [{"id": 0}, {"id": 1}], "edges": [{"source": 0, "target": 1}, {"source": 1, "target": 0}]}',
            "1 of 2 edges repeat others",
        ),
        (
            "bad.json",
            '{"directed": true, "nodes": [{"id": 0}, {"id": 1}], "edges": [{"source": 0, "target": 1}]}',
            "directed, expected undirected",
        ),
        ("bad.graphml", "<graphml", "not a graph in GraphML"),
        ("bad.graphml", "<html></html>", "not a graph in GraphML"),
        ("bad.graphml", "<graphml><graph/></graphml>", "its elements have no namespace: write <graphml xmlns="),
        (
            "bad.graphml",
            '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph><node id="0"/></graph><graph/></graphml>',
            "it holds 2 graphs: keep one of them",
        ),
    ],
)
def test_malformed_json_and_graphml(tmp_path: Path, name: str, text: str, message: str) -> None:
    """What networkx would merge, invent or answer with a traceback is one line with the file in it."""
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        CommunicationGraph.load(file)
    assert str(caught.value).startswith(f"{file}")
    assert "\n" not in str(caught.value)


def graphml(nodes: list[str], edges: list[tuple[str, str]], default: str = "undirected") -> str:
    """GraphML as other programs write it."""
    body = [f'<node id="{node}"/>' for node in nodes] + [f'<edge source="{i}" target="{k}"/>' for i, k in edges]
    graph = f'<graph edgedefault="{default}">{"".join(body)}</graph>'
    return f'<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{graph}</graphml>'


def test_graphml_of_other_programs(tmp_path: Path) -> None:
    """Labels such as n0 ... n11 keep the file's order: sorted as text n10 would become agent 2."""
    nodes = [f"n{agent}" for agent in range(12)]
    file = tmp_path / "path.graphml"
    file.write_text(graphml(nodes, list(pairwise(nodes))))
    assert CommunicationGraph.load(file) == CommunicationGraph.path(12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (graphml(["0", "1"], [("0", "1")], "directed"), "directed, expected undirected and simple, not like 0 to 1; "),
        (
            graphml(["0", "1"], [("0", "1"), ("1", "0")]),
            "given twice.*, not like 0 and 1; .*--merge --save",
        ),
        (graphml(["0", "1"], [("0", "1"), ("1", "2")]), "2 nodes are declared, but nodes and edges name 3"),
        (graphml(["0", "1", "2"], [("0", "1")]), "agents 0 and 2 are not connected"),
    ],
)
def test_graphml_that_is_no_communication_graph(tmp_path: Path, text: str, message: str) -> None:
    """Directions, parallel edges and undeclared nodes are refused with the file's name."""
    file = tmp_path / "bad.graphml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        CommunicationGraph.load(file)
    assert str(caught.value).startswith(f"{file}")


LINKS = [("0", "1"), ("1", "0"), ("1", "2"), ("1", "2"), ("2", "2")]


@pytest.mark.parametrize("direction", ["directed", "undirected"])
def test_merged_graphml(tmp_path: Path, direction: str) -> None:
    """Every link once, whatever its direction, and no loop."""
    file = tmp_path / "zoo.graphml"
    file.write_text(graphml(["0", "1", "2"], LINKS, direction))
    assert CommunicationGraph.load(file, merge=True) == CommunicationGraph.path(3)


@pytest.mark.parametrize("kind", [{}, {"multigraph": True}, {"directed": True}, {"directed": True, "multigraph": True}])
def test_merged_json(tmp_path: Path, kind: dict[str, bool]) -> None:
    file = tmp_path / "zoo.json"
    links = [{"source": int(one), "target": int(other)} for one, other in LINKS]
    file.write_text(json.dumps({**kind, "nodes": [{"id": node} for node in range(3)], "edges": links}))
    with pytest.raises(ValueError, match=r"zoo\.json"):
        CommunicationGraph.load(file)
    assert CommunicationGraph.load(file, merge=True) == CommunicationGraph.path(3)


def test_merged_edge_list(tmp_path: Path) -> None:
    file = tmp_path / "zoo.edges"
    file.write_text("".join(f"{one} {other}\n" for one, other in LINKS))
    with pytest.raises(ValueError, match=r"line 5: edge \(2, 2\) is a self-loop"):
        CommunicationGraph.load(file)
    assert CommunicationGraph.load(file, merge=True) == CommunicationGraph.path(3)
    file.write_text("# agents: 1\n")
    assert CommunicationGraph.load(file, merge=True).agents == 1


@pytest.mark.parametrize("edges", [None, []])
def test_links_beside_no_edges(tmp_path: Path, edges: list | None) -> None:
    file = tmp_path / "both.json"
    links = [{"source": 0, "target": 1}, {"source": 1, "target": 2}]
    file.write_text(json.dumps({"nodes": [{"id": node} for node in range(3)], "links": links, "edges": edges}))
    assert CommunicationGraph.load(file) == CommunicationGraph.path(3)


def test_json_of_older_networkx(tmp_path: Path) -> None:
    """Before version 3.4 networkx wrote `links`; text labels that are numbers are numbers."""
    file = tmp_path / "old.json"
    nodes = [{"id": str(agent)} for agent in reversed(range(12))]
    links = [{"source": "0", "target": str(agent)} for agent in range(1, 12)]
    file.write_text(json.dumps({"directed": False, "multigraph": False, "graph": {}, "nodes": nodes, "links": links}))
    assert CommunicationGraph.load(file) == CommunicationGraph.star(12)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere/ring8.edges", "graph file nowhere/ring8.edges does not exist; correct the path"),
        ("nowhere.json", "does not exist"),
        (
            "folder/graph.xls",
            r"has suffix '\.xls', expected one of \.edges, \.txt, \.edgelist, \.graphml, \.json, .*networkx",
        ),
        ("folder/graph", "has suffix ''"),
    ],
)
def test_files_that_cannot_be_loaded(spec: str, message: str) -> None:
    """A slash or a known suffix means a file; a missing one and an unknown suffix are said so."""
    with pytest.raises(ValueError, match=message):
        CommunicationGraph.parse(spec)


def test_folders_and_binary_files(tmp_path: Path) -> None:
    """What is there but is no text file is refused in one line too."""
    folder, binary = tmp_path / "folder.edges", tmp_path / "binary.edges"
    folder.mkdir()
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        CommunicationGraph.load(folder)
    with pytest.raises(ValueError, match="not UTF-8 text"):
        CommunicationGraph.load(binary)
    with pytest.raises(ValueError, match="cannot be written"):
        CommunicationGraph.ring(3).save(folder)
    assert os.listdir(tmp_path / "folder.edges") == []
    assert sorted(os.listdir(tmp_path)) == ["binary.edges", "folder.edges"]


def test_save_is_whole_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that fails half-way leaves the old file as it was and nothing beside it."""
    file = tmp_path / "graph.edges"
    CommunicationGraph.ring(3).save(file)
    before = file.read_bytes()

    def fails(self: Path, text: str, **_: object) -> None:
        self.write_bytes(text[:5].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(ValueError, match="cannot be written: No space left on device"):
        CommunicationGraph.ring(8).save(file)
    assert os.listdir(tmp_path) == ["graph.edges"]
    assert file.read_bytes() == before


def test_save_refuses(tmp_path: Path) -> None:
    """An unknown suffix and a missing folder are named, and nothing is created."""
    graph = CommunicationGraph.ring(3)
    with pytest.raises(ValueError, match=r"suffix '\.csv'"):
        graph.save(tmp_path / "graph.csv")
    with pytest.raises(ValueError, match=r"cannot be written: No such file or directory; name a file in a folder"):
        graph.save(tmp_path / "missing" / "graph.json")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "spec"),
    [
        ("ring8.edges", "ring:8"),
        ("complete8.edges", "complete:8"),
        ("star8.edges", "star:8"),
        ("grid8x8.json", "grid:8x8"),
        ("torus7x7.json", "torus:7x7"),
        ("small_world20.graphml", "watts_strogatz:20,4,0.2,1"),
    ],
)
def test_ready_files(file: str, spec: str) -> None:
    """Each graph that the repository ships is the one that its generator makes."""
    shipped, made = CommunicationGraph.load(READY / file), CommunicationGraph.parse(spec)
    assert shipped == made
    if file.endswith(".json"):
        np.testing.assert_array_equal(shipped.positions, made.positions)


@pytest.mark.parametrize("file", sorted(READY.iterdir()), ids=lambda file: file.name)
def test_every_ready_file_can_be_loaded(file: Path) -> None:
    """A file that is added to the folder later has to be readable as well."""
    assert CommunicationGraph.load(file).agents >= 1
