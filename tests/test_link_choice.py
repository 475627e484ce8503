"""What carries an edge is chosen edge by edge, the same by both of its ranks, and changes no number."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import linked_ranks
import pytest
from jobs import by_hand, run

pytest.importorskip("numba", reason="shared memory needs numba")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux")
SCRIPT = str(Path(linked_ranks.__file__))
RANKS, STEPS = 4, 3
SHARED, GLOO = "shared memory", "gloo"
TINY_SHM = 'mount -t tmpfs -o size=4k tmpfs /dev/shm && exec "$@"'
NO_SHM = 'mount -t tmpfs -o ro tmpfs /dev/shm && exec "$@"'
ALONE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def ring(of: str) -> dict[int, dict[str, str]]:
    """Rank -> peer -> link, all the same."""
    return {rank: {str(peer): of for peer in {(rank - 1) % RANKS, (rank + 1) % RANKS}} for rank in range(RANKS)}


def said(lines: str) -> dict[int, dict[str, Any]]:
    """Rank -> what it has found."""
    found = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return {rank["rank"]: rank for rank in found}


def trained(*arguments: str, within: dict[int, list[str]] | None = None) -> dict[int, dict[str, Any]]:
    """Rank -> what it says after a few steps, of ranks started by hand."""
    with by_hand(RANKS, SCRIPT, str(STEPS), *arguments, within=within) as ranks:
        outputs = [rank.communicate(timeout=240) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * RANKS, "".join(errors for _, errors in outputs)
    return said("".join(output for output, _ in outputs))


def links(found: dict[int, dict[str, Any]]) -> dict[int, dict[str, str]]:
    return {rank: found[rank]["links"] for rank in sorted(found)}


@pytest.fixture(scope="module")
def usual() -> dict[int, dict[str, Any]]:
    """As ranks of one host train with nothing in their way."""
    return trained("auto")


def same_losses(found: dict[int, dict[str, Any]], usual: dict[int, dict[str, Any]]) -> None:
    for rank, result in usual.items():
        assert found[rank]["losses"] == pytest.approx(result["losses"], rel=1e-5)


def test_ranks_of_one_host_share_the_memory_of_their_edges(usual: dict[int, dict[str, Any]]) -> None:
    """And of no other edge, as the system sees it."""
    assert links(usual) == ring(SHARED)
    edges = {
        rank: sorted("-".join(map(str, sorted((rank, int(peer))))) for peer in usual[rank]["links"]) for rank in usual
    }
    assert {rank: usual[rank]["memory"] for rank in usual} == edges
    assert {rank["kernel"] for rank in usual.values()} == {"fused"}


@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("mpiexec", marks=pytest.mark.slow)])
@pytest.mark.parametrize("asked", ["auto", pytest.param("network", marks=pytest.mark.slow)])
def test_under_a_launcher(launcher: str, asked: str, usual: dict[int, dict[str, Any]]) -> None:
    process = run(launcher, RANKS, SCRIPT, str(STEPS), asked)
    assert process.returncode == 0, process.stderr
    found = said(process.stdout)
    network = GLOO if launcher == "torchrun" else "mpi"
    assert links(found) == ring(SHARED if asked == "auto" else network)
    same_losses(found, usual)


def test_one_rank_that_asks_for_the_network(usual: dict[int, dict[str, Any]]) -> None:
    """Its edges use it, and no other; no memory is shared along them."""
    found = trained("auto", "asks_for_the_network", "1")
    expected = ring(SHARED)
    expected |= {1: {"0": GLOO, "2": GLOO}}
    expected[0]["1"] = expected[2]["1"] = GLOO
    assert links(found) == expected
    assert (found[0]["memory"], found[1]["memory"], found[2]["memory"]) == (["0-3"], [], ["2-3"])
    same_losses(found, usual)


@pytest.mark.parametrize("hindrance", ["no_numba", pytest.param("numba_that_does_not_compile", marks=pytest.mark.slow)])
def test_a_rank_that_cannot_compile(hindrance: str, usual: dict[int, dict[str, Any]]) -> None:
    """All compute the portable pass, and say why."""
    found = trained("auto", hindrance, "2")
    assert found[2]["links"] == {"1": GLOO, "3": GLOO}
    assert found[2]["memory"] == []
    assert {rank["kernel"] for rank in found.values()} == {"torch"}
    for rank in found.values():
        assert any("the slower torch kernel serves" in line for line in rank["warnings"]), rank
    same_losses(found, usual)


@pytest.mark.parametrize("hindrance", ["no_memfd", pytest.param("no_file", marks=pytest.mark.slow)])
def test_a_rank_that_gets_no_memory(hindrance: str, usual: dict[int, dict[str, Any]]) -> None:
    """Of an edge that it would have made it for."""
    found = trained("auto", hindrance, "0")
    assert found[0]["links"] == {"1": GLOO, "3": GLOO}
    assert found[1]["links"] == {"0": GLOO, "2": SHARED}
    same_losses(found, usual)


@pytest.mark.slow
def test_a_rank_that_gets_memory_for_one_edge_of_two(usual: dict[int, dict[str, Any]]) -> None:
    found = trained("auto", "files_for_one_edge", "0")
    assert found[0]["links"] == {"1": SHARED, "3": GLOO}
    assert (found[1]["links"]["0"], found[3]["links"]["0"]) == (SHARED, GLOO)
    same_losses(found, usual)


@pytest.mark.slow
def test_ranks_in_containers_of_their_own(usual: dict[int, dict[str, Any]]) -> None:
    """Those that see other processes talk over the network to them, two in one container through memory."""
    permitted(*ALONE)
    found = trained("auto", within=dict.fromkeys(range(RANKS), ALONE))
    assert links(found) == ring(GLOO)
    same_losses(found, usual)


@pytest.mark.parametrize(
    "mount", [pytest.param(TINY_SHM, id="tiny"), pytest.param(NO_SHM, id="read-only", marks=pytest.mark.slow)]
)
def test_without_dev_shm(mount: str, usual: dict[int, dict[str, Any]]) -> None:
    """Nothing of ours is there."""
    apart = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    permitted(*apart)
    found = trained("auto", within=dict.fromkeys(range(RANKS), apart))
    assert links(found) == ring(SHARED)
    same_losses(found, usual)


@pytest.mark.parametrize("asked", ["auto", pytest.param("network", marks=pytest.mark.slow)])
def test_a_rank_whose_messages_have_another_size(asked: str) -> None:
    """Nobody takes them for what was to come: an edge is named by each."""
    with by_hand(RANKS, SCRIPT, str(STEPS), asked, "another_batch", "1", SECONDS_TO_WAIT="4") as ranks:
        errors = [rank.communicate(timeout=240)[1].strip().splitlines()[-1] for rank in ranks]
    assert all(re.search(r"TransportError: .*rank \d \(such as agent \d -> agent \d\): ", error) for error in errors), (
        errors
    )
    if asked == "auto":
        assert any("its message has another size than was expected" in error for error in errors), errors


def permitted(*line: str) -> None:
    """Skip where the system does not let us."""
    if shutil.which(line[0]) is None:
        pytest.skip(f"needs {line[0]}")
    tried = subprocess.run([*line, "true"], capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode:
        pytest.skip(f"namespaces are not permitted here: {tried.stderr.strip()}")
