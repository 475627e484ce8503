"""The conditions of a graph against dense boolean products and against the Jacobian of networks that are run."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from hdnn_dist import HDNN, CommunicationGraph, cli, connect, place
from hdnn_dist.analysis.conditions import check
from hdnn_dist.analysis.cost import layer_cost
from hdnn_dist.graph.patterns import Pattern

RING = CommunicationGraph.ring(8)
TORUS = CommunicationGraph.torus(9, 8)  # 72 agents: more than a word of 64
FAMILY = ("H2", "H1-J1", "H1-J2", "MS1", "MS2", "MS3", "MLP")


def asymmetric(graph: CommunicationGraph, seed: int) -> Pattern:
    """A random half of the graph's blocks, with the diagonal."""
    whole, random = graph.pattern(), np.random.default_rng(seed)
    kept = (random.random(len(whole)) < 0.5) | (whole.rows == whole.columns)
    return Pattern(graph.agents, whole.rows[kept], whole.columns[kept])


def product(*factors: np.ndarray) -> np.ndarray:
    """The boolean matrix product."""
    result = factors[0].astype(int)
    for factor in factors[1:]:
        result = (result @ factor.astype(int) > 0).astype(int)
    return result.astype(bool)


class TestSingleExchange:
    def test_a_ring_breaks_at_agents_two_apart(self) -> None:
        """Counted by hand: each of 8 agents misses the two agents at distance 2."""
        found = RING.check()
        assert found.distributed
        assert not found.single_exchange
        assert found.breaking.tolist() == sorted([i, (i + d) % 8] for i in range(8) for d in (2, 6))

    def test_a_complete_graph_holds(self) -> None:
        graph = CommunicationGraph.complete(6)
        assert graph.check(R=graph.pattern()).single_exchange

    def test_architectures_without_two_products_need_one_exchange(self) -> None:
        assert all(RING.check(architecture=name).single_exchange for name in ("MS1", "MS2", "MLP"))
        assert not RING.check(architecture="MS3").single_exchange

    @pytest.mark.parametrize("seed", range(3))
    def test_it_is_R_T_T_T_inside_S(self, seed: int) -> None:
        """And, for H2, R^T T^T T inside S, since X^T stands in front of the other half-step."""
        T, R, S = asymmetric(TORUS, seed), asymmetric(TORUS, seed + 10), TORUS.matrix()
        t, r = T.matrix(), R.matrix()
        outside = np.argwhere((product(r, t.T, t) | product(r.T, t.T, t)) & ~S)
        found = TORUS.check(T, R)
        np.testing.assert_array_equal(found.breaking, outside)

    def test_a_pattern_outside_the_graph_is_refused_with_its_pair(self) -> None:
        found = RING.check(T=Pattern.from_pairs(8, [(i, (i + 2) % 8) for i in range(8)]))
        assert not found.distributed
        assert "T has block (0, 2), but agents 0 and 2 are not neighbours" in (found.refusal or "")
        assert found.cost is None
        assert "R has block (0, 3)" in (RING.check(R=np.eye(8) + np.eye(8, k=3)).refusal or "")


class TestReach:
    @pytest.mark.parametrize("layers", [1, 2, 3])
    def test_h2_in_dense_products(self, layers: int) -> None:
        """p sees q through R^T T^T T, then q sees the new p through R T^T T; here from p or q to p or q."""
        T, R = asymmetric(TORUS, 1), asymmetric(TORUS, 2)
        t, r = T.matrix(), R.matrix()
        p, q = np.eye(72, dtype=bool), np.eye(72, dtype=bool)
        pairs = [72]
        for _ in range(layers):
            p = p | product(r.T, t.T, t, q)
            q = q | product(r, t.T, t, p)
            pairs.append(int((p | q).sum()))
        found = TORUS.check(T, R, layers)
        np.testing.assert_array_equal(found.influence, p | q)
        assert found.pairs.tolist() == pairs

    @settings(max_examples=25, deadline=None)
    @given(st.sampled_from(FAMILY), st.integers(1, 3), st.integers(0, 1000), st.sampled_from([None, "euler"]))
    def test_it_is_the_sparsity_of_the_jacobian(self, name: str, layers: int, seed: int, scheme: str | None) -> None:
        """Every pair that is named can be seen in the Jacobian of a random network, and no other."""
        graph = CommunicationGraph.tree(2, 3) if seed % 2 else CommunicationGraph.grid(3, 4)
        T = None if name == "MS2" else asymmetric(graph, seed)
        found = check(graph, T, None, layers, architecture=name, scheme=scheme)
        np.testing.assert_array_equal(found.influence, seen(graph, name, layers, T, seed, scheme, slice(None)))

    @pytest.mark.parametrize("half", [0, 1])
    @pytest.mark.parametrize("name", ["H2", "MS1", "MS3"])
    def test_it_matters_which_half_an_input_enters(self, name: str, half: int) -> None:
        graph = CommunicationGraph.path(9)
        enters = np.zeros((2, 9), dtype=bool)
        enters[half] = True
        found = check(graph, layers=2, architecture=name, enters=enters)
        columns = slice(2 * half, 2 * half + 2)
        np.testing.assert_array_equal(found.influence, seen(graph, name, 2, None, 0, None, columns))
        assert found.influence.sum() != check(graph, layers=2, architecture=name, enters=~enters).influence.sum()

    def test_which_inputs_the_readout_misses(self) -> None:
        """On a path, a layer of H1 carries two edges far: at agent 0, three layers see agents 0 to 6."""
        found = CommunicationGraph.path(10).check(layers=3, architecture="H1-J1")
        assert found.unreached([0]).tolist() == [7, 8, 9]
        assert found.unreached([0], [2, 7]).tolist() == [7]
        assert found.unreached([0, 9]).tolist() == []

    def test_it_stops_where_nothing_changes_any_more(self) -> None:
        found = RING.check(layers=100_000)
        assert found.pairs[[0, 1, -1]].tolist() == [8, 64, 64]
        assert found.settled == 1
        assert len(found.pairs) == 100_001


