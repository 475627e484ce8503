"""Graph files of other programs: what is read, what is said of the rest, and how agents are numbered."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.source import GraphFileWarning

GRAPHML = "http://graphml.graphdrawing.org/xmlns"


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def quiet(file: Path, merge: bool = False) -> CommunicationGraph:
    """The graph of a file of which nothing is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return CommunicationGraph.load(file, merge)


def zoo(labels: list[str | None], ids: list[str] | None = None, extra: str = "") -> str:
    """A path in GraphML as the Topology Zoo writes it, with a type that networkx does not know."""
    names = ids or [str(number) for number in range(len(labels))]
    told = [f'<data key="d0">{label}</data>' if label is not None else "" for label in labels]
    nodes = "".join(
        f'<node id="{node}">{data}<data key="d1">now</data></node>' for node, data in zip(names, told, strict=True)
    )
    links = "".join(f'<edge source="{one}" target="{other}"/>' for one, other in pairwise(names))
    return (
        f'<?xml version="1.0" encoding="utf-8"?><graphml xmlns="{GRAPHML}">'
        '<key id="d0" for="node" attr.name="label" attr.type="string"/>'
        f'<key id="d1" for="node" attr.name="when" attr.type="date"/><graph edgedefault="undirected">{nodes}{links}'
        f"{extra}</graph></graphml>"
    )


class TestGraphML:
    def test_ids_from_one_are_labels(self, tmp_path: Path) -> None:
        graph = quiet(written(tmp_path, "five.graphml", zoo([None] * 5, ids=list("53412"))))
        assert graph.labels == ("1", "2", "3", "4", "5")
        assert graph.edges.tolist() == [[0, 1], [0, 3], [2, 3], [2, 4]]
        assert (graph.agent("5"), graph.agent(5), graph.named(4)) == (4, 4, "agent 4 (5)")

    def test_ids_from_zero_are_agents(self, tmp_path: Path) -> None:
        graph = quiet(written(tmp_path, "plain.graphml", zoo([None] * 12)))
        assert graph.labels is None
        assert graph == CommunicationGraph.path(12)

    @pytest.mark.parametrize("ids", [None, ["7", "8", "9"]])
    def test_labels_that_tell_nodes_apart_are_used(self, tmp_path: Path, ids: list[str] | None) -> None:
        file = written(tmp_path, "zoo.graphml", zoo(["Köln", 'S&amp;P "500"', "$$x"], ids))
        assert quiet(file).labels == ("Köln", 'S&P "500"', "$$x")

    @pytest.mark.parametrize("labels", [["A", "A", "B"], ["A", None, "B"], ["A", " ", "B"]])
    def test_labels_that_do_not_are_not(self, tmp_path: Path, labels: list[str | None]) -> None:
        assert quiet(written(tmp_path, "zoo.graphml", zoo(labels))).labels is None
        assert quiet(written(tmp_path, "zoo.graphml", zoo(labels, ids=["4", "5", "6"]))).labels == ("4", "5", "6")

    def test_names_as_ids_keep_their_order(self, tmp_path: Path) -> None:
        names = ["Ulm", "Aachen", "n10", "n9"]
        graph = quiet(written(tmp_path, "named.graphml", zoo([None] * 4, ids=names)))
        assert graph == CommunicationGraph.path(4)
        assert graph.labels == tuple(names)

    def test_refusals_name_the_labels(self, tmp_path: Path) -> None:
        twice = written(tmp_path, "twice.graphml", zoo([None] * 3, list("123"), '<edge source="2" target="1"/>'))
        with pytest.raises(ValueError, match=r"not like 1 and 2|not like 2 and 1"):
            CommunicationGraph.load(twice)
        assert quiet(twice, merge=True).labels == ("1", "2", "3")
        alone = written(tmp_path, "alone.graphml", zoo([None] * 2, ["Rom", "Ulm"], '<node id="Bern"/>'))
        with pytest.raises(ValueError, match=r"agent 0 \(Rom\) and agent 2 \(Bern\) are not connected"):
            CommunicationGraph.load(alone)
        loop = written(tmp_path, "loop.graphml", zoo([None] * 2, ["Rom", "Ulm"], '<edge source="Ulm" target="Ulm"/>'))
        with pytest.raises(ValueError, match=r"edge \(Ulm, Ulm\) is a self-loop"):
            CommunicationGraph.load(loop)

    @pytest.mark.parametrize("ids", [["n0", "n1", "n2"], ["node7", "node3", "node12"]])
    def test_a_label_is_used_where_ids_only_count(self, tmp_path: Path, ids: list[str]) -> None:
        cities = ["Ulm", "Rom", "Bern"]
        assert quiet(written(tmp_path, "n.graphml", zoo(cities, ids))).labels == tuple(cities)
        assert quiet(written(tmp_path, "n.graphml", zoo(["A", "A", "B"], ids))).labels == tuple(ids)

    def test_names_as_ids_stay_beside_a_label(self, tmp_path: Path) -> None:
        graph = quiet(written(tmp_path, "m.graphml", zoo(["A", "B", "C"], ["Ulm", "n1", "Bern2"])))
        assert graph.labels == ("Ulm", "n1", "Bern2")


