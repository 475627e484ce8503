"""Where the ranks of torchrun meet: a store of torch's, reached within the timeout, or one line that says why not."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import count
from typing import NamedTuple, TypeVar

import torch.distributed as dist

from hdnn_dist.exchange.ending import GRACE, LONGEST, within
from hdnn_dist.exchange.world import TransportError
from hdnn_dist.support.arguments import one_line

LOOPBACK = ("127.0.0.1", "localhost", "::1")
UNKNOWN_FOR = 30.0  # seconds in which the name of a host may become known
MOST_RANKS = 2**20
FIRST_NAP, LAST_NAP = 1e-3, 0.1  # seconds between two looks
Result = TypeVar("Result")


class Meeting(NamedTuple):
    """A store that all ranks write to and read from, and who this one is; ``about``: as of ``World``."""

    store: dist.Store
    rank: int
    size: int
    about: str = ""

    def part(self, ranks: Sequence[int], called: str) -> Meeting:
        """Of these ranks alone, where this one is among them; ``called``: what no other group is."""
        store = dist.PrefixStore(called, self.store)
        return Meeting(store, ranks.index(self.rank), len(ranks), f" of {called}")


class _Place(NamedTuple):
    """As the launcher's variables say."""

    rank: int
    size: int
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port} (MASTER_ADDR, MASTER_PORT)"


_worlds = count()
_stores: dict[_Place, dist.Store] = {}  # kept while the process lives: it may join again


def duration(seconds: float) -> timedelta:
    """For torch, which counts milliseconds, and takes 0 for no limit."""
    return timedelta(seconds=min(max(seconds, 1e-3), LONGEST))


def meet(timeout: float) -> Meeting:
    """Join the others at the place that torchrun's variables name.

    ``ValueError`` for variables that cannot be, a port that is taken and an unknown host, ``TransportError`` where
    nobody answers in time.
    """
    place = _place()
    if place not in _stores:
        _stores[place] = _store(place, timeout)
    store = _stores[place]
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    world = dist.PrefixStore(f"hdnn_dist/{attempt}/{next(_worlds)}", store)
    if _asked(lambda: world.add(f"joined/{place.rank}", 1), place, timeout) > 1:
        raise ValueError(
            f"a rank {place.rank} is at {place} already: RANK is given twice, or another job has this port; "
            "give each rank its own number, and each job its own port"
        )
    return Meeting(world, place.rank, place.size)


def met_before() -> Meeting:
    """Where the ranks of a group that the user has made have met."""
    store = dist.PrefixStore(f"hdnn_dist/{next(_worlds)}", dist.distributed_c10d._get_default_store())
    return Meeting(store, dist.get_rank(), dist.get_world_size())


def texts(meeting: Meeting, about: str, text: str, timeout: float) -> list[str]:
    """The text of every rank; ``TransportError`` where one does not come in time."""
    found: list[str] = []
    store, limit = meeting.store, time.monotonic() + min(timeout, LONGEST)

    def collect() -> None:
        store.set(f"{about}/{meeting.rank}", text)
        for rank in range(meeting.size):
            _wait(store, f"{about}/{rank}", limit)
            found.append(store.get(f"{about}/{rank}").decode())

    try:
        within(timeout + GRACE, collect)
    except TimeoutError as error:
        raise TransportError(
            f"rank {len(found)} of {meeting.size}{meeting.about} has not come within {timeout:g} s: it has ended, "
            "waits, or was never started; see its output, start as many ranks as WORLD_SIZE says, or raise the timeout"
        ) from error
    except RuntimeError as error:
        raise TransportError(f"rank 0, or torchrun, where the ranks meet, has gone: {one_line(error)[:200]}") from error
    return found


def _wait(store: dist.Store, key: str, limit: float) -> None:
    """Until it is there: torch's own wait writes to the log when it gives up."""
    nap = FIRST_NAP
    while not store.check([key]):
        if time.monotonic() > limit:
            raise TimeoutError
        time.sleep(nap)
        nap = min(2 * nap, LAST_NAP)


