"""A rank that fails, in whatever way, ends the others within the timeout, with a line that says which, and where."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import failures
import pytest
from jobs import by_hand, free_port, mpiexec, started
from typer.testing import CliRunner

from hdnn_dist.cli import app

pytestmark = pytest.mark.alone
SCRIPT = str(Path(failures.__file__))
HANGS = 90  # seconds: proves that nobody waits for ever; a failure ends within about the timeout of 4 s
LAUNCH = Path(__file__).parents[1] / "launch"
NOT_COME = r"rank 1 of 2 has not come within 4 s"
NO_ANSWER = r"(receive from|send to|exchange with) rank 1 \(such as agent \d -> agent \d\): .+"
IN_A_LAYER = rf"(forward|backward) pass, layer \d, half-step \S+ -> \S+: could not {NO_ANSWER}"
# What the last rank does, and when; what the others say.
CASES = {
    "leave start": NOT_COME,
    "leave connect": NOT_COME,
    "stop connect": NOT_COME,
    "fail place": NOT_COME,
    "stop place": NOT_COME,
    "leave contact": rf"could not {NO_ANSWER}",
    "stop contact": rf"could not {NO_ANSWER}",
    "kill contact": rf"could not {NO_ANSWER}",
    "leave step": IN_A_LAYER,
    "stop step": IN_A_LAYER,
    "kill step": IN_A_LAYER,
    "fail step": IN_A_LAYER,
    "nothing skip": NO_ANSWER,
    "nothing batch": NO_ANSWER,
}
# Where MPI has another way: it starts with a call that knows no rank, and mpiexec ends the job with a rank, whose
# number launch/mpirun.sh tells.
OVER_MPI = {
    "leave start": "the other ranks have not started mpi within 4 s",
    "fail start": "the other ranks have not started mpi within 4 s",
    "fail place": "ZeroDivisionError: a bug of the user",
    "fail step": "ZeroDivisionError: a bug of the user",
    "kill contact": r"Killed \(signal 9\)",
    "kill step": r"Killed \(signal 9\)",
}


def last_line(process: subprocess.Popen[str]) -> str:
    """The end of the traceback of a rank that failed, in time."""
    output, errors = process.communicate(timeout=HANGS)
    assert process.returncode not in (0, None), errors
    assert "done" not in output
    return [line for line in errors.splitlines() if line.strip()][-1]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_over_gloo(case: str) -> None:
    """No launcher ends the others here."""
    with by_hand(2, SCRIPT, *case.split(), "c10d") as (first, _):
        line = last_line(first)
    assert "TransportError: " in line
    assert re.search(CASES[case], line), line


@pytest.mark.slow
@pytest.mark.parametrize("case", {**CASES, **OVER_MPI})
def test_over_mpi(case: str) -> None:
    """Without -m mpi4py: nothing but the package ends the job."""
    line = [mpiexec(), "-n", "2", sys.executable, SCRIPT, *case.split(), "mpi"]
    with started(line, dict(os.environ)) as process:
        output, errors = process.communicate(timeout=HANGS)
    assert process.returncode != 0, errors
    assert "done" not in output
    assert re.search({**CASES, **OVER_MPI}[case], output + errors), errors


def test_a_rank_that_is_gone_before_the_first_contact() -> None:
    """gloo waits for it five of its timeouts."""
    with by_hand(2, SCRIPT, "vanish", "contact", "c10d") as (first, _):
        assert re.search(f"TransportError: could not {NO_ANSWER}", last_line(first))


def test_ranks_of_several_hosts_that_do_not_meet_hear_of_the_interface() -> None:
    patched = f"import runpy, socket, sys, os; socket.gethostname = lambda: 'host' + os.environ['RANK']; \
sys.argv = ['', 'stop', 'contact', 'c10d']; sys.path.insert(0, {str(LAUNCH.parent / 'tests')!r}); \
runpy.run_path({SCRIPT!r}, run_name='__main__')"
    with by_hand(2, "-c", patched) as (first, _):
        assert "host0 and host1 have not met yet" in (line := last_line(first))
    assert "set GLOO_SOCKET_IFNAME to the network interface between them" in line


@pytest.fixture(params=["silent", "rude"])
def foreign_port(request: pytest.FixtureRequest) -> Iterator[str]:
    """A port of another program, which says nothing, or hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        if request.param == "rude":
            threading.Thread(target=hang_up, daemon=True).start()
        yield str(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


def failed(**environment: str) -> str:
    """The only line of ``hdnn-dist train`` for variables with which no job can be."""
    about = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **environment}
    line = [sys.executable, "-m", "hdnn_dist", "train", "--set", "timeout=3", "--run-dir", "/nowhere"]
    with started(line, {**os.environ, **about}) as process:
        _, errors = process.communicate(timeout=HANGS)
    assert process.returncode in (1, 2), errors
    assert "Traceback" not in errors
    (line,) = (line for line in errors.splitlines() if line.startswith("hdnn-dist: "))
    return line


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "2"}, "error: RANK is '2': expected a whole number from 0 to 1"),
        ({"RANK": "-1"}, "error: RANK is '-1': expected"),
        ({"RANK": "one"}, "error: RANK is 'one': expected"),
        ({"WORLD_SIZE": "0"}, "error: WORLD_SIZE is '0': expected a whole number from 1"),
        ({"WORLD_SIZE": ""}, "error: WORLD_SIZE is '': expected"),
        ({"MASTER_PORT": "65536"}, "error: MASTER_PORT is '65536': expected a whole number from 1 to 65535"),
        ({"MASTER_PORT": "http"}, "error: MASTER_PORT is 'http': expected"),
        ({"MASTER_ADDR": "no.such.host"}, "error: MASTER_ADDR is 'no.such.host', which this machine does not know"),
        pytest.param(
            {"MASTER_ADDR": "no.such.host", "RANK": "0"},
            "error: MASTER_ADDR is 'no.such.host', which this machine",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_variables_with_which_no_job_can_be(variables: dict[str, str], said: str) -> None:
    """Seen before a rank joins: by a process that does not go on."""
    about = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **variables}
    result = CliRunner().invoke(app, ["train", "--run-dir", "/nowhere"], env=about)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"hdnn-dist: {said}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "failed: rank 1 could not reach rank 0, or torchrun, at 127.0.0.1:"),
        ({"RANK": "0", "WORLD_SIZE": "3"}, "failed: rank 1 of 3 has not come within 3 s"),
    ],
)
def test_ranks_that_do_not_come(variables: dict[str, str], said: str) -> None:
    assert failed(**variables).startswith(f"hdnn-dist: {said}")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_port_that_another_program_has(rank: str, foreign_port: str) -> None:
    said = failed(RANK=rank, MASTER_PORT=foreign_port)
    if rank == "0":
        assert f"error: rank 0 cannot listen at 127.0.0.1:{foreign_port} (MASTER_ADDR, MASTER_PORT)" in said
    else:
        assert f"something answers at 127.0.0.1:{foreign_port} (MASTER_ADDR, MASTER_PORT), but is no meeting" in said


def test_a_rank_that_comes_twice() -> None:
    about = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    line = [sys.executable, SCRIPT, "nothing", "never", "c10d"]
    with started(line, {**os.environ, **about, "RANK": "0"}) as first:
        with (
            started(line, {**os.environ, **about, "RANK": "1"}) as second,
            started(line, {**os.environ, **about, "RANK": "1"}) as third,
        ):
            lines = {last_line(second), last_line(third)}
        last_line(first)
    assert any("a rank 1 is at" in line for line in lines), lines


@pytest.mark.parametrize("timeout", ["0.001", "1e9"])
def test_timeouts_of_any_size(timeout: str, tmp_path: Path) -> None:
    """A tiny one fails in words; a huge one is none."""
    keys = ["epochs=1", "network.layers=2", "data.samples=100", f"timeout={timeout}"]
    settings = [word for key in keys for word in ("--set", key)]
    with by_hand(2, "-m", "hdnn_dist", "train", *settings, "--run-dir", str(tmp_path / "run")) as ranks:
        errors = [rank.communicate(timeout=HANGS)[1] for rank in ranks]
    assert all("Traceback" not in error for error in errors), errors
    if timeout == "1e9":
        assert [rank.returncode for rank in ranks] == [0, 0], errors
