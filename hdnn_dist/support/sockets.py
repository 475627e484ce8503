"""Which processes are connected with which: their sockets in /proc, joined with the kernel's tables. Linux only."""

from __future__ import annotations

import ipaddress
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hdnn_dist.support.sock_diag import tcp_received, unix_peers

PROC = Path("/proc")
SOCKET = re.compile(r"socket:\[(\d+)\]")
Holders = Mapping[int, frozenset[int]]  # inode -> processes


@dataclass(frozen=True)
class End:
    """One end of a connection: ``holders`` are those of the processes asked about that have it; inode 0 is unknown."""

    inode: int
    address: str
    holders: frozenset[int]


@dataclass(frozen=True)
class Connection:
    """``kind``: "tcp" or "unix"; ``far`` holds nobody where it belongs to a process that was not asked about."""

    kind: str
    near: End
    far: End


@dataclass(frozen=True)
class Sockets:
    """What is seen at one time.

    ``received``: bytes that have arrived at the TCP sockets so far, by inode; ``None`` where the kernel does not tell.
    ``unknown``: process -> how many of its sockets are of a kind that is not looked into.
    """

    connections: list[Connection]
    received: dict[int, int] | None
    unknown: dict[int, int]


def sockets_of(processes: Sequence[int], others: Sequence[int] = ()) -> Sockets:
    """The connections of ``processes`` among each other, with ``others`` and with anybody else.

    ``OSError`` where one of them has ended, or belongs to another user.
    """
    held = {process: _inodes(process) for process in (*processes, *others)}
    holders, rows, unix = _by_inode(held), _tcp_rows(processes), _unix_inodes(processes)
    peers, received = _asked(unix_peers), _asked(tcp_received)
    mine = {inode for process in processes for inode in held[process]}
    found = [*_tcp(rows, holders), *_unix(mine & unix, peers or {}, holders)]
    known = set(rows.values()) | (set() if peers is None else unix)
    return Sockets(
        [connection for connection in found if mine & {connection.near.inode, connection.far.inode}],
        received,
        {process: len(held[process] - known) for process in processes if held[process] - known},
    )


def ancestors(process: int, until: int) -> list[int]:
    """The processes that have started it, nearest first, up to ``until``, which is not one of them."""
    found = []
    while (process := _parent(process)) not in (until, 0, 1):
        found.append(process)
    return found


def _parent(process: int) -> int:
    status = (PROC / str(process) / "stat").read_text()
    return int(status.rpartition(")")[2].split()[1])


def _inodes(process: int) -> set[int]:
    """Of the sockets that it has open."""
    folder = PROC / str(process) / "fd"
    matches = (SOCKET.fullmatch(_link(folder / name)) for name in os.listdir(folder))
    return {int(match[1]) for match in matches if match}


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:  # closed a moment ago
        return ""


def _by_inode(held: Mapping[int, Iterable[int]]) -> Holders:
    holders: dict[int, set[int]] = defaultdict(set)
    for process, inodes in held.items():
        for inode in inodes:
            holders[inode].add(process)
    return {inode: frozenset(processes) for inode, processes in holders.items()}


def _tcp_rows(processes: Sequence[int]) -> dict[tuple[str, str], int]:
    """(local, remote) address -> inode, of everything in the network namespaces of these processes."""
    rows = {}
    for process in processes:
        for name in ("tcp", "tcp6"):
            for fields in _table(process, name):
                if fields[9] != "0":  # of a process; none is left that waits for its time to end
                    rows[_address(fields[1]), _address(fields[2])] = int(fields[9])
    return rows


def _unix_inodes(processes: Sequence[int]) -> set[int]:
    return {int(fields[6]) for process in processes for fields in _table(process, "unix")}


def _table(process: int, name: str) -> list[list[str]]:
    """The fields of each row; nothing where this kernel does not speak it."""
    path = PROC / str(process) / "net" / name
    return [line.split() for line in path.read_text().splitlines()[1:]] if path.exists() else []


def _address(text: str) -> str:
    """``0100007F:8505``, words of the machine's own order, as 127.0.0.1:34053."""
    host, port = text.split(":")
    words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
    address = ipaddress.ip_address(b"".join(words))
    inner = getattr(address, "ipv4_mapped", None)
    return f"{inner or address}:{int(port, 16)}"


def _tcp(rows: Mapping[tuple[str, str], int], holders: Holders) -> Iterator[Connection]:
    """Each connection once; a socket that listens is none."""
    for (local, remote), inode in rows.items():
        other = rows.get((remote, local), 0)
        if not remote.endswith(":0") and (local < remote or not other):
            yield Connection("tcp", _end(inode, local, holders), _end(other, remote, holders))


def _unix(inodes: Iterable[int], peers: Mapping[int, int], holders: Holders) -> Iterator[Connection]:
    for inode in inodes:
        other = peers.get(inode, 0)
        if other and (inode < other or other not in inodes):
            yield Connection("unix", _end(inode, "", holders), _end(other, "", holders))


def _end(inode: int, address: str, holders: Holders) -> End:
    return End(inode, address, holders.get(inode, frozenset()))


def _asked(question: Callable[[], dict[int, int]]) -> dict[int, int] | None:
    """What the kernel answers; ``None`` where it does not."""
    try:
        return question()
    except OSError:
        return None
