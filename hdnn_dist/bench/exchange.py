"""``bench exchange``: a message from one rank to another by each link, beside the same by the link alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from hdnn_dist.bench.cases import Options
from hdnn_dist.bench.groups import Groups, kinds, left_out
from hdnn_dist.bench.launching import Kind
from hdnn_dist.bench.report import Report, Row, Tell
from hdnn_dist.bench.timing import Timing, repetitions

SIZES = (64, 512, 4096, 32768, 262144)  # bytes
QUICK_SIZES = SIZES[:2]
TURNS = 3  # for one of a benchmark of training steps, each as much shorter
MEMORY_BYTES = 2**20  # room for two messages of the largest size
FIRST_TRIPS, MOST_TRIPS = 10, 100_000


def one_way(options: Options, tell: Tell) -> Report:
    """A row for each launcher, link and size, in microseconds: half of a round trip, both forms in turns.

    ``OSError`` where nothing could be measured.
    """
    with Groups(options.threads) as groups:
        rows = [row for kind in kinds(2, options) for row in _rows(kind, groups, options, tell)]
    notes = [*left_out(options), *groups.notes]
    if not rows:
        raise OSError("; ".join(notes))
    return Report(rows, notes)


def _rows(kind: Kind, groups: Groups, options: Options, tell: Tell) -> Iterator[Row]:
    for size in QUICK_SIZES if options.quick else SIZES:
        tell(f"{size} bytes between {kind}")
        with _memory() as path:
            answers = groups.ask(kind, f"{size} bytes", do="ping_pong", size=size, memory=path)
            timings = _timings(kind, size, answers[0]["forms"], groups, options) if answers else {}
            if timings:
                yield _row(kind, size, answers[0]["link"], timings)


def _timings(kind: Kind, size: int, forms: list[str], groups: Groups, options: Options) -> dict[str, Timing]:
    """Seconds of a message, by form, a number a turn; none of a group that failed."""
    block = options.effort.block_seconds / TURNS
    trips = dict.fromkeys(forms, FIRST_TRIPS)
    taken: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(1 + TURNS * options.effort.rounds):
        for form, times in trips.items():
            answers = groups.ask(kind, f"{size} bytes", do="round_trips", form=form, times=times)
            if not answers:
                return {}
            seconds = answers[0]["seconds"] / times  # as rank 0 sees it, which sends first
            if turn:
                taken[form].append(seconds / 2)
            else:
                trips[form] = repetitions(seconds, block, MOST_TRIPS)
    return {form: Timing(seconds) for form, seconds in taken.items()}


def _row(kind: Kind, size: int, link: str, timings: dict[str, Timing]) -> Row:
    ours, raw = timings["exchange"], timings.get("raw")
    return {
        "launcher": kind.launcher,
        "links": kind.links,
        "link": link,
        "bytes": size,
        "microseconds": 1e3 * ours.milliseconds,
        "spread_microseconds": 1e3 * ours.spread,
        "raw_microseconds": 1e3 * raw.milliseconds if raw else None,
        "raw_spread_microseconds": 1e3 * raw.spread if raw else None,
        "ratio": ours.milliseconds / raw.milliseconds if raw else None,
    }


@contextmanager
def _memory() -> Iterator[str]:
    """A path under which the ranks find memory of this process, zeros; empty where the system has no such thing."""
    if not hasattr(os, "memfd_create"):
        yield ""
        return
    descriptor = os.memfd_create("hdnn-dist bench")
    try:
        os.truncate(descriptor, MEMORY_BYTES)
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)
