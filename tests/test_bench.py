"""Benchmarks: each runs and has its columns, and what is compared computes the same function. No time is asserted."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner, Result

from hdnn_dist import HDNN, cli
from hdnn_dist.bench import BENCHMARKS, Options, contenders, edgewise, memory
from hdnn_dist.bench.baseline import LARGEST_BYTES, DenseBaseline, dense_baseline, dense_bytes
from hdnn_dist.bench.cases import MEMORY, STEP, Case, Effort, cores
from hdnn_dist.bench.networks import agents_first, build, fixed_pair, halves_first, training_step
from hdnn_dist.bench.probe import Probe, measure
from hdnn_dist.bench.report import Report
from hdnn_dist.bench.timing import Timing, in_turns, threads
from hdnn_dist.bench.work import bare_product, megabytes_moved, product_flops, step_flops

COMMON = {"agents", "features", "layers", "batch", "threads", "kernel"}
TIMED = COMMON | {"milliseconds", "spread_milliseconds"}
MEASURED = TIMED | {"baseline_milliseconds", "speedup", "gflops", "bmm_gflops", "moved_megabytes"}
COLUMNS = {
    "step": MEASURED | {"edgewise_milliseconds", "edgewise_speedup"},
    "loop": TIMED | {"propagation_milliseconds", "ratio"},
    "memory": COMMON | {"architecture", "peak_megabytes", "ratio", "stored_states", "formula_megabytes"},
    "agents": MEASURED | {"microseconds_per_agent_layer", "ratio", "build_seconds"},
    "depth": MEASURED | {"microseconds_per_layer", "ratio"},
    "threads": MEASURED | {"threads_speedup"},
    "ranks": TIMED | {"ranks", "launcher", "links", "link", "speedup", "least_waiting_share", "most_waiting_share"},
    "checkpoint": COMMON | {"stands_still_milliseconds", "copy_milliseconds", "ratio", "kept_megabytes"},
    "exchange": {"launcher", "links", "link", "bytes", "microseconds", "raw_microseconds", "ratio"},
}
ONE_GROUP = {name: ["--launcher", "torchrun", "--links", "auto"] for name in ("ranks", "exchange")}
SMALL = Case(8, 4, 3, 5)


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["bench", *arguments], catch_exceptions=False)


def rows_of(*arguments: str) -> list[dict[str, Any]]:
    result = bench(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


class TestCommand:
    @pytest.mark.parametrize("name", BENCHMARKS)
    def test_every_benchmark_runs_and_has_its_columns(self, name: str) -> None:
        if name == "memory" and sys.platform != "linux":
            pytest.skip("reads and resets the peak in /proc")
        rows = rows_of(name, "--quick", *ONE_GROUP.get(name, []))
        assert rows
        assert all(row.keys() >= COLUMNS[name] for row in rows)
        assert all(row.keys() == rows[0].keys() for row in rows)
        assert all(value > 0 for row in rows for key, value in row.items() if key in COLUMNS[name] & {"milliseconds"})

    def test_a_case_of_ones_own(self) -> None:
        """It replaces the benchmark's cases; both other contenders of the step are beside it."""
        (row,) = rows_of("step", "--quick", "--case", "5x4x3x2", "--threads", "1")
        assert [row[name] for name in ("agents", "features", "layers", "batch", "threads")] == [5, 4, 3, 2, 1]
        assert row["speedup"] == pytest.approx(row["baseline_milliseconds"] / row["milliseconds"])
        assert row["gflops"] == pytest.approx(step_flops(Case(5, 4, 3, 2)) / row["milliseconds"] / 1e6)

    def test_the_table_names_the_machine_and_is_markdown(self) -> None:
        result = bench("depth", "--quick")
        machine, empty, head, rule, *body = result.stdout.splitlines()
        assert f"{cores()} cores, torch {torch.__version__}" in machine
        assert "kernel" in machine
        assert empty == ""
        assert head.startswith("| agents | features | layers |")
        assert set(rule) == set("| -:")
        assert len({line.count("|") for line in (head, rule, *body)}) == 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["stop"], "unknown benchmark 'stop': did you mean 'step'?"),
            (["step", "--threads", "0"], "threads is 0: expected 1 to "),
            (["threads", "--threads", "100000"], "threads is 100000: expected 1 to "),
            (["step", "--case", "8x2x4"], "case '8x2x4': expected AGENTSxFEATURESxLAYERSxBATCH"),
            (["depth", "--case", "8x2x0x4"], "case '8x2x0x4': expected"),
            (["step", "--case", "2x2x4x8"], "ring:2"),
            (["ranks", "--ranks", "1"], "ranks is 1: expected a whole number of at least 2"),
            (["ranks", "--launcher", "mpirum"], "unknown launcher 'mpirum': there are torchrun, mpiexec"),
            (["exchange", "--links", "netwrok"], "unknown links 'netwrok': did you mean 'network'?"),
            (["step", "--ranks", "2"], "--ranks says nothing to 'bench step': leave it out"),
            (["exchange", "--case", "8x2x4x8"], "--case says nothing to 'bench exchange': leave it out"),
            (["ranks", "--case", "2x2x4x8"], "2x2x4x8: ring:2"),
            (["step", "--case", "8x3x4x8"], "agent 0 has 3 features"),
        ],
    )
    def test_wrong_input_ends_in_one_line(self, arguments: list[str], message: str) -> None:
        result = bench(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def net() -> HDNN:
    built = build(SMALL, dtype=torch.float64)
    with torch.no_grad():  # biases are drawn as zeros
        built.weights += 0.1 * torch.randn(built.weights.shape, generator=torch.Generator().manual_seed(1))
    return built


def passed(module: torch.nn.Module, x: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(output, gradient of the input); gradients of the parameters are left in the module."""
    x = x.clone().requires_grad_()
    y = module(x)
    y.backward(g)
    return y.detach(), x.grad


class TestComparedForms:
    """A ratio between two contenders means something only when both compute the same function."""

    def test_the_baseline_equals_the_network(self, net: HDNN) -> None:
        net.zero_grad()
        x, g = fixed_pair(SMALL, torch.float64)
        y, grad_x = passed(net, x, g)
        dense = dense_baseline(net)
        found = passed(dense, halves_first(x, SMALL.agents), halves_first(g, SMALL.agents))
        for ours, theirs in zip((y, grad_x), found, strict=True):
            torch.testing.assert_close(agents_first(theirs, SMALL.agents), ours, rtol=1e-10, atol=1e-12)
        self._same_weight_gradients(net, dense)

    @staticmethod
    def _same_weight_gradients(net: HDNN, dense: DenseBaseline) -> None:
        """Outside the pattern the baseline's gradients have to be zero, as ours are."""
        K, b = net.fill_dense(net.weights.grad)
        m = len(dense.mask)
        close = {"rtol": 1e-10, "atol": 1e-12}
        for layer in range(net.layers):
            torch.testing.assert_close(dense.Wp[layer].grad, K[layer, :m, :m], **close)
            torch.testing.assert_close(dense.Wq[layer].grad, K[layer, m:, m:], **close)
            torch.testing.assert_close(dense.bp[layer].grad, b[layer, :m], **close)
            torch.testing.assert_close(dense.bq[layer].grad, b[layer, m:], **close)

    def test_message_passing_equals_the_network(self, net: HDNN) -> None:
        pytest.importorskip("torch_geometric")
        x, g = fixed_pair(SMALL, torch.float64)
        peer = edgewise.edgewise(net).double()
        self._take_weights(peer, net)
        found = passed(peer, edgewise.by_agent(x, SMALL.agents), edgewise.by_agent(g, SMALL.agents))
        for ours, theirs in zip(passed(net, x, g), found, strict=True):
            torch.testing.assert_close(theirs, edgewise.by_agent(ours, SMALL.agents), rtol=1e-10, atol=1e-12)

    @staticmethod
    def _take_weights(peer: torch.nn.Module, net: HDNN) -> None:
        K, b, _ = net.dense()
        agents, rows = SMALL.agents, SMALL.features // 2
        blocks = K.view(len(K), 2, agents, rows, 2, agents, rows)
        edges = zip(net.pattern.rows.tolist(), net.pattern.columns.tolist(), strict=True)
        with torch.no_grad():
            for edge, (i, k) in enumerate(edges):
                for number in range(2 * len(K)):
                    layer, half = divmod(number, 2)
                    peer.K[number][edge] = blocks[layer, half, i, :, half, k]
            for number, bias in enumerate(b.reshape(2 * len(b), agents, rows)):
                peer.b[number].copy_(bias)

    def test_large_dense_weights_are_left_out_and_named(self) -> None:
        small, large = STEP.full[0], STEP.full[-1]
        assert dense_bytes(large) > LARGEST_BYTES >= dense_bytes(STEP.full[-2])
        notes = contenders.left_out((small, large))
        assert str(large) in notes[0]
        assert not any(str(small) in note for note in notes)

    def test_deep_dense_memory_is_left_out_and_named(self) -> None:
        """About 3 states a layer: 199 MB were measured at 64 layers."""
        shallow, deep = MEMORY.full[0], MEMORY.full[-1]
        assert memory.dense_bytes(shallow) == pytest.approx(199e6, rel=0.05)
        (note,) = memory.left_out((shallow, deep))
        assert str(deep) in note

    def test_dense_bytes_are_those_of_the_weights(self, net: HDNN) -> None:
        dense = dense_baseline(net)
        assert sum(W.numel() for W in [*dense.Wp, *dense.Wq]) * 4 == dense_bytes(SMALL)


class TestWork:
    def test_flops_of_a_known_case(self) -> None:
        """512 agents, 8 x 24 times 24 x 128: 2 * 8 * 24 * 128 an agent; 8 products, 2 half-steps, 16 layers."""
        assert step_flops(Case(512, 16, 16, 128)) == 512 * (2 * 8 * 24 * 128) * 8 * 2 * 16

    def test_flops_of_a_product_are_those_that_torch_counts(self) -> None:
        K, x = torch.ones(8, 2, 6), torch.ones(8, 6, 5)
        with FlopCounterMode(display=False) as counter:
            torch.bmm(K, x)
        assert counter.get_total_flops() == product_flops(SMALL)

    def test_the_bare_product_has_these_shapes(self) -> None:
        assert bare_product(SMALL)().shape == (8, 2, 5)

    def test_bytes_moved(self) -> None:
        """Blocks of 2 x 5 floats; 2 exchanges forward and 2 of double width back; 16 directed edges, 6 half-steps."""
        net = build(SMALL)
        assert megabytes_moved(net, training_step(net, *fixed_pair(SMALL))) == (2 * 5 * 4) * (2 + 4) * 16 * 6 / 1e6


class TestTiming:
    def test_functions_take_turns(self) -> None:
        called: list[str] = []
        timings = in_turns([lambda: called.append("a"), lambda: called.append("b")], Effort(3, 0.0))
        assert "".join(called) == "aabb" + "ababab"  # two calls each to warm up
        assert [len(timing.seconds) for timing in timings] == [3, 3]

    def test_median_spread_and_best(self) -> None:
        timing = Timing([0.005, 0.001, 0.002, 0.003, 0.004])
        assert (timing.milliseconds, timing.spread, timing.best) == (pytest.approx(3), pytest.approx(2), 0.001)

    def test_threads_are_put_back(self) -> None:
        before = torch.get_num_threads()
        with threads(before + 1):
            assert torch.get_num_threads() == before + 1
        assert torch.get_num_threads() == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads and resets the peak in /proc")
class TestMemory:
    def test_stored_states_take_what_the_formula_says(self) -> None:
        """The buffers that do not depend on depth cancel in the difference: 64 states of one, 8 of the other."""
        case = Case(8, 4, 64, 4000)
        every, eighth = (Probe(case, "H1-J1", k, threads=1) for k in (1, 8))
        states, of_eighth = (memory.stored_states(probe) for probe in (every, eighth))
        assert (states, of_eighth) == (64 + 128 / 4000, 8 + 8 * 128 / 4000)
        saved = measure(every).bytes - measure(eighth).bytes
        assert saved == pytest.approx((states - of_eighth) * memory.state_bytes(case), rel=0.1)

    def test_a_process_that_fails_is_reported_with_its_case(self) -> None:
        with pytest.raises(
            OSError, match=r"bench memory 8x3x4x8: its process ended with status 1: ValueError: agent 0"
        ):
            measure(Probe(Case(8, 3, 4, 8), "H2", 1, threads=1))


def test_a_table_leaves_out_empty_columns() -> None:
    rows = [{"agents": 8, "speedup_milliseconds": 1.2345, "left": None, "half": None},
            {"agents": 16, "speedup_milliseconds": 12345.6, "left": None, "half": "x"}]  # fmt: skip
    head, _, first, second = Report(rows).table().splitlines()
    assert head.split() == ["|", "agents", "|", "speedup", "ms", "|", "half", "|"]
    assert first.split() == ["|", "8", "|", "1.23", "|", "-", "|"]
    assert second.split() == ["|", "16", "|", "12346", "|", "x", "|"]


def test_a_plan_measures_what_was_given() -> None:
    assert Options(1).cases(STEP) == STEP.full
    assert Options(1, quick=True).cases(STEP) == STEP.quick
    assert Options(1, quick=True, given=(SMALL,)).cases(STEP) == (SMALL,)
