"""What a transport is: a world of ranks, and channels that carry rows between two buffers of neighbouring ranks."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.exchange.ending import LONGEST, failed
from hdnn_dist.exchange.ledger import OffGraphError, Route
from hdnn_dist.support.arguments import one_line, shown

TAGS = 2**15  # how many there are in any MPI


class TransportError(RuntimeError):
    """An exchange failed or ran out of time; the message names the ranks, the agents and the direction."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        failed()


class Channel(ABC):
    """A fixed exchange between fixed buffers, made once and used in every layer of every step.

    ``sends`` and ``receives`` map a peer rank to a contiguous view (rows, width) of the buffer that is sent to it
    or filled by it. ``waited``: (1,) the nanoseconds that exchanges have waited are added to it.
    """

    waited = np.zeros(1, dtype=np.int64)

    def __init__(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> None:
        strangers = (sends.keys() | receives.keys()) - route.peers.keys()
        if strangers:
            raise OffGraphError(f"no agent here has a neighbour on rank {min(strangers)}: no channel to it")
        self.route = route
        self.sends = dict(sends)
        self.receives = dict(receives)
        self._wire_bytes = sum(part.numel() * part.element_size() for part in self.sends.values())

    def exchange(self, row_bytes: int) -> None:
        """Send and receive everything; returns when all of it has arrived. Counted in the ledger."""
        self.begin(row_bytes)
        self.end()

    def begin(self, row_bytes: int) -> None:
        """Let it go, counted in the ledger; until ``end`` no other exchange may begin."""
        self.count(row_bytes)
        if self.sends or self.receives:
            self.start()

    def end(self) -> None:
        """Return when all of it has arrived."""
        if self.sends or self.receives:
            began = time.monotonic_ns()
            self.finish()
            self.waited[0] += time.monotonic_ns() - began

    def count(self, row_bytes: int) -> None:
        """Tell the ledger of one exchange."""
        self.route.record(row_bytes, len(self.sends), self._wire_bytes)

    @abstractmethod
    def start(self) -> None:
        """Post the receives, then the sends; their buffers belong to the exchange until it is finished."""

    @abstractmethod
    def finish(self) -> None:
        """Wait for all."""

    @contextmanager
    def _naming(self, peer: int, verb: str, *errors: type[Exception]) -> Iterator[None]:
        """What an exchange raises becomes a ``TransportError`` that names the peer and its agents."""
        try:
            yield
        except errors as error:
            raise self._failure(peer, verb, one_line(error)) from error

    def _failure(self, peer: int, verb: str, cause: object) -> TransportError:
        sender, receiver = self.route.peers[peer]
        return TransportError(f"could not {verb} rank {peer} (such as {sender} -> {receiver}): {cause}")


def size_tag(part: Tensor) -> int:
    """The tag of a message of rows (rows, width): one of another size, which gloo would die of, is not taken for it."""
    return part.numel() * part.element_size() % TAGS


def device_named(device: str | torch.device) -> torch.device:
    """That device; ``ValueError`` for none, and for a CUDA device where there is none."""
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {shown(device)}: expected 'cpu', 'cuda' or 'cuda:0'")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(chosen)!r} was asked for, but torch sees no CUDA device here: use 'cpu'")
    return chosen


class World(ABC):
    """The ranks of a job: ``rank`` is this process, ``size`` how many there are, ``device`` where its tensors live.

    ``timeout``: seconds that an exchange waits; ``links``: whether memory that ranks of one host share may carry their
    messages ("auto") or not ("network"). Where the ranks of a job are several ``replicas`` of one group, a world is
    that of the group with the number ``replica``; ``about``: what is said of it behind the number of a rank;
    ``copied``: bytes that this rank has given into sums with its copies so far.
    """

    transport: str
    rank: int
    size: int
    device: torch.device
    timeout: float = LONGEST
    links: str = "auto"
    replica: int = 0
    replicas: int = 1
    about: str = ""
    copied: int = 0
    rank_links: Any = None  # its ``Links``, once agents were placed in it

    @property
    def job(self) -> World:
        """The world of all ranks, those of other replicas among them."""
        return self

    @property
    def network(self) -> str:
        """What its channels go over, in a word."""
        return self.transport

    @abstractmethod
    def channel(self, route: Route, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> Channel:
        """A channel of this transport between views (rows, width). Never name this rank itself as a peer."""

    def texts(self, text: str) -> list[str]:
        """The text of every rank, in their order; every rank has to call it. No message of an agent is sent.

        A transport that cannot do so knows its own alone.
        """
        return [text]

    def part(self, groups: Sequence[Sequence[int]], called: str) -> World:
        """The world of the ranks of one of these groups, in their order: that of this rank, which is in one of them.

        ``called``: what a group is. Every rank has to call it. ``ValueError`` for a transport that cannot.
        """
        raise ValueError(f"transport {self.transport!r} has no replicas: use c10d (torchrun) or mpi, or replicas = 1")

    def add_up(self, values: Tensor) -> None:
        """Put the sum over all ranks into their ``values``, of any shape, the same bits everywhere.

        No message of an agent: for ranks that hold copies of the same agents alone. ``RuntimeError`` where it fails.
        """
        raise RuntimeError(f"transport {self.transport!r} has no sums")

    def add_copies(self, values: Tensor) -> None:  # noqa: B027  of one replica it is there
        """Put the sum over all replicas, between ranks with copies of the same agents, into ``values``, of any shape.

        Every rank of every replica has to call it. Raises ``TransportError``.
        """

    def of_replicas(self, values: Tensor) -> Tensor:
        """(replicas, *shape) the values of the rank of this place in every replica, exactly; as ``add_copies``."""
        return values.unsqueeze(0)

    def close(self) -> None:  # noqa: B027  most transports hold nothing
        """Leave the world. Idempotent."""

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rank={self.rank}, size={self.size}, device={self.device})"
