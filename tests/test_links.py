"""The memory of an edge between two ranks of a host: what passes through its rings, and what tells that a side ends."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("numba", reason="shared memory needs numba")
from hdnn_dist.exchange.shared_memory.rings import PARCEL, receive_parcels, send_parcels
from hdnn_dist.exchange.shared_memory.segment import Segment, memory_of, opened

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memory without a name"),
    pytest.mark.alone,
]
MARK = bytes(range(32))
SLOTS, LARGEST, MESSAGES = 4, 20_000, 3000
SOON = 1.0  # seconds in which the end of a process is noticed
WAITED = np.zeros(2, dtype=np.int64)  # nanoseconds so far, and no looks before others are given way
# The other side: argv is the process and the file of this one, what it does, and a seed.
OTHER_SIDE = f"""
import os, sys, time
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_links
segment = test_links.Segment(test_links.opened(int(sys.argv[1]), int(sys.argv[2])), 1, test_links.MARK)
"""
HOLD = "print('ready', flush=True); time.sleep(600)"
SEND = "print('ready', flush=True); test_links.send_all(segment, 7)"
FORK = """
if os.fork() == 0:
    sys.exit()  # and closes what it has got
os.wait()
if (child := os.fork()) == 0:
    time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""


@pytest.fixture
def segment() -> Segment:
    return Segment(memory_of(0, 1), 0, MARK)


@contextlib.contextmanager
def other_side(segment: Segment, does: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has opened the memory, and what it has said first; it is killed, and only then reaped."""
    line = [sys.executable, "-c", OTHER_SIDE + does, str(os.getpid()), str(segment._file)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def messages(seed: int) -> Iterator[np.ndarray]:
    """As many as pass, of random sizes and bytes, both sides the same."""
    numbers = np.random.default_rng(seed)
    for size in numbers.integers(0, LARGEST, MESSAGES):
        yield numbers.integers(0, 256, size, dtype=np.uint8)


def parcel(ring: np.ndarray, data: np.ndarray) -> np.ndarray:
    """(1,) of the bytes that leave, or of the room for those that come."""
    made = np.zeros(1, dtype=PARCEL)
    made["ring"], made["data"], made["bytes"] = ring, data.ctypes.data, data.nbytes
    return made


def pause(chance: random.Random) -> None:
    """Now and then, for longer than the other side spins and yields."""
    if chance.random() < 0.02:
        time.sleep(chance.random() * 0.01)


def send_all(segment: Segment, seed: int) -> None:
    """All messages, at an uneven pace."""
    ring, chance = segment.sender(LARGEST, SLOTS), random.Random(seed)
    for data in messages(seed):
        pause(chance)
        leaving = parcel(ring, data)
        while send_parcels(leaving, WAITED) >= 0:
            pass


def test_messages_arrive_once_in_order_and_whole(segment: Segment) -> None:
    """Those of random sizes, while either side pauses."""
    with other_side(segment, SEND) as (process, _):
        ring, chance = segment.receiver(LARGEST, SLOTS), random.Random(1)
        for data in messages(7):
            pause(chance)
            room = np.empty_like(data)
            coming, limit = parcel(ring, room), time.monotonic() + 60
            while (found := receive_parcels(coming, WAITED))[0] >= 0:
                assert found[1] < 0, "another message is here"
                assert time.monotonic() < limit, "a message is lost"
            np.testing.assert_array_equal(room, data)
        assert receive_parcels(parcel(ring, np.empty(8)), WAITED) == (0, -1), "one came twice"
        assert process.wait(timeout=60) == 0


def test_a_full_ring_waits(segment: Segment) -> None:
    """And goes on when a message was taken, the first one first."""
    theirs = Segment(opened(os.getpid(), segment._file), 1, MARK)
    sender, receiver = segment.sender(64, SLOTS), theirs.receiver(64, SLOTS)
    sent = [np.full(64, number, dtype=np.uint8) for number in range(SLOTS + 1)]
    assert [send_parcels(parcel(sender, data), WAITED) for data in sent] == [-1] * SLOTS + [0]
    room = np.empty(64, dtype=np.uint8)
    for number in range(SLOTS):
        assert receive_parcels(parcel(receiver, room), WAITED) == (-1, 0)
        assert (room == number).all()
    assert send_parcels(parcel(sender, sent[-1]), WAITED) == -1


def test_rings_of_all_sizes_lie_apart(segment: Segment) -> None:
    """In both directions: no two overlap in the file."""
    rings = [
        ring(size, slots) for ring in (segment.sender, segment.receiver) for size in (1, 65, 9000) for slots in (4, 9)
    ]
    places = sorted((int(r["address"]), int(r["address"] + r["slots"] * r["stride"])) for r in rings)
    assert all(end <= start for (_, end), (start, _) in pairwise(places))


def test_a_message_of_another_size_is_left_where_it_is(segment: Segment) -> None:
    theirs = Segment(opened(os.getpid(), segment._file), 1, MARK)
    send_parcels(parcel(segment.sender(64, SLOTS), np.ones(40, np.uint8)), WAITED)
    expected = parcel(theirs.receiver(64, SLOTS), np.zeros(64, np.uint8))
    assert receive_parcels(expected, WAITED) == (0, 40)
    assert receive_parcels(expected, WAITED) == (0, 40)


def test_memory_of_another_edge_is_refused(segment: Segment) -> None:
    with pytest.raises(ValueError, match="not the memory of the edge"):
        Segment(opened(os.getpid(), segment._file), 1, bytes(32))


def test_a_side_that_is_killed_is_seen_before_it_is_reaped(segment: Segment) -> None:
    with other_side(segment, HOLD) as (process, _):
        assert segment.peer_lives()
        process.kill()
        assert ends_soon(segment)
        assert os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None, "a zombie"


def test_a_side_that_is_stopped_lives(segment: Segment) -> None:
    with other_side(segment, HOLD) as (process, _):
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        assert segment.peer_lives()


def test_children_of_a_side_neither_free_nor_keep_its_lock(segment: Segment) -> None:
    """They inherit the file, as the workers of a DataLoader do."""
    with other_side(segment, FORK) as (process, child):
        try:
            assert segment.peer_lives(), "a child that has ended freed the lock"
            process.kill()
            assert ends_soon(segment)
            os.kill(int(child), 0)
        finally:
            os.kill(int(child), signal.SIGKILL)


def ends_soon(segment: Segment) -> bool:
    """Whether the other side is found to have ended in time."""
    limit = time.monotonic() + SOON
    while segment.peer_lives() and time.monotonic() < limit:
        time.sleep(0.01)
    return not segment.peer_lives()