def _place() -> _Place:
    size = _number("WORLD_SIZE", 1, MOST_RANKS, "how many ranks there are")
    rank = _number("RANK", 0, size - 1, f"with a WORLD_SIZE of {size}")
    port = _number("MASTER_PORT", 1, 2**16 - 1, "a free port of the host of rank 0")
    return _Place(rank, size, os.environ["MASTER_ADDR"], port)


def _number(name: str, least: int, most: int, about: str) -> int:
    given = os.environ[name].strip()
    if not given.isdecimal() or not least <= int(given) <= most:
        raise ValueError(
            f"{name} is {os.environ[name]!r}: expected a whole number from {least} to {most}, {about}; torchrun sets it"
        )
    return int(given)


def _store(place: _Place, timeout: float) -> dist.Store:
    of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if of_torchrun or place.rank > 0:
        return _call(place, timeout)
    _retry(place, timeout, lambda: socket.getaddrinfo(place.host, place.port))
    return _listen(place, timeout)


def _listen(place: _Place, timeout: float) -> dist.Store:
    """The store of rank 0: on the loopback alone where all ranks are on this machine; torch's listens everywhere."""
    try:
        listener = _listener(place)
    except OSError as error:
        raise ValueError(
            f"rank 0 cannot listen at {place}: {_reason(error)}; choose a port that no other job uses, the same "
            "for every rank"
        ) from error
    here = place.host if place.host in LOOPBACK else "localhost"
    return dist.TCPStore(
        here,
        place.port,
        place.size,
        is_master=True,
        timeout=duration(timeout + LONGEST),  # of its own call to itself, which a busy machine makes slow
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def _listener(place: _Place) -> socket.socket:
    backlog = max(128, place.size)
    if place.host in LOOPBACK:
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        return socket.create_server((place.host, place.port), family=family, backlog=backlog)
    if not socket.has_dualstack_ipv6():
        return socket.create_server(("", place.port), backlog=backlog)
    return socket.create_server(("", place.port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)


def _call(place: _Place, timeout: float) -> dist.Store:
    """As a client of it; torch's own attempts to reach it write a page to the log, and last three timeouts."""
    began = time.monotonic()
    address = place.host, place.port
    _retry(place, timeout, lambda: socket.create_connection(address, timeout=min(timeout, LONGEST)).close())

    def join() -> dist.Store:
        patience = duration(timeout + LONGEST)  # more than is waited for
        return dist.TCPStore(*address, place.size, is_master=False, timeout=patience, wait_for_workers=False)

    return _asked(join, place, max(timeout - (time.monotonic() - began), 1.0))


def _retry(place: _Place, timeout: float, attempt: Callable[[], object]) -> None:
    """Until it succeeds, or the timeout is over: other machines may start later."""
    began = time.monotonic()
    while True:
        try:
            attempt()
            return
        except OSError as error:
            _give_up(place, error, time.monotonic() - began, timeout)
        time.sleep(min(LAST_NAP, timeout))


def _give_up(place: _Place, error: OSError, waited: float, timeout: float) -> None:
    if isinstance(error, socket.gaierror) and waited >= min(timeout, UNKNOWN_FOR):
        raise ValueError(
            f"MASTER_ADDR is {place.host!r}, which this machine does not know ({_reason(error)}): give the name or the "
            "address of the host of rank 0"
        ) from error
    if waited >= timeout:
        raise TransportError(
            f"rank {place.rank} could not reach rank 0, or torchrun, at {place} within {timeout:g} s "
            f"({_reason(error)}): is it running there, and does a firewall let the port through?"
        ) from error


def _asked(question: Callable[[], Result], place: _Place, timeout: float) -> Result:
    """The answer of the store there, if it is one."""
    try:
        return within(timeout, question)
    except (TimeoutError, RuntimeError) as error:
        raise TransportError(
            f"something answers at {place}, but is no meeting point of ours ({one_line(error)[:100]}): another program "
            "has this port; choose another one, the same for every rank"
        ) from error


def _reason(error: OSError) -> str:
    known = isinstance(error.errno, int) and error.errno > 0
    return os.strerror(error.errno) if known else str(error.strerror or error)  # type: ignore[arg-type]