def seen(
    graph: CommunicationGraph, name: str, layers: int, T: Pattern | None, seed: int, scheme: str | None, columns: slice,
    **network: object,
) -> np.ndarray:  # fmt: skip
    """(agents, agents): where the Jacobian of a network with 4 features an agent has a block that is not zero."""
    net = HDNN(
        place(graph, connect("local")), 4, layers, 0.7, name, seed,
        pattern=T, scheme=scheme, dtype=torch.float64, **network,
    )  # fmt: skip
    x = torch.as_tensor(np.random.default_rng(seed).standard_normal((1, 4 * graph.agents)))
    rows = [net.tangent(x, dx.unsqueeze(0))[1][0] for dx in torch.eye(4 * graph.agents, dtype=torch.float64)]
    blocks = torch.stack(rows, dim=1).unflatten(0, (graph.agents, 4)).unflatten(2, (graph.agents, 4))
    return np.asarray((blocks[..., columns] != 0).any(dim=3).any(dim=1))


PATH, STAR = CommunicationGraph.path(6), CommunicationGraph.star(6)
UNION = CommunicationGraph.from_edges(np.unique(np.concatenate([PATH.edges, STAR.edges]), axis=0))


class TestGraphPerLayer:
    @pytest.mark.parametrize("name", FAMILY)
    @pytest.mark.parametrize("scheme", [None, "euler"])
    def test_reach_is_the_sparsity_of_the_jacobian(self, name: str, scheme: str | None) -> None:
        """Which depends on the order of the graphs."""
        for graphs in ([PATH, STAR], [STAR, PATH]):
            found = UNION.check(layers=2, architecture=name, scheme=scheme, graphs=graphs)
            np.testing.assert_array_equal(
                found.influence, seen(UNION, name, 2, None, 1, scheme, slice(None), graphs=graphs)
            )

    def test_after_a_layer_that_changes_nothing_another_graph_may(self) -> None:
        """Only agents 1 and 4 are read, so that on the path they tell their neighbours once, and then nothing new."""
        T = Pattern.from_pairs(6, [(0, 1), (1, 1), (2, 1), (3, 4), (4, 4), (5, 4)])
        chord = CommunicationGraph.from_edges([*PATH.edges.tolist(), (1, 4)])
        found = chord.check(T, layers=3, architecture="H1-J2", graphs=[PATH, PATH, chord])
        assert found.pairs.tolist() == [6, 10, 10, 12]

    def test_pairs_break_it_where_any_layer_does(self) -> None:
        found = UNION.check(layers=2, graphs=[PATH, STAR])
        each = [graph.check().outside for graph in (PATH, STAR)]
        np.testing.assert_array_equal(found.outside, each[0] | each[1])

    def test_the_cost_is_that_of_the_dearest_layer(self) -> None:
        complete = CommunicationGraph.complete(6)
        assert complete.check(layers=2, graphs=[PATH, complete]).cost == complete.check().cost

    def test_a_pattern_outside_the_graph_of_a_layer_is_refused(self) -> None:
        found = UNION.check(T=PATH.pattern(), layers=2, graphs=[PATH, STAR])
        assert "layer 1: T has block (1, 2), but agents 1 and 2 are not neighbours" in (found.refusal or "")
        with pytest.raises(ValueError, match="1 graphs were given for 2 layers"):
            UNION.check(layers=2, graphs=[PATH])


