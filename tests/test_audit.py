"""The audit: what is seen of real processes, how it is judged, and ``hdnn-dist audit`` on real ranks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import mpiexec
from typer.testing import CliRunner

from hdnn_dist import cli
from hdnn_dist.analysis.audit.ledger import Accounts, accounts
from hdnn_dist.analysis.audit.pairs import Judge, Look, look
from hdnn_dist.analysis.audit.rank import parts
from hdnn_dist.analysis.cost import layer_cost
from hdnn_dist.exchange.connect import connect
from hdnn_dist.graph import CommunicationGraph
from hdnn_dist.support.shared_memory import segments_of
from hdnn_dist.support.sockets import sockets_of
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is there on Linux only"),
]
SMALL = [word for key in ("network.layers=3", "data.samples=400") for word in ("--set", key)]
LAYERS, BATCH = 3, 125
RING = {"0 - 1", "1 - 2", "2 - 3", "0 - 3"}
MAP = "import mmap, os, sys; m = mmap.mmap(int(sys.argv[1]), 4096); os.close(int(sys.argv[1])); print(flush=True)"


class Processes:
    """Three that sleep, as ranks 0, 1 and 2, with what they were given; the test keeps an end of everything too."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._given: list[list[int]] = [[], [], []]
        self.ranks: list[int] = []

    def tcp(self, one: int, other: int, host: str = "127.0.0.1") -> socket.socket:
        """Connect two of them; the end of ``one``."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, 0), family=family) as server:
            near = socket.create_connection(server.getsockname()[:2])
            far, _ = server.accept()
        return self._give(one, near, other, far)

    def unix(self, one: int, other: int) -> socket.socket:
        """The same by a unix socket."""
        near, far = socket.socketpair()
        return self._give(one, near, other, far)

    def _give(self, one: int, near: socket.socket, other: int, far: socket.socket) -> socket.socket:
        self._given[one].append(self._stack.enter_context(near).fileno())
        self._given[other].append(self._stack.enter_context(far).fileno())
        return near

    def memory(self, name: str, *ranks: int) -> int:
        """Let them share a segment."""
        segment = os.memfd_create(name)
        os.truncate(segment, 4096)
        self._stack.callback(os.close, segment)
        for rank in ranks:
            self._given[rank].append(segment)
        return segment

    def start(self) -> None:
        for given in self._given:
            process = subprocess.Popen(["sleep", "100"], pass_fds=given)
            self._stack.callback(process.wait)
            self._stack.callback(process.kill)
            self.ranks.append(process.pid)

    def judged(self, over_mpi: bool, warm: Look, near: tuple[tuple[int, int], ...] = ((0, 1), (1, 2))) -> list[str]:
        """What is off the graph, by default a path of three."""
        return Judge(self.ranks, near, over_mpi, None).observed(warm, self.look()).off_graph

    def look(self) -> Look:
        return look(self.ranks, [os.getpid()])


@pytest.fixture
def processes() -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(stack)


class TestWhatIsSeen:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_tcp_with_its_bytes(self, processes: Processes, host: str) -> None:
        if ":" in host and not socket.has_dualstack_ipv6():
            pytest.skip("no IPv6 here")
        near = processes.tcp(0, 2, host)
        processes.start()
        warm = processes.look()
        near.sendall(bytes(1000))
        seen = Judge(processes.ranks, [(0, 2)], False, None).observed(warm, processes.look())
        assert {pair: (at.tcp, at.unix, at.carried) for pair, at in seen.pairs.items()} == {(0, 2): (1, 0, 1000)}
        assert not seen.off_graph
        assert not seen.not_judged

    def test_unix_sockets(self, processes: Processes) -> None:
        processes.unix(1, 2)
        processes.start()
        (connection,) = sockets_of(processes.ranks).connections
        assert connection.near.holders | connection.far.holders == set(processes.ranks[1:])

    def test_a_connection_with_a_process_that_is_no_rank(self, processes: Processes) -> None:
        processes.tcp(0, 1)
        processes.start()
        seen = Judge(processes.ranks[:1], [], False, None).observed(
            *[look(processes.ranks[:1], processes.ranks[1:])] * 2
        )
        assert not seen.pairs
        assert dict(seen.beside) == {(0, "the launcher"): 1}

    def test_where_the_ranks_meet_is_no_edge(self, processes: Processes) -> None:
        port = str(processes.tcp(0, 2).getpeername()[1])
        processes.start()
        seen = Judge(processes.ranks, [], False, port).observed(processes.look(), processes.look())
        assert list(seen.meeting) == [(0, 2)]
        assert not seen.pairs
        assert not seen.off_graph

    def test_sockets_of_other_kinds_are_told(self, processes: Processes) -> None:
        processes._given[1].append(processes._stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)).fileno())
        processes.start()
        seen = Judge(processes.ranks, [], False, None).observed(processes.look(), processes.look())
        assert seen.not_judged == ["1 sockets of rank 1 that are neither TCP nor unix sockets"]

    def test_memory_that_is_mapped_and_no_longer_open(self, processes: Processes) -> None:
        segment = processes.memory("mapped", 0)
        processes.start()
        line = [sys.executable, "-c", f"{MAP}; sys.stdin.read()", str(segment)]
        with subprocess.Popen(line, pass_fds=[segment], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as mapping:
            assert mapping.stdout is not None
            mapping.stdout.readline()
            (found,) = segments_of([processes.ranks[0], mapping.pid])
            mapping.communicate()
        assert found.name == "/memfd:mapped"
        assert found.holders == found.writers == {processes.ranks[0], mapping.pid}


class TestHowItIsJudged:
    def test_a_connection_off_the_graph(self, processes: Processes) -> None:
        processes.tcp(0, 1)
        processes.tcp(0, 2)
        processes.start()
        (line,) = processes.judged(False, processes.look())
        assert line == "ranks 0 and 2 are not neighbours, but have TCP connections (1), 0 bytes in the steps"

    def test_one_of_mpi_by_what_it_carries(self, processes: Processes) -> None:
        near = processes.tcp(0, 2)
        processes.start()
        near.sendall(b"at the start")
        warm = processes.look()
        assert not processes.judged(True, warm)
        near.sendall(b"in a step")
        (line,) = processes.judged(True, warm)
        assert line.endswith("TCP connections (1), 9 bytes in the steps")

    def test_a_unix_socket(self, processes: Processes) -> None:
        processes.unix(2, 0)
        processes.start()
        assert len(processes.judged(True, processes.look())) == 1

    def test_shared_memory_of_neighbours(self, processes: Processes) -> None:
        processes.memory("hdnn-dist edge 0-1", 0, 1)
        processes.memory("hdnn-dist edge 1-2", 1, 2)
        processes.start()
        assert not processes.judged(False, processes.look())

    @pytest.mark.parametrize("over_mpi", [False, True])
    def test_shared_memory_of_an_edge_that_another_rank_has(self, processes: Processes, over_mpi: bool) -> None:
        processes.memory("hdnn-dist edge 0-1", 0, 1, 2)
        processes.start()
        lines = processes.judged(over_mpi, processes.look())
        assert "the segment of edge 0-1 is shared by rank 2" in lines

    def test_shared_memory_of_no_edge(self, processes: Processes) -> None:
        processes.memory("hdnn-dist edge 0-2", 0, 2)
        processes.start()
        assert any("edge 0-2" in line for line in processes.judged(True, processes.look()))

    def test_memory_of_others_is_told_under_mpi_and_off_the_graph_elsewhere(self, processes: Processes) -> None:
        processes.memory("of the library", 0, 1, 2)
        processes.start()
        warm = processes.look()
        (line,) = processes.judged(False, warm)
        assert "ranks 0 and 2" in line
        seen = Judge(processes.ranks, [(0, 1), (1, 2)], True, None).observed(warm, warm)
        assert not seen.off_graph
        assert seen.not_judged == [
            "the MPI library's own shared memory /memfd:of the library, of ranks 0, 1, 2: it cannot be told which "
            "pairs use it"
        ]


class TestTheLedger:
    @pytest.mark.parametrize(
        "settings",
        [
            ["network.architecture=H2"],
            ["network.architecture=MS1"],
            ["network.architecture=H1", "network.coupling=trained"],
            ["network.architecture=H1-J2", "network.store_every=2"],
            ["network.architecture=MLP", "network.store_every=5"],
            ["network.architecture=H2", "readout.at=[3]", "network.kernel=torch"],
            ["network.architecture=MS2", "network.store_every=3", "network.kernel=torch"],
        ],
        ids=" ".join,
    )
    def test_parts_add_up(self, settings: list[str]) -> None:
        found = of_one_process([*settings, "network.layers=8", "graph=grid:3x3"])
        assert found.add_up
        assert not found.rest.any()

    def test_a_part_that_is_missing_shows(self) -> None:
        found = of_one_process(["network.layers=2"])
        del found.parts[-1]
        assert not found.add_up

    def test_directions_and_edges_are_those_of_the_traffic(self) -> None:
        job = build(load_config(None, ["network.layers=2"]), CommunicationGraph.ring(8), connect("local"))
        parts(job, *job.train.batch(job.train.inputs.new_zeros(7).long()))
        counts, traffic = job.agents.ledger.directed(), job.agents.ledger.traffic()
        assert counts[..., 0].sum() == traffic.messages
        assert np.array_equal(counts[..., 1].sum(axis=1), traffic.edge_bytes)


def of_one_process(settings: list[str]) -> Accounts:
    config = load_config(None, settings)
    graph = CommunicationGraph.parse(config.graph)
    job = build(config, graph, connect("local"))
    told = parts(job, *job.train.batch(job.train.inputs.new_zeros(7).long()))
    step = {"steps": told["pass"], "wire_messages": 0, "wire_bytes": 0, "copied": 0}
    return accounts(graph, 1, [step], [told])


def audit(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "hdnn_dist", "audit", *SMALL, *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=380, env={**os.environ, **environment})


def check_ring(found: dict[str, Any]) -> None:
    """Four ranks of two agents each, which carry what the formula says."""
    assert found["ranks"] == 4
    assert found["ledger"]["add_up"]
    assert not found["off_graph"]
    on_graph = {pair["ranks"]: pair for pair in found["pairs"] if pair["on_the_graph"] == "yes"}
    assert on_graph.keys() == RING
    cost = layer_cost(CommunicationGraph.ring(8), batch=BATCH)
    forward, backward, readout, step = found["ledger"]["parts"]
    assert [forward["messages"], forward["bytes"]] == [cost.forward.messages, cost.forward.bytes]
    assert [backward["messages"], backward["bytes"]] == [cost.backward.messages, cost.backward.bytes]
    assert step["bytes"] == LAYERS * (forward["bytes"] + backward["bytes"]) + readout["bytes"]
    sent = {(row["from"], row["to"]) for row in found["ledger"]["edges"]}
    assert sent == {(str(one), str(other)) for one in range(8) for other in ((one - 1) % 8, (one + 1) % 8)}


def test_ranks_of_torchrun_have_the_connections_of_the_graph() -> None:
    process = audit("--json", "--links", "network")
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    check_ring(found)
    assert {pair["ranks"] for pair in found["pairs"]} == RING
    assert all(pair["TCP"] == 1 for pair in found["pairs"])
    messages, sent = found["ledger"]["wire"]
    header = (sum(pair["bytes_on_TCP"] for pair in found["pairs"]) - sent) / messages
    assert 0 < header == int(header)  # that of gloo, 144 bytes: each message once, and nothing else


def test_ranks_of_mpiexec_carry_nothing_off_the_graph() -> None:
    mpiexec()
    process = audit("--json", "--transport", "mpi", "--links", "network")
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    check_ring(found)
    carried = {pair["ranks"]: pair["bytes_on_TCP"] for pair in found["pairs"]}
    assert {ranks for ranks, bytes_ in carried.items() if bytes_} == RING
    assert not any(pair["shared_segments"] for pair in found["pairs"])


@pytest.mark.parametrize("transport", ["c10d", pytest.param("mpi", marks=pytest.mark.slow)])
def test_neighbours_share_one_segment_each(transport: str) -> None:
    if transport == "mpi":
        mpiexec()
    process = audit("--json", "--transport", transport)
    assert process.returncode == 0, process.stdout + process.stderr
    found = json.loads(process.stdout)
    check_ring(found)
    on_graph = [pair for pair in found["pairs"] if pair["on_the_graph"] == "yes"]
    assert {pair["link"] for pair in on_graph} == {"shared memory"}
    edges = [f"/memfd:hdnn-dist edge {pair['ranks'].replace(' ', '')}" for pair in on_graph]
    assert [pair["segments"] for pair in on_graph] == [[edge] for edge in edges]
    assert not any(pair["bytes_on_TCP"] for pair in found["pairs"])


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["c10d", "mpi"])
def test_replicas_share_edges_inside_and_nothing_but_sums_between_copies(transport: str) -> None:
    process = audit("--json", "--ranks", "4", "--set", "replicas=2", "--transport", transport)
    assert process.returncode == 0, process.stdout + process.stderr
    found = json.loads(process.stdout)
    assert (found["ranks"], found["replicas"]) == (4, 2)
    assert found["ledger"]["add_up"]
    kinds = {pair["ranks"]: pair["on_the_graph"] for pair in found["pairs"] if pair["on_the_graph"] != "no"}
    assert kinds == {"0 - 1": "yes", "2 - 3": "yes", "0 - 2": "copies", "1 - 3": "copies"}
    for pair in found["pairs"]:
        edge, copies = pair["on_the_graph"] == "yes", pair["on_the_graph"] == "copies"
        segment = [f"/memfd:hdnn-dist edge {pair['ranks'].replace(' ', '')}"]
        assert pair["segments"] == (segment if edge else [])
        assert pair["link"] == ("shared memory" if edge else None)
        assert (pair["ledger_messages"] > 0) == edge
        assert (pair["bytes_on_TCP"] > 0) == copies
    assert found["between_replicas"] > 0
    assert sum(pair["ledger_bytes"] for pair in found["pairs"]) < 3 * found["ledger"]["parts"][-1]["bytes"]


@pytest.mark.slow
def test_the_links_of_an_audit_are_those_of_the_config() -> None:
    process = audit("--json", "--ranks", "2", "--set", "links=network")
    assert [pair["link"] for pair in json.loads(process.stdout)["pairs"]] == ["gloo"]


@pytest.mark.slow
def test_a_full_mesh_of_connections_is_off_the_graph() -> None:
    """As gloo makes it unless it is told not to."""
    process = audit("--links", "network", TORCH_GLOO_LAZY_INIT="0")
    assert process.returncode == 1
    lines = [line for line in process.stdout.splitlines() if line.startswith("OFF THE GRAPH: ")]
    assert [line.partition(" are ")[0] for line in lines] == [
        "OFF THE GRAPH: ranks 0 and 2",
        "OFF THE GRAPH: ranks 1 and 3",
    ]
    assert process.stderr == f"hdnn-dist: {lines[0]}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ranks", "9"], "9 ranks were started for 8 agents"),
        (["--ranks", "3", "--set", "replicas=2"], "replicas is 2, which does not divide 3 ranks"),
        (["--transport", "local"], "unknown transport 'local'"),
        (["--links", "none"], "unknown links 'none'"),
        (["--set", "network.layer=2"], "unknown key 'network.layer'"),
    ],
)
def test_wrong_input_is_refused_before_ranks_are_started(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(cli.app, ["audit", *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"hdnn-dist: error: {said}" if "network.layer=2" not in arguments else "hdnn-dist: error: --set"
    )
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_ranks_refuse_is_said_once_and_nothing_is_left_behind(tmp_path: Path) -> None:
    process = audit("--ranks", "2", "--set", "network.initial=none", TMPDIR=str(tmp_path))
    assert process.returncode == 2
    assert process.stderr.startswith("hdnn-dist: error: ")
    assert "'none'" in process.stderr
    assert process.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("transport", ["c10d", pytest.param("mpi", marks=pytest.mark.slow)])
def test_an_auditor_that_is_killed_leaves_no_rank(transport: str, tmp_path: Path) -> None:
    mpiexec()
    line = [sys.executable, "-m", "hdnn_dist", "audit", *SMALL, "--ranks", "2", "--transport", transport]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([*line, "--steps", "100000"], env=environment) as auditor:
        try:
            wait_for(lambda: bool(list(tmp_path.glob("hdnn-dist-audit-*/warm"))), 300)
        finally:
            auditor.kill()
    told = [json.loads(file.read_text()) for file in tmp_path.glob("hdnn-dist-audit-*/warm-*.json")]
    assert len(told) == 2
    wait_for(lambda: not any(Path(f"/proc/{rank['process']}").exists() for rank in told), 30)


def wait_for(true: Callable[[], bool], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_other_systems_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    result = CliRunner().invoke(cli.app, ["audit"])
    assert result.exit_code == 2
    assert result.stderr == "hdnn-dist: error: audit reads /proc, which Linux has and darwin has not: run it on Linux\n"