@pytest.mark.parametrize("second", ['"pos": [1, "a"]', '"pos": [1]', '"pos": null', '"size": 3', '"pos": [1, NaN]'])
def test_positions_that_are_not_all_there_are_left_out(tmp_path: Path, second: str) -> None:
    nodes = f'[{{"id": 4, "pos": [0, 1]}}, {{"id": 6, {second}}}]'
    file = written(tmp_path, "half.json", f'{{"nodes": {nodes}, "edges": [{{"source": 4, "target": 6}}]}}')
    with pytest.warns(GraphFileWarning, match="positions are left out: 1 of 2 nodes, such as '6'"):
        graph = CommunicationGraph.load(file)
    assert (graph.positions, graph.labels) == (None, ("4", "6"))


class TestEdgeLists:
    @pytest.mark.parametrize(
        ("text", "labels", "said"),
        [
            ("1 2\n2 3\n", ("1", "2", "3"), "numbers its 3 nodes from 1: they are agents 0 to 2"),
            ("20 3\n3 100\n", ("3", "20", "100"), "from 3 to 100 with gaps"),
            ("0 1\n1 7\n", ("0", "1", "7"), "from 0 to 7 with gaps"),
        ],
    )
    def test_other_numbers_are_labels_in_ascending_order(
        self, tmp_path: Path, text: str, labels: tuple[str, ...], said: str
    ) -> None:
        file = written(tmp_path, "from1.edges", text)
        with pytest.warns(GraphFileWarning, match=said):
            graph = CommunicationGraph.load(file)
        assert graph.labels == labels
        pairs = [sorted(map(int, line.split())) for line in text.splitlines()]
        assert sorted([int(labels[i]), int(labels[k])] for i, k in graph.edges) == sorted(pairs)

    def test_with_a_header_numbers_are_agents(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"line 3: edge \(1, 3\) names an agent outside 0\.\.2"):
            CommunicationGraph.load(written(tmp_path, "a.edges", "# agents: 3\n1 2\n1 3\n"))

    @pytest.mark.filterwarnings("ignore")
    def test_refusals_name_the_numbers_of_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"line 3: edge \(5, 9\) is given twice"):
            CommunicationGraph.load(written(tmp_path, "a.edges", "5 9\n9 12\n9 5\n"))
        with pytest.raises(ValueError, match=r"agent 0 \(5\) and agent 2 \(12\) are not connected"):
            CommunicationGraph.load(written(tmp_path, "a.edges", "5 9\n12 13\n"))

    def test_weights_are_left_out_and_said(self, tmp_path: Path) -> None:
        file = written(tmp_path, "a.edges", "0 1 0.5\n1 2 -3e-4\n")
        with pytest.warns(GraphFileWarning, match="more behind its edges, such as weights: they are left out"):
            assert CommunicationGraph.load(file) == CommunicationGraph.path(3)

    def test_what_networkx_writes_is_read(self, tmp_path: Path) -> None:
        links = nx.path_graph(3)
        nx.write_edgelist(links, tmp_path / "n.edgelist")
        assert quiet(tmp_path / "n.edgelist") == CommunicationGraph.path(3)
        nx.set_edge_attributes(links, 0.5, "weight")
        nx.write_edgelist(links, tmp_path / "n.edgelist")
        with pytest.warns(GraphFileWarning, match="such as weights"):
            assert CommunicationGraph.load(tmp_path / "n.edgelist") == CommunicationGraph.path(3)


