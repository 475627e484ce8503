"""Several hosts: ranks that only their own network joins, with a firewall round every host, train as one process does.

MPI connects all ranks to each other when it starts, whatever they say later: there the firewall closes once the ranks
have trained for an epoch, and MPI is told to end without a conversation of all. gloo needs no such thing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import failures
import hosts
import pytest
from hosts import PORTS, Hosts, Switch, address, name
from jobs import BIN, mpiexec, started

ROOT = Path(__file__).parents[1]
COUNT = 4
RING = {frozenset((host, (host + 1) % COUNT)) for host in range(COUNT)}
ALL = {frozenset((a, b)) for a in range(COUNT) for b in range(a)}
TIMEOUT, GRACE, HANGS = 6.0, 10.0, 180  # seconds: of the job, for its processes to end, and of this test
OVER_THE_CUT = r"could not \S+ \S+ rank {} \(such as agent \d -> agent \d\): "
# METIS would be free to give neighbouring agents to hosts without a link.
SETTINGS = ["dtype=float64", "epochs=3", "network.layers=2", "data.samples=300", "placement=contiguous"]
ENDS_ALONE = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp", "MPIR_CVAR_NO_COLLECTIVE_FINALIZE": "1"}


@pytest.fixture(scope="module", autouse=True)
def permitted() -> None:
    if reason := hosts.why_not():
        pytest.skip(reason)


def training(folder: Path, *settings: str) -> list[str]:
    """The main job, with its run folder."""
    keys = [word for key in [*SETTINGS, *settings] for word in ("--set", key)]
    return ["-m", "hdnn_dist", "train", *keys, "--run-dir", str(folder)]


@contextlib.contextmanager
def over_gloo(network: Hosts, ranks: int, job: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each rank, so many on each host, and no launcher."""
    meeting = {"MASTER_ADDR": name(0), "MASTER_PORT": str(PORTS[0]), "WORLD_SIZE": str(ranks)}
    about = {**os.environ, "OMP_NUM_THREADS": "1", **meeting}
    lines = [[*network.on(rank * COUNT // ranks), sys.executable, *job] for rank in range(ranks)]
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(started(line, {**about, "RANK": str(rank)})) for rank, line in enumerate(lines)]


@contextlib.contextmanager
def over_mpi(network: Hosts, ranks: int, job: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """MPICH's mpiexec on the network of host 0, which starts its proxy on each host as it would by ssh."""
    about = {**os.environ, **ENDS_ALONE, "OMP_NUM_THREADS": "1", "MPIEXEC_PORT_RANGE": f"{PORTS[0]}:{PORTS[-1]}"}
    with tempfile.TemporaryDirectory() as folder:
        launcher = Path(folder) / "launcher"
        launcher.write_text(instead_of_ssh(network))
        launcher.chmod(0o755)
        start = [hydra(), "-launcher", "ssh", "-launcher-exec", str(launcher), "-localhost", address(0)]
        where = ["-hosts", ",".join(map(name, range(COUNT))), "-ppn", str(ranks // COUNT), "-n", str(ranks)]
        line = [*network.on(0, "net"), *start, *where, sys.executable, "-m", "mpi4py", *job]
        with started(line, about) as process:
            yield [process]


def hydra() -> str:
    """The mpiexec of MPICH; the test is skipped where it is another's."""
    found = mpiexec()
    version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=HANGS).stdout
    return found if "HYDRA" in version else pytest.skip(f"{found} is not the mpiexec of MPICH")


def instead_of_ssh(network: Hosts) -> str:
    """A shell script that is called as ssh is: [-x] HOST COMMAND."""
    ways = [f'{name(host)}) exec {shlex.join(network.on(host))} sh -c "$*" ;;' for host in range(network.count)]
    return "\n".join(["#!/bin/sh", '[ "$1" != -x ] || shift', "host=$1", "shift", "case $host in", *ways, "esac", ""])


OVER = {"gloo": over_gloo, "mpi": over_mpi}
AT_FIRST = {"gloo": RING, "mpi": ALL}


def ended(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What each has written, once all have ended."""
    return ["".join(process.communicate(timeout=HANGS)) for process in processes]


def until(happened: Callable[[], bool], processes: list[subprocess.Popen[str]]) -> None:
    """Wait for it, as long as nothing has ended."""
    began = time.monotonic()
    while not happened():
        assert all(process.poll() is None for process in processes), ended(processes)
        assert time.monotonic() - began < HANGS
        time.sleep(0.05)


def trained(folder: Path) -> bool:
    """Whether an epoch is over."""
    return (metrics := folder / "metrics.jsonl").exists() and metrics.stat().st_size > 0


def nothing(switch: Switch) -> None:
    """Happens to the network."""


def train(how: str, ranks: int, folder: Path, between: Callable[[Switch], object] = nothing) -> tuple[dict, Hosts]:
    """summary.json of a run, and its network; ``between``: what happens to it after the first epoch."""
    with Hosts(COUNT, AT_FIRST[how]) as network, OVER[how](network, ranks, training(folder)) as processes:
        until(lambda: trained(folder), processes)
        network.switch.only(RING)
        between(network.switch)
        said = ended(processes)
        assert [process.returncode for process in processes] == [0] * len(processes), said
    return json.loads((folder / "summary.json").read_text()), network


def check_same(summary: dict, expected: dict, ranks: int) -> None:
    assert summary["ranks"] == ranks
    assert summary["off_graph_messages"] == 0
    assert summary["links"] == links(ranks, "mpi" if summary["transport"] == "mpi" else "gloo")
    for key in ("loss", "test_loss"):
        assert summary[key] == pytest.approx(expected[key], rel=1e-9)
    for key in ("messages_per_step", "bytes_per_step", "bytes_per_edge"):
        assert summary[key] == expected[key]


def links(ranks: int, network: str) -> dict[str, str]:
    """Two ranks of one host share memory, and no others."""
    found: dict[str, list[str]] = {}
    for low, high in sorted(sorted((rank, (rank + 1) % ranks)) for rank in range(ranks)):
        near = low * COUNT // ranks == high * COUNT // ranks
        found.setdefault("shared memory" if near else network, []).append(f"{low}-{high}")
    return {link: " ".join(pairs) for link, pairs in found.items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """summary.json of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    subprocess.run([sys.executable, *training(folder)], check=True, capture_output=True, timeout=HANGS)
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """summary.json of four hosts over gloo."""
    summary, network = train("gloo", COUNT, tmp_path_factory.mktemp("undisturbed") / "run")
    assert not network.switch.refused
    return summary


def test_hosts_on_a_ring_train_to_the_loss_of_one_process(alone: dict, undisturbed: dict) -> None:
    """And nobody tries to reach a host that has no link to its own, but for the meeting."""
    check_same(undisturbed, alone, COUNT)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "ranks"), [("gloo", 8), ("mpi", 4), ("mpi", 8)])
def test_in_every_other_way_too(how: str, ranks: int, alone: dict, tmp_path: Path) -> None:
    summary, network = train(how, ranks, tmp_path / "run")
    check_same(summary, alone, ranks)
    assert how == "mpi" or not network.switch.refused


@pytest.mark.slow
def test_a_slow_link_that_loses_packets_changes_nothing_but_the_time(undisturbed: dict, tmp_path: Path) -> None:
    summary, network = train("gloo", COUNT, tmp_path / "run", lambda switch: switch.slow(1, 2, 0.005, 0.01))
    assert network.switch.lost > 0
    assert summary["seconds_per_step"] > undisturbed["seconds_per_step"]
    same = [key for key in summary if not key.startswith("seconds")]
    assert {key: summary[key] for key in same} == {key: undisturbed[key] for key in same}  # bit for bit


@pytest.mark.slow
def test_the_script_for_slurm_starts_torchrun_on_all_hosts(alone: dict, tmp_path: Path) -> None:
    """Something in the place of srun starts them. torchrun opens a port of its own choice on the first host."""
    job = [str(ROOT / "launch" / "slurm_torchrun.sh"), *training(tmp_path / "run", "timeout=60")[3:]]
    links, here = RING | {frozenset((0, 2))}, ["env", f"--chdir={ROOT}"]
    with Hosts(COUNT, links) as network, started([*here, *job], slurm(network, tmp_path)) as process:
        (said,) = ended([process])
    assert process.returncode == 0, said
    assert not network.switch.refused
    check_same(json.loads((tmp_path / "run" / "summary.json").read_text()), alone, 2 * COUNT)


def slurm(network: Hosts, folder: Path) -> dict[str, str]:
    """The variables of a job of Slurm on these hosts, with srun and scontrol."""
    everywhere = [f'{shlex.join(network.on(host))} --chdir="$PWD" "$@" &' for host in range(COUNT)]
    options = 'while [ "${1#--}" != "$1" ]; do shift; done'
    waits = ["wait -n || exit" for _ in range(COUNT)]
    for tool, lines in {"srun": [options, *everywhere, *waits], "scontrol": [f"echo {name(0)}"]}.items():
        (folder / tool).write_text("\n".join(["#!/bin/bash", *lines, ""]))
        (folder / tool).chmod(0o755)
    about = {
        "SLURM_JOB_ID": str(PORTS[0] - 20000),
        "SLURM_JOB_NUM_NODES": str(COUNT),
        "SLURM_JOB_NODELIST": "host[0-3]",
    }
    path = {"PATH": f"{folder}:{BIN}:{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent)}
    return {**os.environ, **path, **about, "SLURM_CPUS_PER_TASK": "2", "OMP_NUM_THREADS": "1"}


def fail(how: str, folder: Path, between: Callable[[Switch], object], *settings: str) -> list[str]:
    """What each process wrote of a run that ends within the timeout after what happens to its network."""
    job = training(folder, "epochs=1000", f"timeout={TIMEOUT}", *settings)
    with Hosts(COUNT, AT_FIRST[how]) as network, OVER[how](network, COUNT, job) as processes:
        until(lambda: trained(folder), processes)
        network.switch.only(RING)
        between(network.switch)
        began = time.monotonic()
        said = ended(processes)
        assert time.monotonic() - began < TIMEOUT + GRACE, said
        assert all(process.returncode not in (0, None) for process in processes), said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("how", OVER)
def test_a_link_that_is_cut_ends_every_rank_in_time(how: str, tmp_path: Path) -> None:
    """Over MPI mpiexec ends the others with the first that has waited too long."""
    said = fail(how, tmp_path / "run", lambda switch: switch.cut(1, 2))
    if how == "mpi":
        assert re.search(OVER_THE_CUT.format("[12]"), said[0]), said
    else:
        assert re.search(OVER_THE_CUT.format(2), said[1]), said
        assert re.search(OVER_THE_CUT.format(1), said[2]), said
        assert all("hdnn-dist: failed: " in line for line in said), said


def test_agents_whose_hosts_have_no_link_are_told_so(tmp_path: Path) -> None:
    job = training(tmp_path / "run", "graph=complete:8", f"timeout={TIMEOUT}")
    with Hosts(COUNT, RING) as network, over_gloo(network, COUNT, job) as processes:
        said = ended(processes)
    assert all(process.returncode == 1 for process in processes), said
    assert re.search(r"could not .* rank 2 .*; host0 and host2 have not met yet", said[0]), said
    assert network.switch.refused[0, 2] + network.switch.refused[2, 0] > 0


def test_mpi_that_a_firewall_keeps_from_starting_ends_in_time() -> None:
    job = [failures.__file__, "nothing", "never", "mpi"]
    with Hosts(COUNT, RING) as network, over_mpi(network, COUNT, job) as (mpi,):
        (said,) = ended([mpi])
    assert mpi.returncode not in (0, None)
    assert f"the other ranks have not started mpi within {failures.TIMEOUT:g} s" in said
