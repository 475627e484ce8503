"""Which pairs of ranks are connected, beside which may be: what the operating system shows, judged by the graph.

A pair is on the graph when an agent of one rank is a neighbour of an agent of the other, in one replica; ranks with
copies of the same agents in two replicas may be connected too. Off the graph is

- a connection or a segment of memory between two ranks whose pair is not, under torch.distributed;
- under MPI, which connects all ranks at its start, a connection that carries anything in the steps;
- the segment of an edge of ours where any other rank has it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from hdnn_dist.support.shared_memory import Segment, segments_of
from hdnn_dist.support.sockets import Connection, Sockets, sockets_of

OURS = re.compile(r"/memfd:hdnn-dist edge (\d+)-(\d+)")
Pair = tuple[int, int]  # of ranks, the lower first


@dataclass(frozen=True)
class Look:
    """What is seen of the ranks at one time."""

    sockets: Sockets
    segments: list[Segment]


@dataclass(frozen=True)
class Seen:
    """Between two ranks: connections of each kind, bytes that they carried in the steps, names of shared segments.

    ``carried``: ``None`` where the kernel does not tell.
    """

    tcp: int = 0
    unix: int = 0
    carried: int | None = 0
    segments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observed:
    """``pairs``: what is seen of each; ``meeting``: the same of where the ranks meet; ``beside``: of other processes.

    ``off_graph``, ``not_judged``: a line each.
    """

    pairs: dict[Pair, Seen]
    meeting: dict[Pair, Seen]
    beside: Counter[tuple[int, str]] = field(default_factory=Counter)
    off_graph: list[str] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)


def look(ranks: Sequence[int], launchers: Sequence[int]) -> Look:
    """At the processes of the ranks, in their order. ``OSError`` where one has ended."""
    return Look(sockets_of(ranks, launchers), segments_of(ranks))


class Judge:
    """``processes``: of each rank; ``near``: the pairs of ranks on the graph; ``port``: where the ranks meet."""

    def __init__(self, processes: Sequence[int], near: Iterable[Pair], over_mpi: bool, port: str | None) -> None:
        self._rank = {process: rank for rank, process in enumerate(processes)}
        self._near, self._over_mpi, self._port = frozenset(near), over_mpi, port

    def observed(self, warm: Look, stepped: Look) -> Observed:
        """What two looks have seen, the one before the steps and the one after them."""
        connections = list(dict.fromkeys([*warm.sockets.connections, *stepped.sockets.connections]))
        carried = _Carried(warm.sockets.received, stepped.sockets.received)
        meeting = [connection for connection in connections if self._of_meeting(connection)]
        others = [connection for connection in connections if not self._of_meeting(connection)]
        segments = [*warm.segments, *(segment for segment in stepped.segments if segment not in warm.segments)]
        pairs = self._pairs(others, segments, carried)
        found = Observed(pairs, self._pairs(meeting, (), carried), self._beside(connections))
        found.off_graph.extend([*self._off_graph(pairs), *self._strangers(segments)])
        found.not_judged.extend([*self._unjudged(pairs), *self._unknown(stepped.sockets)])
        return found

    def _of_meeting(self, connection: Connection) -> bool:
        """By the port, where torchrun's variables name one."""
        ports = {end.address.rpartition(":")[2] for end in (connection.near, connection.far)}
        return connection.kind == "tcp" and self._port in ports

    def _pairs(
        self, connections: Sequence[Connection], segments: Sequence[Segment], carried: _Carried
    ) -> dict[Pair, Seen]:
        joined: dict[Pair, list[Connection]] = {}
        shared: dict[Pair, list[str]] = {}
        for connection in connections:
            for pair in self._between(connection.near.holders, connection.far.holders):
                joined.setdefault(pair, []).append(connection)
        for segment in segments:
            for pair in self._between(segment.holders, segment.writers):
                shared.setdefault(pair, []).append(segment.name)
        both = sorted(joined.keys() | shared.keys())
        return {pair: _seen(joined.get(pair, []), shared.get(pair, []), carried) for pair in both}

    def _between(self, ones: Iterable[int], others: Iterable[int]) -> set[Pair]:
        ranks = [[self._rank[process] for process in some if process in self._rank] for some in (ones, others)]
        return {(min(one, other), max(one, other)) for one in ranks[0] for other in ranks[1] if one != other}

    def _beside(self, connections: Iterable[Connection]) -> Counter[tuple[int, str]]:
        """Connections of ranks with processes that are none: (rank, with whom) -> how many."""
        found: Counter[tuple[int, str]] = Counter()
        for connection in connections:
            for own, other in ((connection.near, connection.far), (connection.far, connection.near)):
                if other.holders & self._rank.keys():
                    continue
                whom = "the launcher" if other.holders else other.address or "another process"
                found.update((self._rank[process], whom) for process in own.holders if process in self._rank)
        return found

    def _off_graph(self, pairs: Mapping[Pair, Seen]) -> Iterator[str]:
        for pair, seen in pairs.items():
            if pair in self._near:
                continue
            strange = [name for name in seen.segments if not (self._over_mpi or OURS.match(name))]
            carries = seen.tcp and (not self._over_mpi or seen.carried)
            what = [
                *[f"TCP connections ({seen.tcp})"] * bool(carries),
                *[f"unix sockets ({seen.unix})"] * bool(seen.unix),
            ]
            what += [f"shared memory {name}" for name in strange]
            if what:
                told = "" if seen.carried is None else f", {seen.carried} bytes in the steps"
                yield f"ranks {pair[0]} and {pair[1]} are not neighbours, but have {', '.join(what)}{told}"

    def _strangers(self, segments: Iterable[Segment]) -> Iterator[str]:
        """Segments of edges that are seen by a rank of no end of the edge, or that belong to no edge."""
        for segment in segments:
            ours = OURS.match(segment.name)
            if ours is None:
                continue
            ends = (int(ours[1]), int(ours[2]))
            outside = sorted({self._rank[process] for process in segment.holders} - set(ends))
            if outside or ends not in self._near:
                who = ", ".join(map(str, outside)) or f"{ends[0]} and {ends[1]}, which are not neighbours"
                yield f"the segment of edge {ends[0]}-{ends[1]} is shared by rank {who}"

    def _unjudged(self, pairs: Mapping[Pair, Seen]) -> Iterator[str]:
        names = {name for seen in pairs.values() for name in seen.segments if self._over_mpi and not OURS.match(name)}
        for name in sorted(names):
            sharing = [pair for pair, seen in pairs.items() if name in seen.segments]
            who = ", ".join(map(str, sorted({rank for pair in sharing for rank in pair})))
            yield f"the MPI library's own shared memory {name}, of ranks {who}: it cannot be told which pairs use it"
        silent = [pair for pair, seen in pairs.items() if pair not in self._near and seen.carried is None]
        if silent and self._over_mpi:
            yield f"{len(silent)} connections off the graph that MPI makes at its start: this kernel counts no bytes"

    def _unknown(self, sockets: Sockets) -> Iterator[str]:
        for process, number in sockets.unknown.items():
            if process in self._rank:
                yield f"{number} sockets of rank {self._rank[process]} that are neither TCP nor unix sockets"


