"""How a world is found, and what the ledger counts. The transports themselves are tested in test_ranks.py."""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import by_hand, run

from hdnn_dist import HDNN, CommunicationGraph, connect, place
from hdnn_dist.exchange.launchers import MPI_SIZE_VARIABLES, TORCHRUN_VARIABLES
from hdnn_dist.exchange.ledger import OffGraphError
from hdnn_dist.exchange.transports.c10d import refuse_devices

RING = CommunicationGraph.ring(8)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*TORCHRUN_VARIABLES, *MPI_SIZE_VARIABLES):
        monkeypatch.delenv(variable, raising=False)


def test_without_a_launcher_this_process_is_the_world() -> None:
    with connect() as world:
        assert (world.transport, world.rank, world.size) == ("local", 0, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("carrier pigeon", "unknown transport 'carrier pigeon'"),
        ("c10d", "needs the environment of torchrun, and RANK, WORLD_SIZE"),
    ],
)
def test_transports_that_cannot_be(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        connect(name)


def test_mpi_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdnn_dist.exchange.transports.mpi", None)
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(ValueError, match=r"transport 'mpi' is not installed .*: pip install 'hdnn-dist\[mpi\]'"):
        connect()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        connect("local", device="cuda")


def test_the_ledger_counts_what_the_formulas_say() -> None:
    """One message per edge, direction, round and half-step; twice as wide in reverse (DESIGN: propagation)."""
    agents = place(RING, connect("local"))
    net = HDNN(agents, 6, layers=5)
    x = torch.zeros(7, net.local_features)
    y = net(x)
    forward = agents.ledger.traffic()
    rounds, block = 5 * 2 * 2, 7 * 3 * 4
    assert forward.messages == rounds * 2 * 8
    assert forward.bytes == forward.messages * block
    assert (forward.edge_bytes == rounds * 2 * block).all()
    y.sum().backward()
    backward = agents.ledger.traffic() - forward
    assert backward.messages == forward.messages
    assert backward.bytes == 2 * forward.bytes
    assert (forward.wire_messages, forward.wire_bytes) == (0, 0)


def test_a_route_off_the_graph_raises_and_is_counted() -> None:
    ledger = place(RING, connect("local")).ledger
    with pytest.raises(OffGraphError, match="agent 2 to agent 4 would leave the graph 'ring:8'"):
        ledger.route(np.array([[0, 1], [2, 4]]), np.array([1, 1]))
    assert ledger.off_graph_messages == 1


SOCKETS = """
import json, os, sys
from pathlib import Path
import torch
from hdnn_dist import HDNN, CommunicationGraph, Readout, connect, place

folder, tree = Path(sys.argv[1]), sys.argv[2]
world = connect(links="network")
if tree == "mesh":
    torch.distributed.barrier()
agents = place(CommunicationGraph.path(world.size), world)
net = HDNN(agents, 2, 2)
head = Readout(agents, net)
head.loss(net(torch.ones(3, 2)), torch.zeros(3, dtype=torch.long)).backward()
files = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
inodes = {os.readlink(file) for file in files if os.path.islink(file)}
lines = [line.split() for table in ("tcp", "tcp6") for line in open(f"/proc/net/{table}").readlines()[1:]]
mine = [line for line in lines if f"socket:[{line[9]}]" in inodes]
port = lambda address: int(address.split(":")[1], 16)
connected = [(port(line[1]), port(line[2])) for line in mine if line[3] == "01"]
listening = [line[1].split(":")[0] for line in mine if line[3] == "0A"]
head.everyone.sum(torch.zeros(1))
(folder / f"{world.rank}.json").write_text(json.dumps([connected, listening]))
head.everyone.sum(torch.zeros(1))
world.close()
"""


def connections(folder: Path, ranks: int, kind: str, *extra: str, **environment: str) -> set[tuple[int, int]]:
    """Pairs of ranks with an open connection between them, while a network trains on the path 0 - 1 - 2 - ..."""
    script = folder / "sockets.py"
    script.write_text(SOCKETS)
    process = run("torchrun", ranks, str(script), str(folder), kind, **environment)
    assert process.returncode == 0, process.stderr
    ends = [{tuple(pair) for pair in json.loads((folder / f"{r}.json").read_text())[0]} for r in range(ranks)]
    return {
        (a, b) for a, b in combinations(range(ranks), 2) if any((there, here) in ends[b] for here, there in ends[a])
    }


TWICE = """
import sys
import torch
from hdnn_dist import CommunicationGraph, connect, place

if sys.argv[1] == "own":
    torch.distributed.init_process_group("gloo")
for graph in (CommunicationGraph.ring(4), CommunicationGraph.path(4)):
    with connect(timeout=60) as world:
        place(graph, world)
"""


@pytest.mark.parametrize(
    ("launcher", "group"),
    [("torchrun", "ours"), pytest.param("torchrun", "own", marks=pytest.mark.slow), ("mpiexec", "ours")],
)
def test_ranks_may_join_twice(launcher: str, group: str, tmp_path: Path) -> None:
    """What they told each other the first time is not taken for an answer."""
    script = tmp_path / "twice.py"
    script.write_text(TWICE)
    process = run(launcher, 2, str(script), group)
    assert process.returncode == 0, process.stderr


def test_ranks_may_join_twice_without_a_launcher() -> None:
    with by_hand(2, "-c", TWICE, "ours") as ranks:
        errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "soon"])
def test_a_timeout_that_is_none(timeout: object) -> None:
    with pytest.raises(ValueError, match=r"timeout is .*: expected a finite number greater than 0"):
        connect("local", timeout=timeout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/net/tcp")
def test_gloo_connects_along_graph_edges_only(tmp_path: Path) -> None:
    """At the operating system's level: contract 4."""
    assert connections(tmp_path, 5, "path") == {(0, 1), (1, 2), (2, 3), (3, 4)}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/net/tcp")
def test_the_socket_test_would_see_a_full_mesh(tmp_path: Path) -> None:
    """Without lazy connections gloo joins everybody: what the test above must be able to see."""
    seen = connections(tmp_path, 4, "mesh", TORCH_GLOO_LAZY_INIT="0")
    assert seen == set(combinations(range(4), 2))


def test_ranks_on_gpus_of_their_own() -> None:
    """By host and device: two hosts have a cuda:0 each."""
    refuse_devices(["a", "a", "b"], ["cuda:0", "cuda:1", "cuda:0"], [2, 2, 1])


@pytest.mark.parametrize(
    ("hosts", "devices", "counts", "message"),
    [
        ("aaba", ["cuda:0", "cuda:1", "cuda:0", "cuda:1"], [2, 2, 1, 2], "ranks 1 and 3 both have cuda:1 of a: start"),
        ("aa", ["cuda:0", "cuda:1"], [1, 1], "rank 1 needs cuda:1 of a, which has 1 GPU: start at most as many ranks"),
        ("ab", ["cuda:0", "cpu"], [1, 0], "rank 0 is on cuda:0, rank 1 on cpu: start at most"),
    ],
)
def test_ranks_without_gpus_of_their_own_are_refused(
    hosts: str, devices: list[str], counts: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        refuse_devices(list(hosts), devices, counts)
