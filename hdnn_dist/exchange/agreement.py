"""A failure on one rank, or a difference between ranks, becomes a failure on every rank before others wait for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hdnn_dist.exchange.common_facts import Facts, digest, refuse_difference, told
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.exchange.world import TransportError
from hdnn_dist.support.arguments import one_line

LONGEST_MESSAGE = 1000


class RankError(RuntimeError):
    """Another rank failed in a way that is no wrong input; the message says which rank, and how."""


# Kinds of exceptions on the rank that fails, and what the others raise.
KINDS: tuple[tuple[type[Exception], type[Exception]], ...] = (
    (ValueError, ValueError),
    (OSError, OSError),
    (Exception, RankError),
)


@contextmanager
def agreed(tree: SumTree) -> Iterator[None]:
    """Run a block on every rank; if it raised on any, raise on all, with the error of the first rank that failed.

    Costs one sum along the tree when all is well, and one over the replicas: ranks are those of the job. Every rank has
    to enter, and the block must not exchange. Raises what it raised here, or elsewhere the same kind, ``ValueError`` or
    ``OSError``, for others ``RankError``.
    """
    failure: Exception | None = None
    try:
        yield
    except TransportError:
        raise  # there is nobody left to agree with
    except Exception as error:
        failure = error
    elsewhere = _first_failure(tree, failure)
    if elsewhere is not None:
        raise failure or elsewhere


def same_on_tree(tree: SumTree, facts: Facts) -> None:
    """``ValueError`` on every rank, the same, unless all ranks call it with the same facts.

    For agents whose graph and owners are agreed on: costs one sum along the tree of a number a fact, and another one
    where they differ.
    """
    if tree.agents.world.size == 1:
        return
    texts = told(facts)
    numbers = [int(digest(text.encode()), 16) for text in texts.values()]  # 48 bits, which a float64 holds exactly
    known = tree.collect(_on_device(tree, numbers))
    differs = (known != known[0]).any(dim=0).tolist()
    if any(differs):
        name = list(texts)[differs.index(True)]
        refuse_difference(name, [_decoded(row) for row in tree.collect(_encoded(tree, texts[name]))])


def collected(tree: SumTree, numbers: Sequence[float]) -> Tensor:
    """(ranks, n) the numbers of every rank, which all have to call it; on the CPU. Costs one sum along the tree."""
    return tree.collect(_on_device(tree, numbers)).cpu()


def told_by_root(tree: SumTree, text: str) -> str:
    """The text of the root's rank, of any length, on every rank. All call it; what others give is ignored.

    Of several replicas the first one's root. Costs two sums along the tree, of the length and of the text.
    """
    codes = text.encode()
    length = int(_of_root(tree, [len(codes)]))
    if not length:
        return ""
    return bytes(_of_root(tree, list(codes[:length].ljust(length, b"\0"))).to(torch.uint8).tolist()).decode()


def _of_root(tree: SumTree, numbers: Sequence[float]) -> Tensor:
    """(n,) what the root's rank gives, of several replicas the first one's; others give as many, which are ignored."""
    return tree.agents.world.of_replicas(tree.sum(_on_device(tree, numbers) * tree.is_root))[0].cpu()


def _first_failure(tree: SumTree, failure: Exception | None) -> Exception | None:
    kind = 0 if failure is None else 1 + next(at for at, known in enumerate(KINDS) if isinstance(failure, known[0]))
    world = tree.agents.world
    failed = world.of_replicas(tree.collect(_on_device(tree, kind))).flatten()
    if not failed.any():
        return None
    first = int(failed.nonzero()[0])
    text = tree.sum(_encoded(tree, _text(failure) if first == world.job.rank else ""))
    message = _decoded(world.of_replicas(text)[first // world.size])
    return KINDS[int(failed[first]) - 1][1](f"rank {first}: {message}")


def _text(failure: Exception | None) -> str:
    kind = "" if isinstance(failure, ValueError | OSError) else f"{type(failure).__name__}: "
    return kind + one_line(failure or Exception())


def _on_device(tree: SumTree, numbers: Sequence[float] | int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device=tree.agents.world.device)


def _encoded(tree: SumTree, text: str) -> Tensor:
    """(LONGEST_MESSAGE,) the codes of a text, zeros behind it."""
    return _on_device(tree, list(text.encode()[:LONGEST_MESSAGE].ljust(LONGEST_MESSAGE, b"\0")))


def _decoded(codes: Tensor) -> str:
    return bytes(int(code) for code in codes.tolist() if code).decode(errors="replace")
