"""Groups of ranks that take turns: each is started when it is first needed, and what fails is noted and left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from hdnn_dist.bench.cases import Options
from hdnn_dist.bench.group import Answer, Group, GroupError
from hdnn_dist.bench.launching import ALONE, LAUNCHERS, LINKS, Kind


class Groups:
    """Of all kinds that were asked for. ``notes``: a line for everything that failed."""

    def __init__(self, threads: int) -> None:
        self.notes: list[str] = []
        self._threads = threads
        self._groups: dict[Kind, Group] = {}
        self._broken: set[Kind] = set()

    def ask(self, kind: Kind, about: object, **order: Any) -> list[Answer]:
        """The answers of its ranks, in their order; none where it failed, which is noted as ``about`` something.

        A failure of one process is raised, ``ValueError`` or ``OSError``: there is nothing to compare with.
        """
        try:
            return self._started(kind).ask(order) if kind not in self._broken else []
        except GroupError as error:
            self._drop(kind)
            if kind.launcher == ALONE:
                raise (ValueError if error.wrong_input else OSError)(f"{about}: {error}") from error
            self.notes.append(f"no {about} on {kind}: {error}")
            return []

    def _started(self, kind: Kind) -> Group:
        if kind not in self._groups:
            self._broken.add(kind)  # unless it starts
            self._groups[kind] = Group(kind, self._threads)
            self._broken.remove(kind)
        return self._groups[kind]

    def _drop(self, kind: Kind) -> None:
        if kind in self._groups:
            self._groups.pop(kind).close()

    def __enter__(self) -> Groups:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for each in [*self._groups]:
            self._drop(each)


def kinds(ranks: int, options: Options, links: Sequence[str] = LINKS) -> Iterator[Kind]:
    """Those to measure, of so many ranks: under each launcher that is installed, with each of ``links``."""
    for launcher in options.launchers or LAUNCHERS:
        if not LAUNCHERS[launcher].lacks():
            yield from (Kind(ranks, launcher, each) for each in options.links or links)


def left_out(options: Options) -> list[str]:
    """A line for every launcher that is not installed."""
    lacking = {name: LAUNCHERS[name].lacks() for name in options.launchers or LAUNCHERS}
    return [f"nothing under {name}: {reason}" for name, reason in lacking.items() if reason]
