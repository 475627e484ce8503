"""Named graphs: their edges and numbers, the syntax of specs, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hdnn_dist.graph.communication import CommunicationGraph

SPECS = [
    "ring:8",
    "path:5",
    "grid:3x4",
    "torus:3x5",
    "star:6",
    "complete:5",
    "tree:2x3",
    "hypercube:3",
    "exponential:8",
    "erdos_renyi:20,0.3,0",
    "watts_strogatz:20,4,0.2,1",
    "random_regular:3,10,0",
    "barbell:4,3",
    "lollipop:4,3",
    "crossed_ring:8",
]


@pytest.mark.parametrize(
    ("spec", "edges"),
    [
        ("ring:4", [(0, 1), (0, 3), (1, 2), (2, 3)]),
        ("path:3", [(0, 1), (1, 2)]),
        ("path:1", []),
        ("grid:2x3", [(0, 1), (0, 3), (1, 2), (1, 4), (2, 5), (3, 4), (4, 5)]),
        ("grid:1x1", []),
        ("star:4", [(0, 1), (0, 2), (0, 3)]),
        ("star:1", []),
        ("complete:3", [(0, 1), (0, 2), (1, 2)]),
        ("tree:2x2", [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (2, 6)]),
        ("tree:1x2", [(0, 1), (1, 2)]),
        ("tree:3x0", []),
        ("hypercube:2", [(0, 1), (0, 2), (1, 3), (2, 3)]),
        ("hypercube:0", []),
        ("exponential:1", []),
        ("exponential:2", [(0, 1)]),
        (
            "exponential:6",
            [(0, 1), (0, 2), (0, 4), (0, 5), (1, 2), (1, 3), (1, 5), (2, 3), (2, 4), (3, 4), (3, 5), (4, 5)],
        ),
        ("random_regular:1,2", [(0, 1)]),
        ("erdos_renyi:3,1", [(0, 1), (0, 2), (1, 2)]),
        ("barbell:3,2", [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (5, 7), (6, 7)]),
        ("barbell:2,0", [(0, 1), (1, 2), (2, 3)]),
        ("lollipop:3,1", [(0, 1), (0, 2), (1, 2), (2, 3)]),
        ("crossed_ring:4", [(0, 1), (0, 3), (1, 2), (2, 3)]),
        ("crossed_ring:6", [(0, 1), (0, 5), (1, 2), (1, 4), (2, 3), (2, 5), (3, 4), (4, 5)]),
    ],
)
def test_small_graphs(spec: str, edges: list[tuple[int, int]]) -> None:
    """Numbering and edges, written out by hand."""
    assert [tuple(edge) for edge in CommunicationGraph.parse(spec).edges.tolist()] == edges


def test_torus_wraps_row_by_row() -> None:
    """Agent r * columns + c is joined across both seams, and all degrees are 4."""
    graph = CommunicationGraph.torus(3, 4)
    assert graph.neighbours(0).tolist() == [1, 3, 4, 8]
    assert graph.degree.tolist() == [4] * 12


@pytest.mark.parametrize("dimension", [1, 3, 5])
def test_hypercube_joins_numbers_that_differ_in_one_digit(dimension: int) -> None:
    """The agent's number is its corner, in binary."""
    graph = CommunicationGraph.hypercube(dimension)
    agents = np.arange(2**dimension)
    expected = np.bitwise_count(agents[:, None] ^ agents) <= 1
    np.testing.assert_array_equal(graph.matrix(), expected)


@pytest.mark.parametrize("spec", SPECS)
def test_spec_is_the_name_of_the_graph(spec: str) -> None:
    """A run folder can store graph.name and get the same graph back; spaces in a spec do not matter."""
    graph = CommunicationGraph.parse(spec)
    assert graph.name == spec
    name, numbers = spec.split(":")
    spaced = numbers.replace(",", " , ").replace("x", " x ")
    assert CommunicationGraph.parse(f" {name} : {spaced} ") == graph
    method = getattr(CommunicationGraph, name)
    assert method(*(json.loads(number) for number in numbers.replace("x", ",").split(","))) == graph
    assert repr(graph) == f"CommunicationGraph({spec!r}, agents={graph.agents}, edges={len(graph.edges)})"


@pytest.mark.parametrize("spec", ["erdos_renyi:20,0.3", "watts_strogatz:20,4,0.5", "random_regular:3,20"])
def test_random_graphs_depend_on_the_seed_only(spec: str) -> None:
    """Every rank draws the same graph; seed 0 is the default; another seed is another graph."""
    graph = CommunicationGraph.parse(spec)
    assert graph == CommunicationGraph.parse(f"{spec},0")
    assert graph != CommunicationGraph.parse(f"{spec},1")


