"""Block patterns: what they hold, what they refuse, and that they agree with dense 0/1 matrices."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.patterns import Pattern


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Any square 0/1 matrix: asymmetric, with empty rows and columns."""
    agents = draw(st.integers(1, 7))
    bits = draw(st.lists(st.booleans(), min_size=agents**2, max_size=agents**2))
    return np.array(bits).reshape(agents, agents)


@given(matrices())
def test_agrees_with_the_dense_matrix(dense: np.ndarray) -> None:
    """Order, look-up, readers and transpose of the pairs are those of the matrix (T_ik: i reads k)."""
    pattern = Pattern.from_matrix(dense)
    agents = len(dense)
    np.testing.assert_array_equal(np.column_stack([pattern.rows, pattern.columns]), np.argwhere(dense))
    np.testing.assert_array_equal(pattern.matrix(), dense)
    np.testing.assert_array_equal(pattern.transposed().matrix(), dense.T)
    np.testing.assert_array_equal(pattern.contains(*np.indices(dense.shape)), dense)
    for agent in range(agents):
        np.testing.assert_array_equal(pattern.reads(agent), np.flatnonzero(dense[agent]))
        np.testing.assert_array_equal(pattern.readers(agent), np.flatnonzero(dense[:, agent]))
    assert len(pattern) == dense.sum()
    assert pattern.indptr[-1] == len(pattern)


@given(matrices(), st.randoms(use_true_random=False))
def test_order_of_pairs_does_not_matter(dense: np.ndarray, random: object) -> None:
    """Equal patterns are equal and hash alike, whatever the order in which their pairs were given."""
    pairs = [(int(i), int(k)) for i, k in np.argwhere(dense)]
    random.shuffle(pairs)  # type: ignore[attr-defined]
    shuffled = Pattern.from_pairs(len(dense), pairs)
    assert shuffled == Pattern.from_matrix(dense)
    assert hash(shuffled) == hash(Pattern.from_matrix(dense))


@given(matrices(), st.data())
def test_mask_is_the_pattern_block_by_block(dense: np.ndarray, data: st.DataObject) -> None:
    """Entry (a, c) of the mask is T_ik for row a of agent i and column c of agent k, sizes uneven."""
    sizes = st.lists(st.integers(1, 3), min_size=len(dense), max_size=len(dense))
    rows, columns = data.draw(sizes), data.draw(sizes)
    mask = Pattern.from_matrix(dense).mask(rows, columns)
    blocks = [[np.full((r, c), dense[i, k]) for k, c in enumerate(columns)] for i, r in enumerate(rows)]
    np.testing.assert_array_equal(mask, np.block(blocks))