WEIGHTED = {
    "graphml": zoo(["A", "B"])
    .replace("<graph e", '<key id="w" for="edge" attr.name="weight" attr.type="double"/><graph e')
    .replace('target="1"/>', 'target="1"><data key="w">{}</data></edge>'),
    "json": '{{"nodes": [{{"id": 1}}, {{"id": 2}}], "edges": [{{"source": 1, "target": 2, "weight": {}}}]}}',
    "gml": "graph [ node [ id 1 ] node [ id 2 ] edge [ source 1 target 2 value {} ] ]",
    "net": "*Vertices 2\n*Edges\n1 2 {} c Blue\n",
}


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("suffix", WEIGHTED)
def test_weights_of_any_format_are_left_out_and_said(tmp_path: Path, suffix: str, merge: bool) -> None:
    """But not the 1 that programs write for none."""
    assert quiet(written(tmp_path, f"one.{suffix}", WEIGHTED[suffix].format("1.0")), merge).agents == 2
    with pytest.warns(GraphFileWarning, match="weights of its links: they are left out"):
        CommunicationGraph.load(written(tmp_path, f"w.{suffix}", WEIGHTED[suffix].format("2.5")), merge)


class TestCSV:
    @pytest.mark.parametrize("text", ["# links\nUlm;Rom\nRom;Bern\n", "#links\n\nsource;target\nUlm;Rom\nRom;Bern\n"])
    def test_a_comment_is_no_row(self, tmp_path: Path, text: str) -> None:
        graph = quiet(written(tmp_path, "cities.csv", text))
        assert (graph, graph.labels) == (CommunicationGraph.path(3), ("Ulm", "Rom", "Bern"))

    def test_names_may_begin_like_comments(self, tmp_path: Path) -> None:
        assert quiet(written(tmp_path, "c.csv", "#1;#2\n#2;#3\n")).labels == ("#1", "#2", "#3")

    @pytest.mark.parametrize(
        "text",
        [
            "Ulm,Rom\nRom,Bern\n",
            "Ulm;Rom\n\nRom;Bern\n",
            '\ufeffsource\ttarget\n"Ulm"\tRom\nRom\tBern\n',
            "From,To\nUlm,Rom\nRom, Bern\n",
        ],
    )
    def test_names_are_labels_in_their_order(self, tmp_path: Path, text: str) -> None:
        graph = quiet(written(tmp_path, "cities.csv", text))
        assert (graph, graph.labels) == (CommunicationGraph.path(3), ("Ulm", "Rom", "Bern"))

    def test_header_and_weights(self, tmp_path: Path) -> None:
        file = written(tmp_path, "w.csv", "weight,Source,Target\n0.5,0,1\n0.25,1,2\n")
        with pytest.warns(GraphFileWarning, match="1 column beside its links"):
            assert CommunicationGraph.load(file) == CommunicationGraph.path(3)
        file = written(tmp_path, "w.csv", "node,other\n0,1\n1,2\n")
        assert quiet(file) == CommunicationGraph.path(3)

    def test_numbers_from_one_are_labels(self, tmp_path: Path) -> None:
        with pytest.warns(GraphFileWarning, match="from 1:"):
            assert CommunicationGraph.load(written(tmp_path, "n.csv", "1,2\n2,3\n")).labels == ("1", "2", "3")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no edges; write one a line"),
            ("source,target\n", "no edges below the header"),
            ("Ulm,Rom\nRom\n", r"line 2: \['Rom'\] is not an edge"),
            ("Ulm,Rom\nRom,\n", "line 2: .* is not an edge"),
            ("Ulm,Rom\nRom,Ulm\n", r"line 2: edge \(Ulm, Rom\) is given twice"),
            ("Ulm,Rom\nRom,Rom\n", r"line 2: edge \(Rom, Rom\) is a self-loop"),
        ],
    )
    def test_refused(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            CommunicationGraph.load(written(tmp_path, "bad.csv", text))

    def test_merged(self, tmp_path: Path) -> None:
        file = written(tmp_path, "both.csv", "Ulm,Rom\nRom,Ulm\nRom,Rom\nRom,Bern\n")
        assert quiet(file, merge=True) == CommunicationGraph.path(3)


class TestPajek:
    def test_names_and_places(self, tmp_path: Path) -> None:
        text = '*Vertices 3\n1 "Ulm an der Donau" 0.1 0.2 0.5\n2 Rom 0.3 0.4\n3 "Köln" 1 0\n*Edges\n1 2 1\n2 3\n'
        graph = quiet(written(tmp_path, "p.net", text))
        assert (graph, graph.labels) == (CommunicationGraph.path(3), ("Ulm an der Donau", "Rom", "Köln"))
        np.testing.assert_array_equal(graph.positions, [[0.1, 0.2], [0.3, 0.4], [1, 0]])

    @pytest.mark.parametrize("links", ["*Edges\n1 2\n2 3\n", "% a comment\n*edgeslist\n2 1 3\n"])
    def test_without_names_the_numbers_are_labels(self, tmp_path: Path, links: str) -> None:
        graph = quiet(written(tmp_path, "p.net", f"*Network x\n*Vertices 3\n1\n{links}"))
        assert (graph, graph.labels, graph.positions) == (CommunicationGraph.path(3), ("1", "2", "3"), None)

    def test_directions_are_refused_or_merged(self, tmp_path: Path) -> None:
        file = written(tmp_path, "p.net", "*Vertices 2\n1 A\n2 B\n*Arcs\n1 2\n2 1\n")
        with pytest.raises(ValueError, match="directed, expected undirected and simple, not like 1 to 2"):
            CommunicationGraph.load(file)
        assert quiet(file, merge=True).labels == ("A", "B")

    @pytest.mark.parametrize("links", ["*Arcs\n*Edges\n1 2\n", "*Edges\n1 2\n*Arcs\n", "*Edges\n1 2\n*Arcslist\n"])
    def test_no_arc_below_arcs_gives_no_direction(self, tmp_path: Path, links: str) -> None:
        assert quiet(written(tmp_path, "p.net", f"*Vertices 2\n{links}")) == CommunicationGraph.path(2)

    def test_one_arc_does(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="directed"):
            CommunicationGraph.load(written(tmp_path, "p.net", "*Vertices 3\n*Edges\n1 2\n*Arcs\n2 3\n"))

    def test_an_apostrophe_is_a_letter(self, tmp_path: Path) -> None:
        graph = quiet(written(tmp_path, "p.net", "*Vertices 2\n1 L'Aquila\n2 \"Reggio nell'Emilia\"\n*Edges\n1 2\n"))
        assert graph.labels == ("L'Aquila", "Reggio nell'Emilia")

    @pytest.mark.parametrize("text", ["*Vertices two\n", "*Vertices 2\n*Edges\n1 3\n", "*Matrix\n0 1\n", "1 2\n"])
    def test_refused(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(ValueError, match=r"line \d: .* is not Pajek"):
            CommunicationGraph.load(written(tmp_path, "p.net", text))


class TestGML:
    def test_symmetric_directed(self, tmp_path: Path) -> None:
        graph = nx.DiGraph(nx.Graph([("Ulm", "Rom"), ("Rom", "Köln")]))
        nx.write_gml(graph, tmp_path / "g.gml")
        with pytest.raises(ValueError, match="directed, expected undirected and simple, not like 0 to 1, 1 to 0"):
            CommunicationGraph.load(tmp_path / "g.gml")
        read = quiet(tmp_path / "g.gml", merge=True)
        assert (read, read.labels) == (CommunicationGraph.path(3), ("Ulm", "Rom", "Köln"))

    def test_duplicate_labels_and_parallel_links(self, tmp_path: Path) -> None:
        nodes = "".join(f'node [ id {number} label "same" ]\n' for number in (3, 5, 8))
        links = "edge [ source 3 target 5 ] edge [ source 5 target 8 ]"
        graph = quiet(written(tmp_path, "g.gml", f"graph [\n{nodes}{links}\n]\n"))
        assert (graph, graph.labels) == (CommunicationGraph.path(3), ("3", "5", "8"))
        twice = written(tmp_path, "t.gml", f"graph [\n{nodes}{links} edge [ source 3 target 5 ]\n]\n")
        with pytest.raises(ValueError, match=r"given twice.*not like 3 and 5"):
            CommunicationGraph.load(twice)
        assert quiet(twice, merge=True) == CommunicationGraph.path(3)

    def test_places(self, tmp_path: Path) -> None:
        nodes = "".join(f"node [ id {i} graphics [ x {i}.5 y 2 ] ] " for i in range(2))
        graph = quiet(written(tmp_path, "g.gml", f"graph [ {nodes} edge [ source 0 target 1 ] ]"))
        np.testing.assert_array_equal(graph.positions, [[0.5, 2], [1.5, 2]])

    def test_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not a graph in GML"):
            CommunicationGraph.load(written(tmp_path, "g.gml", "graph [ node [ ] ]"))


CASE = """function mpc = small
%SMALL  four buses, [one] line off
mpc.version = '2';
mpc.baseMVA = 100;
mpc.bus = [ %% bus_i type Pd
    10  3  0;
    2   1  50;  % a load
    300 1  20
    41  2  0;
];
mpc.gen = [
    10 40 0;
];
mpc.branch = [
    10  2   0.01 0.1 0 250 250 250 0 0 1 -360 360;
    2   300 0.01 0.1 0 250 250 250 0 0 1 -360 360;
    300 41  0.01 0.1 0 250 250 250 0 0 1 -360 360;
    10  300 0.01 0.1 0 250 250 250 0 0 0 -360 360;
];
"""


class TestMatpower:
    def test_buses_are_agents(self, tmp_path: Path) -> None:
        with pytest.warns(GraphFileWarning, match=r"1 of 4 branches are out of service \(status 0\) and left out"):
            graph = CommunicationGraph.load(written(tmp_path, "small.m", CASE))
        assert graph.labels == ("2", "10", "41", "300")
        assert graph.edges.tolist() == [[0, 1], [0, 3], [2, 3]]
        assert graph.name == "small"

    def test_double_lines_are_merged_where_asked_to(self, tmp_path: Path) -> None:
        file = written(tmp_path, "two.m", "mpc.bus = [1;2;3];\nmpc.branch = [1 2; 1 2\n 2,3];")
        with pytest.raises(ValueError, match=r"given twice.*not like 1 and 2"):
            CommunicationGraph.load(file)
        assert quiet(file, merge=True) == CommunicationGraph.path(3)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("x = 1;", r"no table mpc\.bus"),
            ("mpc.bus = [1; 2];", r"no table mpc\.branch"),
            ("mpc.bus = [1; two];\nmpc.branch = [1 2];", r"mpc\.bus has the row 'two'"),
            ("mpc.bus = [1; 2];\nmpc.branch = [1 3];", "2 rows, but buses and branches name 3 different"),
            ("mpc.bus = [1; 1];\nmpc.branch = [1 2];", "2 rows, but|1 different"),
            ("mpc.bus = [1; 2.5];\nmpc.branch = [1 2];", r"mpc\.bus has the row '2\.5'"),
        ],
    )
    def test_refused(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            CommunicationGraph.load(written(tmp_path, "bad.m", text))


SAMPLES = {
    "edges": "# agents: 3\n0 1 0.5\n1 2\n",
    "csv": "source;target;w\nUlm;Rom;1\nRom;Bern;2\n",
    "graphml": zoo(["A", "B", "C"]),
    "json": '{"nodes": [{"id": 1, "pos": [0, 1]}, {"id": 2}], "edges": [{"source": 1, "target": 2}]}',
    "gml": 'graph [ node [ id 1 label "A" ] node [ id 2 graphics [ x 1 y 2 ] ] edge [ source 1 target 2 ] ]',
    "net": '*Vertices 2\n1 "A" 0.1 0.2\n2 B\n*Edges\n1 2 4\n',
    "m": CASE,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", SAMPLES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_is_told_in_one_line(
    suffix: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bytes that are lost, doubled or others: the graph is read, or the file is named in one line."""
    content = SAMPLES[suffix].encode()
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    put = data.draw(
        st.sampled_from([content[start:end] * 2, b"", b"-1", b"1e9", b'"', b"[", b"<", b"\x00"]) | st.binary()
    )
    file = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    file.write_bytes(content[:start] + put + content[end:])
    said = ""
    try:
        CommunicationGraph.load(file, merge=data.draw(st.booleans()))
    except ValueError as error:
        said = str(error)
    assert not said or said.startswith((f"{file}", f"graph file {file}"))
    assert "\n" not in said


def test_nesting_without_end_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        CommunicationGraph.load(written(tmp_path, "deep.json", "[" * 200_000))


@pytest.mark.parametrize("suffix", ["gexf", "dot", "mtx", "xyz"])
def test_other_formats_name_a_converter(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=rf"suffix '\.{suffix}', expected one of .*networkx"):
        CommunicationGraph.parse(f"{tmp_path}/graph.{suffix}")


@pytest.mark.parametrize("suffix", ["csv", "gml", "net", "m"])
def test_what_is_only_read_is_not_written(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=rf"suffix '\.{suffix}' is only read; write one of \.edges"):
        CommunicationGraph.ring(3).save(tmp_path / f"graph.{suffix}")
    assert not list(tmp_path.iterdir())
