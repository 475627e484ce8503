"""``bench step``: one training step beside the dense masked baseline and, where it is installed, torch-geometric."""

from __future__ import annotations

from hdnn_dist.bench import edgewise
from hdnn_dist.bench.cases import STEP, Case, Options
from hdnn_dist.bench.contenders import (
    all_in_turns,
    columns,
    compared,
    dense_contender,
    edgewise_contender,
    left_out,
    subject,
)
from hdnn_dist.bench.report import Report, Row, Tell
from hdnn_dist.bench.timing import threads


def step(options: Options, tell: Tell) -> Report:
    """A row a case; the contenders of a case take turns."""
    cases = options.cases(STEP)
    with threads(options.threads):
        rows = [_row(case, options, tell) for case in cases]
    missing = [] if edgewise.is_installed() else ["no edge-wise message passing: torch-geometric is not installed"]
    return Report(rows, [*left_out(cases), *missing])


def _row(case: Case, options: Options, tell: Tell) -> Row:
    tell(f"step {case}")
    it = subject(case, dense_contender, edgewise_contender)
    (times,) = all_in_turns([it.contenders], options.effort)
    return {**columns(it, times, options.threads), **compared(times, "edgewise", "edgewise_speedup")}
