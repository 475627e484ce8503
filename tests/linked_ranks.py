"""One rank of a ring that trains: started by test_link_choice.py and test_killed_ranks.py.

usage: linked_ranks.py STEPS LINKS [HINDRANCE RANK]. Each rank prints a line of JSON: what carries its edges, its
kernel, its losses, the memory that it shares, and the warnings. A hindrance of sharing memory is met by that rank
alone. A broken exchange and Ctrl-C end it as they end ``hdnn-dist train``. The variable REPLICAS: how many rings.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

RANK = int(os.environ.get("PMI_RANK", os.environ.get("RANK", "0")))


def no_numba() -> None:
    sys.modules["numba"] = None  # type: ignore[assignment]


def numba_that_does_not_compile() -> None:
    os.environ["NUMBA_DISABLE_JIT"] = "1"


def no_memfd() -> None:
    del os.memfd_create


def nothing() -> None:
    """What the other ranks meet."""


@contextlib.contextmanager
def files_up_to(free: int) -> Iterator[None]:
    """So many more may be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0) for _ in range(free)]
    limit = os.dup(0)
    for file in (*taken, limit):
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


HINDRANCES: dict[str, Callable[[], None]] = {
    function.__name__: function for function in (no_numba, numba_that_does_not_compile, no_memfd, nothing)
}
FREE_FILES = {"no_file": 0, "files_for_one_edge": 4}  # that of each, and of two rings


def say(line: str) -> None:
    """At once, so that lines of several ranks do not mix."""
    os.write(1, f"{line}\n".encode())


def shared_memory() -> list[str]:
    """The edges whose memory this process has mapped, as the system says."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({line.split("hdnn-dist edge ")[1].split()[0] for line in lines if "hdnn-dist edge " in line})


def main(steps: int, links: str, hindrance: str) -> None:
    import torch

    from hdnn_dist import HDNN, CommunicationGraph, Readout, average_gradients, connect, place
    from hdnn_dist.exchange.connect import meet_early

    if hindrance in FREE_FILES:
        import numpy.ma  # noqa: F401  whose files would be opened, as those of the next

        import hdnn_dist.exchange.shared_memory.segment  # noqa: F401
    torch.set_num_threads(1)
    meet_early()
    seconds = float(os.environ.get("SECONDS_TO_WAIT", "60"))
    links = "network" if hindrance == "asks_for_the_network" else links
    replicas = int(os.environ.get("REPLICAS", "1"))
    with (
        connect(links=links, timeout=seconds, replicas=replicas) as world,
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        with files_up_to(FREE_FILES[hindrance]) if hindrance in FREE_FILES else contextlib.nullcontext():
            agents = place(CommunicationGraph.ring(8), world, [agent * world.size // 8 for agent in range(8)])
        net = HDNN(agents, layers=3)
        head = Readout(agents, net)
        optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.1)
        everything = torch.linspace(-1, 1, 100 * 16).view(100, 8, 2)[:, agents.local].flatten(1)
        large, small = everything, everything[:90]  # after one step with each no rank asks the others about them
        batches = [small, large, small if hindrance == "another_batch" else large]
        losses: list[float] = []
        for step in range(steps):
            batch = batches[min(step, 2)]
            loss = head.loss(net(batch), torch.arange(len(batch)) % 2)
            optimizer.zero_grad()
            loss.backward()
            average_gradients([*net.parameters(), *head.parameters()], world)
            optimizer.step()
            losses = [*losses[-2:], loss.item()]
            if step == 2 and steps > 3:
                say("trains")
        found = {
            "rank": world.rank,
            "links": {str(peer): link for peer, link in agents.links.items()},
            "kernel": net.kernel_for(100),
            "losses": losses,
            "memory": shared_memory(),
            "warnings": sorted({str(warning.message) for warning in warned}),
        }
        say(json.dumps(found))


if __name__ == "__main__":
    what, hindered = [*sys.argv[3:], "nothing", "0"][:2]
    mine = what if int(hindered) == RANK else "nothing"
    HINDRANCES.get(mine, nothing)()
    from hdnn_dist.exchange.ending import end_now
    from hdnn_dist.exchange.world import TransportError

    try:
        main(int(sys.argv[1]), sys.argv[2], mine)
    except TransportError as error:
        print(f"TransportError: {error}", file=sys.stderr)
        end_now(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        end_now(130)