def test_random_regular_degrees() -> None:
    """degree comes before n."""
    assert CommunicationGraph.random_regular(3, 10).degree.tolist() == [3] * 10


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ring:2", "ring:2: n is 2, expected an integer of at least 3; for one or two agents use path"),
        ("ring:8.5", r"n is 8\.5, expected an integer"),
        ("path:0", "n is 0, expected an integer of at least 1"),
        ("grid:0x3", "rows is 0"),
        ("grid:3x-1", "columns is -1"),
        ("torus:2x2", "rows is 2, expected an integer of at least 3; .* use grid"),
        ("torus:5x2", "columns is 2"),
        ("star:0", "n is 0"),
        ("complete:100000", "more than 1048576 edges; use a smaller graph"),
        ("tree:0x3", "branching is 0"),
        ("tree:10x1000000", "more than"),
        ("hypercube:-1", "dimension is -1"),
        ("hypercube:1000000000", "more than"),
        ("exponential:0", "n is 0"),
        (f"ring:1{'0' * 400}", "more than"),
        (f"erdos_renyi:1{'0' * 400},0.5", "more than"),
        ("erdos_renyi:20,1.5", r"p is 1\.5, expected a probability from 0 to 1"),
        ("erdos_renyi:20,nan", "p is nan"),
        ("erdos_renyi:20,0.3,-1", "seed is -1"),
        (
            "erdos_renyi:20,0.01,3",
            r"erdos_renyi:20,0\.01,3 drew a disconnected graph of \d+ .*raise p or change the seed",
        ),
        ("watts_strogatz:20,3,0.1", "k is 3, expected an even number below n = 20"),
        ("watts_strogatz:4,4,0.1", "expected an even number below n = 4"),
        ("watts_strogatz:40,2,0.9,0", "disconnected graph of .*raise k or change the seed"),
        ("random_regular:3,9", r"even degree \* n \(now 27\)"),
        ("random_regular:4,4", "degree < n"),
        ("random_regular:1,8", "disconnected graph of 4 components; raise degree"),
        ("barbell:1,5", "clique is 1, expected an integer of at least 2"),
        ("barbell:3,-1", "path is -1"),
        ("barbell:100000,1", "more than"),
        ("lollipop:3", "lollipop takes the numbers clique, path; for example lollipop:10,5"),
        ("lollipop:100000,1", "more than"),
        ("crossed_ring:2", "n is 2, expected an integer of at least 4"),
        ("crossed_ring:7", "n is 7, expected an even number"),
        ("crossed_ring:10000000", "more than"),
        ("rnig:8", "did you mean ring:8"),
        ("erdos-renyi:20,0.3", "did you mean erdos_renyi:20,0.3,0"),
        ("ring 8", "did you mean ring:8"),
        (
            "zzz",
            "unknown topology 'zzz': expected NAME:NUMBERS like ring:8, .*NAME is one of ring, path, grid",
        ),
        ("", "unknown topology ''"),
        ("ring", "ring takes the numbers n; for example ring:8"),
        ("ring:", "ring takes the numbers n"),
        ("ring:8,8", "ring takes the numbers n"),
        ("ring:1 2", "ring takes the numbers n"),
        ("grid:8", "grid takes the numbers rows, columns; for example grid:8x8"),
        ("grid:8,8", "for example grid:8x8"),
        ("erdos_renyi:20", "erdos_renyi takes the numbers n, p, seed; for example erdos_renyi:20,0.3,0"),
        ("erdos_renyi:20,0.3,0,1", "erdos_renyi takes the numbers"),
    ],
)
def test_refuses_bad_specs(spec: str, message: str) -> None:
    """Wrong names, numbers and sizes: one line with the spec, what was expected and the mend, at once."""
    with pytest.raises(ValueError, match=message) as caught:
        CommunicationGraph.parse(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [True, "8", None, 8.0])
def test_generators_refuse_wrong_types(wrong: object) -> None:
    """A wrong type is a ValueError like any other wrong input."""
    with pytest.raises(ValueError, match="expected an integer of at least 3"):
        CommunicationGraph.ring(wrong)  # type: ignore[arg-type]
    if wrong != 8.0:
        with pytest.raises(ValueError, match="expected a probability"):
            CommunicationGraph.erdos_renyi(5, wrong)  # type: ignore[arg-type]


def test_positions_for_pictures() -> None:
    """Row 0 of a grid is at the top and its columns run to the right; a ring starts at the top, clockwise."""
    grid = CommunicationGraph.grid(2, 3).positions
    assert grid is not None
    assert grid.tolist() == [[0, 1], [1, 1], [2, 1], [0, 0], [1, 0], [2, 0]]
    for graph in (
        CommunicationGraph.ring(4),
        CommunicationGraph.complete(4),
        CommunicationGraph.exponential(4),
    ):
        assert graph.positions is not None
        np.testing.assert_allclose(graph.positions, [[0, 1], [1, 0], [0, -1], [-1, 0]], atol=1e-15)
    barbell = CommunicationGraph.barbell(4, 2).positions
    assert barbell is not None
    assert barbell[3:7].tolist() == [[0, 0], [1, 0], [2, 0], [3, 0]]
    np.testing.assert_allclose(barbell[:, 0] + barbell[::-1, 0], np.full(10, 3.0))
    assert CommunicationGraph.torus(3, 3).positions is not None
    assert CommunicationGraph.star(4).positions is None
