"""One rank of a job in which the last one fails: started by test_failures.py. usage: failures.py CASE TRANSPORT"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import torch

from hdnn_dist import HDNN, CommunicationGraph, Readout, connect, place
from hdnn_dist.exchange.connect import meet_early
from hdnn_dist.exchange.world import World

TIMEOUT = 4.0


class Step:
    """A training step of a small network, which the last rank may not take."""

    def __init__(self, world: World, root: int = 0) -> None:
        agents = place(CommunicationGraph.ring(4), world, [agent * world.size // 4 for agent in range(4)])
        self.net = HDNN(agents, layers=2, kernel="torch")
        self.head = Readout(agents, self.net, root=root)

    def __call__(self, batch: int = 3) -> None:
        labels = torch.zeros(batch, dtype=torch.long)
        self.head.loss(self.net(torch.zeros(batch, self.net.local_features)), labels).backward()


def leave() -> None:
    sys.exit(0)


def vanish() -> None:
    os._exit(7)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise ZeroDivisionError("a bug of the user")


def nothing() -> None:
    """What the others do not do."""


LAST_DOES: dict[str, Callable[[], None]] = {
    function.__name__: function for function in (leave, vanish, stop, kill, fail, nothing)
}


def main(what: str, when: str, transport: str) -> None:
    torch.set_num_threads(1)
    ranks = int(os.environ.get("PMI_SIZE", os.environ.get("WORLD_SIZE", "1")))
    last = os.environ.get("PMI_RANK", os.environ.get("RANK")) == str(ranks - 1)

    def perhaps(moment: str) -> None:
        if last and moment == when:
            LAST_DOES[what]()

    perhaps("start")
    meet_early(transport, TIMEOUT)
    perhaps("connect")
    with connect(transport, timeout=TIMEOUT, links="network") as world:
        perhaps("place")
        step = Step(world)
        perhaps("contact")
        step(5)
        step()
        perhaps("step")
        if not (last and when == "skip"):
            step.net(torch.zeros(3, step.net.local_features))
        step(5 if last and when == "batch" else 3)  # both have been seen, so that no rank asks the others
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
