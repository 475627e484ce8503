"""``bench ranks``: a training step in one process beside the same on several ranks, by launcher and link, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hdnn_dist.bench.cases import GRID, RANKS, RING_OF_8, Case, Options, Sweep
from hdnn_dist.bench.group import Answer
from hdnn_dist.bench.groups import Groups, kinds, left_out
from hdnn_dist.bench.launching import ALONE, LINKS, Kind
from hdnn_dist.bench.report import Report, Row, Tell
from hdnn_dist.bench.timing import Timing, repetitions

ONE = Kind(1, ALONE, "auto")
SWEEPS = {2: RANKS, 8: RING_OF_8}
AUTO = LINKS[:1]


@dataclass
class Contender:
    """A group of ranks with the network of a case.

    ``seconds``: of each step, those of its slowest rank; ``waited``: of each turn, (ranks,), the share that each rank
    has spent waiting for others.
    """

    kind: Kind
    kernel: str
    link: str
    times: int
    seconds: list[float] = field(default_factory=list)
    waited: list[np.ndarray] = field(default_factory=list)

    def take(self, answers: Sequence[Answer]) -> None:
        """What its ranks have measured in one turn."""
        self.seconds += np.max([answer["seconds"] for answer in answers], axis=0).tolist()
        if all(answer["waited"] is not None for answer in answers):
            self.waited.append(np.array([answer["waited"] / sum(answer["seconds"]) for answer in answers]))

    @property
    def waiting(self) -> list[float | None]:
        """The shares of the rank that waits least and of the one that waits most; medians of the turns."""
        if not self.waited:
            return [None, None]
        shares = np.median(self.waited, axis=0)
        return [float(shares.min()), float(shares.max())]


def beside_one_process(options: Options, tell: Tell) -> Report:
    """A row for one process and one for every group of ranks, case by case; what fails is noted."""
    rows: list[Row] = []
    notes = left_out(options)
    for number, cases in plan(options).items():
        with Groups(options.threads) as groups:
            rows += [row for case in cases for row in _rows(case, number, groups, options, tell)]
        notes += groups.notes
    return Report(rows, notes)


def plan(options: Options) -> dict[int, tuple[Case, ...]]:
    """The cases to measure, by the number of ranks."""
    fewest = options.grid or options.given or options.quick
    return {number: options.cases(_sweep(number, options)) for number in options.ranks or ((2,) if fewest else SWEEPS)}


def _sweep(ranks: int, options: Options) -> Sweep:
    return GRID if options.grid else SWEEPS.get(ranks, RANKS)


def _rows(case: Case, ranks: int, groups: Groups, options: Options, tell: Tell) -> list[Row]:
    every = [ONE, *kinds(ranks, options, AUTO if options.grid else LINKS)]
    built = [_built(case, kind, groups, options, tell) for kind in every]
    contenders = [contender for contender in built if contender is not None]
    tell(f"{case} on 1 and {ranks} ranks in turns")
    for _ in range(options.effort.rounds):
        contenders = [contender for contender in contenders if _turn(case, contender, groups)]
    one = Timing(contenders[0].seconds).milliseconds
    return [_row(case, contender, one, options) for contender in contenders]


def _built(case: Case, kind: Kind, groups: Groups, options: Options, tell: Tell) -> Contender | None:
    tell(f"{case} on {kind}")
    answers = groups.ask(kind, case, do="build", case=[case.agents, case.features, case.layers, case.batch])
    if not answers:
        return None
    times = repetitions(max(answer["seconds"] for answer in answers), options.effort.block_seconds)
    links = dict.fromkeys(name for answer in answers for name in answer["link"].split(", "))
    return Contender(kind, answers[0]["kernel"], ", ".join(links), times)


def _turn(case: Case, contender: Contender, groups: Groups) -> bool:
    answers = groups.ask(contender.kind, case, do="steps", times=contender.times)
    if answers:
        contender.take(answers)
    return bool(answers)


def _row(case: Case, contender: Contender, one: float, options: Options) -> Row:
    """``link``: the one that was taken, where ``links`` were asked for; ``speedup``: over one process."""
    kind, timing = contender.kind, Timing(contender.seconds)
    least, most = contender.waiting
    return {
        **case.columns(options.threads),
        "ranks": kind.ranks,
        "launcher": kind.launcher,
        "links": None if kind is ONE else kind.links,
        "link": contender.link or None,
        "milliseconds": timing.milliseconds,
        "spread_milliseconds": timing.spread,
        "speedup": one / timing.milliseconds,
        "least_waiting_share": least,
        "most_waiting_share": most,
        "kernel": contender.kernel,
    }
