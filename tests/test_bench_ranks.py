"""Benchmarks that start ranks: real processes, which take turns, sleep in between and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from jobs import mpiexec
from typer.testing import CliRunner

from hdnn_dist import cli
from hdnn_dist.bench.cases import RANKS, RING_OF_8, Case, Options
from hdnn_dist.bench.group import Group, GroupError
from hdnn_dist.bench.groups import Groups, kinds
from hdnn_dist.bench.launching import Kind
from hdnn_dist.bench.ranks import ONE, Contender, plan

pytestmark = pytest.mark.alone
TWO = Kind(2, "torchrun", "network")
BUILD = {"do": "build", "case": [8, 2, 2, 8]}


def descendants(process: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return [each for child in children for each in (child, *descendants(child))]


def ranks_of(group: Group) -> list[int]:
    """The processes that are ranks; the launcher is none."""
    started = [group.process.pid, *descendants(group.process.pid)]
    lines = {each: Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0") for each in started}
    return [each for each, line in lines.items() if b"python" in line[0] and b"torch.distributed.run" not in line]


def seconds_worked(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until(holds: Callable[[], bool], seconds: float = 20) -> bool:
    began = time.monotonic()
    while not holds() and time.monotonic() - began < seconds:
        time.sleep(0.05)
    return holds()


def is_gone(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


class TestGroup:
    @pytest.mark.parametrize("launcher", ["torchrun", "mpiexec"])
    def test_ranks_sleep_between_their_orders_and_end_with_the_group(self, launcher: str) -> None:
        """Whoever waits for its turn by spinning would take the cores from those that are measured."""
        mpiexec()
        with Group(Kind(2, launcher, "network"), threads=1) as group:
            answers = [*group.ask(BUILD), *group.ask({"do": "steps", "times": 3})]
            assert [answer["rank"] for answer in answers] == [0, 1, 0, 1]
            assert [len(answer["seconds"]) for answer in answers[2:]] == [3, 3]
            ranks = ranks_of(group)
            assert len(ranks) == 2
            before = [seconds_worked(rank) for rank in ranks]
            time.sleep(2)
            assert [seconds_worked(rank) for rank in ranks] == pytest.approx(before, abs=0.1)
        assert until(lambda: all(map(is_gone, ranks)))

    def test_a_rank_that_dies_is_one_line_and_leaves_nothing(self) -> None:
        with Group(TWO, threads=1) as group:
            group.ask(BUILD)
            ranks = ranks_of(group)
            os.kill(ranks[1], signal.SIGKILL)
            with pytest.raises(GroupError) as raised:
                group.ask({"do": "steps", "times": 100})
        assert "\n" not in str(raised.value)
        assert until(lambda: all(map(is_gone, ranks)))

    def test_what_fails_is_noted_and_the_next_starts_anew(self) -> None:
        with Groups(threads=1) as groups:
            assert groups.ask(TWO, "one", do="build", case=[8, 3, 2, 8]) == []
            assert len(groups.ask(TWO, "two", **BUILD)) == 2
        (note,) = groups.notes
        assert note.startswith("no one on 2 ranks under torchrun with links 'network': agent 0 has 3 features")

    def test_a_failure_of_one_process_is_raised(self) -> None:
        with pytest.raises(ValueError, match="one: agent 0 has 3 features"), Groups(threads=1) as groups:
            groups.ask(ONE, "one", do="build", case=[8, 3, 2, 8])


class TestRanks:
    @pytest.mark.slow
    def test_every_launcher_stands_beside_one_process_and_what_fails_is_noted(self) -> None:
        """Four agents on 2 ranks, and on 5, which the launcher starts but the graph cannot take."""
        mpiexec()
        arguments = ["bench", "ranks", "--quick", "--case", "4x2x2x8", "--ranks", "2", "--ranks", "5"]
        result = CliRunner().invoke(cli.app, [*arguments, "--links", "network", "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        rows = json.loads(result.stdout)
        one = rows[0]["milliseconds"]
        assert [(row["ranks"], row["launcher"]) for row in rows[:3]] == [(1, "alone"), (2, "torchrun"), (2, "mpiexec")]
        assert [row["ranks"] for row in rows[3:]] == [1]
        assert all(row["speedup"] == pytest.approx(one / row["milliseconds"]) for row in rows[:3])
        notes = result.stderr.splitlines()
        assert [note.partition(":")[0] for note in notes] == [
            f"no 4x2x2x8 on 5 ranks under {launcher} with links 'network'" for launcher in ("torchrun", "mpiexec")
        ]
        assert all("5 ranks were started for 4 agents" in note for note in notes)

    def test_cases_by_the_number_of_ranks(self) -> None:
        assert plan(Options(1)) == {2: RANKS.full, 8: RING_OF_8.full}
        assert plan(Options(1, ranks=(4,))) == {4: RANKS.full}
        assert plan(Options(1, given=(Case(8, 2, 2, 8),))) == {2: (Case(8, 2, 2, 8),)}
        assert len(plan(Options(1, grid=True))[2]) == 18

    def test_kinds_that_were_asked_for(self) -> None:
        mpiexec()
        assert [*kinds(2, Options(1, launchers=("torchrun",), links=("network",)))] == [TWO]
        assert len([*kinds(2, Options(1))]) == 4

    def test_the_slowest_rank_counts(self) -> None:
        contender = Contender(TWO, "fused", "gloo", times=2)
        contender.take([{"seconds": [1.0, 4.0], "waited": 1.0}, {"seconds": [3.0, 1.0], "waited": 2.0}])
        assert contender.seconds == [3.0, 4.0]
        assert contender.waiting == [pytest.approx(0.2), pytest.approx(0.5)]

    def test_without_a_count_no_share_is_given(self) -> None:
        contender = Contender(TWO, "fused", "gloo", times=1)
        contender.take([{"seconds": [1.0], "waited": None}, {"seconds": [3.0], "waited": 2.0}])
        assert contender.waiting == [None, None]


class TestExchange:
    def test_mpi_beside_the_raw_link(self) -> None:
        mpiexec()
        arguments = ["bench", "exchange", "--quick", "--launcher", "mpiexec", "--links", "network", "--json"]
        result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        rows = json.loads(result.stdout)
        assert [(row["link"], row["bytes"]) for row in rows] == [("mpi", 64), ("mpi", 512)]
        assert all(row["microseconds"] > 0 and row["raw_microseconds"] > 0 for row in rows)

    def test_rows_travel_both_ways_through_raw_memory(self) -> None:
        """The compiled loops of both ranks, on two threads, each with a page of its own of the same memory."""
        raw_memory = pytest.importorskip("hdnn_dist.bench.raw_memory", reason="needs numba")
        memory = np.zeros(64, dtype=np.int64)
        boxes, flags = memory[16:32].reshape(2, 8), memory.ctypes.data + 64 * np.arange(2)
        rows = np.arange(8), np.zeros(8, dtype=np.int64)
        with ThreadPoolExecutor(2) as threads:
            runs = [threads.submit(raw_memory.trade, rows[rank], boxes, flags, rank, 0, 5) for rank in range(2)]
            assert [run.result(60) for run in runs] == [None, None]
        assert rows[1].tolist() == [*range(8)]
        assert memory[[0, 8]].tolist() == [5, 5]