class _Carried:
    """Bytes that have arrived at sockets between two looks."""

    def __init__(self, before: Mapping[int, int] | None, after: Mapping[int, int] | None) -> None:
        self._before, self._after = before, after

    def by(self, connections: Iterable[Connection]) -> int | None:
        """Both ways; ``None`` where the kernel does not tell."""
        if self._before is None or self._after is None:
            return None
        inodes = [end.inode for connection in connections for end in (connection.near, connection.far)]
        return sum(self._after.get(inode, 0) - self._before.get(inode, 0) for inode in inodes if inode in self._after)


def _seen(connections: Sequence[Connection], segments: Sequence[str], carried: _Carried) -> Seen:
    kinds = Counter(connection.kind for connection in connections)
    return Seen(kinds["tcp"], kinds["unix"], carried.by(connections), tuple(sorted(set(segments))))


def neighbours(owner: Sequence[int], edges: Iterable[Pair], replicas: int = 1) -> Counter[Pair]:
    """The pairs of ranks on the graph, and how many ``edges`` of agents each has.

    ``owner``: the rank of each agent, in its replica.
    """
    pairs = [sorted((owner[one], owner[other])) for one, other in edges]
    firsts = range(0, replicas * (max(owner) + 1), max(owner) + 1)
    return Counter((first + low, first + high) for first in firsts for low, high in pairs if low != high)


def copies_of(owner: Sequence[int], replicas: int) -> list[Pair]:
    """The pairs of ranks with copies of the same agents."""
    size = max(owner) + 1
    return [(size * one + place, size * other + place) for place in range(size) for one, other in all_pairs(replicas)]


def all_pairs(ranks: int) -> list[Pair]:
    """Of so many ranks."""
    return list(combinations(range(ranks), 2))