class TestCost:
    def test_it_is_counted_by_hand(self) -> None:
        """H2: 2 half-steps of 2 rounds of 16 messages of 125 floats, twice as wide backward."""
        cost = RING.check().cost
        assert cost is not None
        assert (cost.forward.rounds, cost.forward.messages, cost.forward.bytes) == (4, 64, 64 * 500)
        assert (cost.backward.rounds, cost.backward.messages, cost.backward.bytes) == (4, 64, 64 * 1000)

    def test_rounds_are_those_that_are_made(self) -> None:
        """MS1 has one round a half-step; a coupling that crosses agents takes a third one, an own one none."""
        assert layer_cost(RING, architecture="MS1").forward.rounds == 2
        assert layer_cost(RING, architecture="H1-J1").forward.rounds == 2
        assert layer_cost(RING, architecture="H1-J2").forward.rounds == 3


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"layers": 0}, "layers is 0"),
            ({"T": np.eye(7)}, "T is a pattern of 7 agents, but the graph has 8"),
            ({"R": np.eye(7)}, "R is a pattern of 7 agents, but the graph has 8"),
            ({"architecture": "MS1", "R": np.eye(8)}, "MS1 has J K^T = I and takes no coupling"),
            ({"architecture": "H3"}, "unknown architecture 'H3'"),
        ],
    )
    def test_one_line(self, arguments: dict[str, object], words: str) -> None:
        with pytest.raises(ValueError, match=re.escape(words)):
            RING.check(**arguments)  # type: ignore[arg-type]


def hdnn_dist_check(*pairs: str) -> Result:
    arguments = [argument for pair in pairs for argument in ("--set", pair)]
    return CliRunner().invoke(cli.app, ["check", *arguments], catch_exceptions=False)


class TestCommand:
    def test_the_default_config_passes(self) -> None:
        result = hdnn_dist_check()
        assert (result.exit_code, result.stderr) == (0, "")
        rows = dict(re.split(r"  +", line, maxsplit=1) for line in result.stdout.splitlines())
        assert rows["neighbours alone"].startswith("yes")
        assert "16 pairs of agents that are not neighbours: (0, 2), (0, 6), (1, 3), ..." in rows["single exchange"]
        assert rows["reach"] == "every input can change every agent after 2 of 32 layers"
        assert rows["readout"] == "at 8 agents; sees 2 of 2 agents with an input"
        assert rows["forward, a layer"] == "4 rounds, 64 messages, 32,000 bytes, 4,000 on the busiest edge"

    @pytest.mark.parametrize(
        ("pairs", "words"),
        [
            (("readout.at=[4]", "network.layers=1"), "cannot see the input of 1 of 2 agents: 0; raise network.layers"),
            (("network.pattern=[[0, 2]]",), "T has block (0, 2), but agents 0 and 2 are not neighbours"),
        ],
    )
    def test_what_fails_is_status_1_with_the_reason(self, pairs: tuple[str, ...], words: str) -> None:
        result = hdnn_dist_check(*pairs)
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
        assert "reach" in result.stdout

    @pytest.mark.parametrize(
        ("pair", "words"),
        [
            ("graph=rng:8", "did you mean ring:8"),
            ("readout.at=[9]", "readout.at: agent 9 does not exist: there are 8 agents"),
            ("network.features=3", "an even number, such as 4"),
            ("network.pattern=[[0, 9]]", "network.pattern: agent 9 does not exist"),
            ("network.coupling='J2'", "H2 takes 'I'"),
            ("network.kernel=foo", "unknown kernel 'foo'"),
            ("network.initial=foo", "unknown initial 'foo'"),
            ("readout.loss=hinge", "unknown loss 'hinge'"),
            ("readout.loss=mean_squared_error", "needs targets that are numbers"),
            ("readout.root=8", "readout.root: agent 8 does not exist"),
            ("network.lift=convolution", "needs images"),
            ("placement=metiss", "did you mean 'metis'"),
            ("placement=[0, 0, 0, 0, 2, 2, 2, 2]", "leaves rank 1 without agents"),
            ("penalties.bound=9 network.coupling=trained", "penalties.bound needs a coupling of fixed norm"),
        ],
    )
    def test_wrong_input_is_status_2_in_one_line(self, pair: str, words: str) -> None:
        """What train refuses before it reads data is refused here."""
        result = hdnn_dist_check(*re.split(r" (?=\w+\.)", pair))
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in result.stderr
        assert result.stderr.count("\n") == 1

    def test_a_placement_is_for_as_many_ranks_as_it_names(self) -> None:
        assert hdnn_dist_check("placement=[0, 0, 1, 1, 2, 2, 3, 3]").exit_code == 0

    def test_the_depth_that_a_path_needs(self) -> None:
        """Columns enter p and q of agent 0; a layer carries them 4 edges, so 11 edges take 3 layers."""
        path = ("graph='path:12'", "data.columns={0 = [0, 1]}", "readout.at=[11]")
        assert [hdnn_dist_check(*path, f"network.layers={n}").exit_code for n in (1, 2, 3, 4)] == [1, 1, 0, 0]
