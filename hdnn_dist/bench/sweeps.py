"""``bench agents`` and ``bench depth``: how the time of a training step goes with one of its sizes."""

from __future__ import annotations

from collections.abc import Callable

from hdnn_dist.bench.cases import AGENTS, DEPTH, Case, Options
from hdnn_dist.bench.contenders import Subject, all_in_turns, columns, dense_contender, left_out, subject
from hdnn_dist.bench.report import Report, Row, Tell
from hdnn_dist.bench.timing import threads


def agents(options: Options, tell: Tell) -> Report:
    """Time per agent and layer, from small rings to large ones, and the time that building them takes."""
    return _sweep(
        options, options.cases(AGENTS), tell, "microseconds_per_agent_layer", lambda it: it.agents * it.layers
    )


def depth(options: Options, tell: Tell) -> Report:
    """Time per layer, from shallow networks to deep ones."""
    return _sweep(options, options.cases(DEPTH), tell, "microseconds_per_layer", lambda it: it.layers)


def _sweep(options: Options, cases: tuple[Case, ...], tell: Tell, per: str, size: Callable[[Case], int]) -> Report:
    """``per``: the column of microseconds divided by ``size``, which should stay the same; ``ratio``: to the first."""
    with threads(options.threads):
        subjects = [_told(case, tell) for case in cases]
        tell(f"measuring {', '.join(map(str, cases))} in turns")
        measured = all_in_turns([it.contenders for it in subjects], options.effort)
        each = [1e3 * times["ours"].milliseconds / size(case) for case, times in zip(cases, measured, strict=True)]
        rows: list[Row] = [
            {
                **columns(it, times, options.threads),
                per: value,
                "ratio": value / each[0],
                "build_seconds": it.build_seconds,
            }
            for it, times, value in zip(subjects, measured, each, strict=True)
        ]
    return Report(rows, left_out(cases))


def _told(case: Case, tell: Tell) -> Subject:
    tell(f"building {case}")
    return subject(case, dense_contender)