def test_mask_sizes() -> None:
    """One number serves all agents, and columns follow rows."""
    pattern = Pattern.from_matrix([[1, 1], [0, 1]])
    expected = [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    np.testing.assert_array_equal(pattern.mask(2), expected)
    assert pattern.mask([1, 3]).shape == (4, 4)
    assert pattern.mask([1, 3], 2).shape == (4, 4)
    assert pattern.mask(1, [2, 3]).shape == (2, 5)


def test_contains_pairs() -> None:
    """`in` answers for one pair, and (0, 5) of 3 agents is not mistaken for (1, 2), whose key it shares."""
    pattern = Pattern.from_pairs(3, [(0, 0), (1, 2), (2, 1)])
    assert (1, 2) in pattern
    assert (2, 0) not in pattern
    assert (0, 5) not in pattern
    assert (-1, 5) not in pattern


def test_is_immutable() -> None:
    """Nobody can change a pattern that halo tables were built from."""
    pattern = Pattern.from_matrix(np.eye(3))
    with pytest.raises(ValueError, match="read-only"):
        pattern.rows[0] = 1
    with pytest.raises(AttributeError):
        pattern.agents = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("agents", "pairs", "message"),
    [
        (3, [(0, 0), (1, 3)], r"block \(1, 3\) names an agent outside 0\.\.2"),
        (3, [(0, 0), (-1, 1)], r"block \(-1, 1\) names an agent outside 0\.\.2"),
        (3, [(0, 1), (1, 0), (0, 1)], r"block \(0, 1\) is given twice"),
        (3, [(0, 1, 2)], r"shape \(1, 3\), expected \(E, 2\)"),
        (3, [(0, 1), (1,)], "must be pairs of integers"),
        (3, [(0.0, 1.0)], "float64, expected integers"),
        (3, 5, "must be pairs of integers"),
        (0, [], "agents is 0, expected an integer from 1"),
        (True, [], "agents is True"),
        (2.0, [], r"agents is 2\.0"),
    ],
)
def test_refuses_bad_pairs(agents: int, pairs: list, message: str) -> None:
    """Every slip in a list of pairs is named, on one line."""
    with pytest.raises(ValueError, match=message) as caught:
        Pattern.from_pairs(agents, pairs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1, 0, 1], [0, 1, 0]], r"shape \(2, 3\), expected \(agents, agents\).*Pattern\.from_pairs"),
        ([[1, 0], [2, 1]], r"holds 2 at \(1, 0\), expected 0 or 1"),
        ([[1, 0.5], [0, 1]], r"holds 0\.5 at \(0, 1\)"),
        ([[1, float("nan")], [0, 1]], r"holds nan at \(0, 1\)"),
        ([[1, 0], [1]], "must be a square 0/1 matrix"),
        ([], "shape"),
    ],
)
def test_refuses_bad_matrices(matrix: list, message: str) -> None:
    """A matrix that is not square or not 0/1 is not taken for a pattern."""
    with pytest.raises(ValueError, match=message) as caught:
        Pattern.from_matrix(matrix)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([1, 2, 3], None, r"shape \(3,\), expected one integer or 2"),
        (1.5, None, "type float64"),
        ([2, 0], None, "agent 1 has block size 0, expected at least 1"),
        (1, [-1, 1], "agent 0 has block size -1"),
    ],
)
def test_refuses_bad_sizes(rows: object, columns: object, message: str) -> None:
    """An agent without features, or a size too many, does not become a mask."""
    with pytest.raises(ValueError, match=message):
        Pattern.from_matrix(np.eye(2)).mask(rows, columns)  # type: ignore[arg-type]


def test_asymmetric_pattern_inside_the_graph() -> None:
    """T_ik without T_ki is legal, and so is a block that nobody reads."""
    graph = CommunicationGraph.path(3)
    Pattern.from_pairs(3, [(0, 1), (1, 1), (2, 1)]).check_inside(graph)


def test_outside_blocks_are_named() -> None:
    """The error says which blocks, how many and what to do, under the pattern's own name."""
    pattern = Pattern.from_matrix(np.ones((8, 8)))
    with pytest.raises(ValueError, match="not neighbours") as caught:
        pattern.check_inside(CommunicationGraph.ring(8), name="R")
    assert str(caught.value) == (
        "R has block (0, 2), but agents 0 and 2 are not neighbours; 40 of its 64 blocks lie "
        "outside the graph: (0, 2), (0, 3), (0, 4), ...; remove them from R or add these edges to the graph"
    )


def test_wrong_number_of_agents() -> None:
    """A pattern of another graph is refused before its pairs are compared."""
    with pytest.raises(ValueError, match="T is a pattern of 4 agents, but the graph has 8"):
        Pattern.from_matrix(np.eye(4)).check_inside(CommunicationGraph.ring(8))


def test_agent_that_reads_nothing() -> None:
    """Its K would have no column: refused, with the first such agent, their count and the mend."""
    pattern = Pattern.from_pairs(4, [(0, 0), (2, 1)])
    with pytest.raises(ValueError, match=r"agent 1 reads no block of T \(2 of 4.*diagonal block \(1, 1\)"):
        pattern.check_inside(CommunicationGraph.path(4))


def test_no_such_agent() -> None:
    """A negative number would otherwise give an empty or a wrong row."""
    pattern = Pattern.from_matrix(np.eye(3))
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=rf"no agent {wrong}, expected 0\.\.2"):
            pattern.reads(wrong)
        with pytest.raises(ValueError, match=f"no agent {wrong}"):
            pattern.readers(wrong)


def test_large_pattern_is_fast() -> None:
    """65,536 agents: building, transposing, checking and walking all rows stay under a second."""
    graph = CommunicationGraph.torus(256, 256)
    start = time.process_time()
    pattern = graph.pattern()
    pattern.check_inside(graph)
    assert pattern.transposed() == pattern
    assert sum(len(pattern.reads(agent)) for agent in range(pattern.agents)) == 5 * 65536
    assert time.process_time() - start < 1
