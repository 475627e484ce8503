"""A rank that a benchmark has started: it measures what it is told to, and sleeps in between.

Its arguments: the socket of the benchmark, the transport, the links to ask for, and the number of threads.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import torch

from hdnn_dist.bench.cases import Case
from hdnn_dist.bench.links import flight_of, joined, link_of, waited
from hdnn_dist.bench.networks import build, local_pair, training_step
from hdnn_dist.bench.ping_pong import FORMS
from hdnn_dist.bench.timing import Step, seconds_of
from hdnn_dist.exchange.launchers import launched_as
from hdnn_dist.exchange.placement import Agents, place
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import one_line

Answer = dict[str, Any]


class Rank:
    """One method an order, which returns what is answered."""

    def __init__(self, world: World, links: str) -> None:
        self._world, self._links = world, links
        self._step: Step | None = None
        self._agents: Agents | None = None

    def build(self, case: list[int]) -> Answer:
        """Make the network of a case and its training step; the seconds of one that has nothing to compile."""
        of = Case(*case)
        net = build(of, self._world, flight=flight_of(self._links, of))
        self._agents, self._step = net.agents, training_step(net, *local_pair(of, net.agents))
        self._step()
        return {"seconds": seconds_of(self._step), "kernel": net.kernel_for(of.batch), "link": link_of(net.agents)}

    def steps(self, times: int) -> Answer:
        """Seconds of each training step, after one that brings the ranks together, and those waited in them."""
        assert self._step is not None
        assert self._agents is not None
        self._step()
        before = waited(self._agents)
        seconds = [seconds_of(self._step) for _ in range(times)]
        after = waited(self._agents)
        return {"seconds": seconds, "waited": after - before}

    def ping_pong(self, size: int, memory: str) -> Answer:
        """Make the ping-pongs of messages of ``size`` bytes; ``memory``: that both ranks can open, for a raw one."""
        self._agents = place(CommunicationGraph.path(2), self._world)
        self._forms = {name: form(self._agents, size, memory) for name, form in FORMS.items()}
        return {"forms": [name for name, form in self._forms.items() if form], "link": link_of(self._agents)}

    def round_trips(self, form: str, times: int) -> Answer:
        """Seconds of so many round trips, after some that bring the ranks together."""
        run = self._forms[form]
        assert run is not None
        run(1 + times // 10)
        began = time.perf_counter()
        run(times)
        return {"seconds": time.perf_counter() - began}


def obey(rank: Rank, number: int, stream: TextIO) -> None:
    """Follow orders to the end of them."""
    for line in stream:
        order = json.loads(line)
        do: Callable[..., Answer] = getattr(rank, order.pop("do"))
        say(stream, rank=number, **do(**order))


def say(stream: TextIO, **answer: Any) -> None:
    """One answer."""
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


@contextmanager
def errors_told(stream: TextIO) -> Iterator[None]:
    """What is raised is the answer too."""
    try:
        yield
    except Exception as error:
        say(stream, rank=launched_as(), error=one_line(error), wrong_input=isinstance(error, ValueError))
        raise


def main() -> None:
    """The entry point of the process."""
    path, transport, links, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        stream = connection.makefile("rw", encoding="utf-8")
        with errors_told(stream), joined(transport, links) as world:
            say(stream, rank=world.rank)
            obey(Rank(world, links), world.rank, stream)


if __name__ == "__main__":
    main()
