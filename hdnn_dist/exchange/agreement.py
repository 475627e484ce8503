"""A failure on one rank becomes a failure on every rank, before the others wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hdnn_dist.exchange.sum_tree import SumTree

LONGEST_MESSAGE = 500
KINDS = (ValueError, OSError)


@contextmanager
def agreed(tree: SumTree) -> Iterator[None]:
    """Run a block on every rank; if it raised ValueError or OSError on any, raise on all, with the first rank's error.

    Costs one sum along the tree when all is well. Every rank has to enter. Raises what the block raised here, or
    elsewhere the same kind, ``ValueError`` or ``OSError``, with the message of the first rank that failed.
    """
    failure: Exception | None = None
    try:
        yield
    except (ValueError, OSError) as error:
        failure = error
    elsewhere = _first_failure(tree, failure)
    if elsewhere is not None:
        raise failure or elsewhere


def _first_failure(tree: SumTree, failure: Exception | None) -> Exception | None:
    world = tree.agents.world
    kind = 0 if failure is None else 1 + isinstance(failure, OSError)
    failed = tree.collect(torch.tensor(kind, dtype=torch.float64, device=world.device))
    if not failed.any():
        return None
    first = int(failed.nonzero()[0])
    text = torch.zeros(LONGEST_MESSAGE, dtype=torch.float64, device=world.device)
    if first == world.rank:
        encoded = str(failure).encode()[:LONGEST_MESSAGE]
        text[: len(encoded)] = torch.tensor(list(encoded), dtype=torch.float64)
    message = bytes(int(code) for code in tree.sum(text) if code).decode(errors="replace")
    return KINDS[int(failed[first]) - 1](f"rank {first}: {message}")
