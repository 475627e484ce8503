"""``bench step``: one training step beside the dense masked baseline and, where it is installed, torch-geometric."""

from __future__ import annotations

from hdnn_dist.bench import edgewise
from hdnn_dist.bench.cases import STEP, Case, Plan
from hdnn_dist.bench.forms import all_in_turns, columns, compared, dense_form, edgewise_form, left_out, subject
from hdnn_dist.bench.report import Report, Row, Tell
from hdnn_dist.bench.timing import threads


def step(plan: Plan, tell: Tell) -> Report:
    """A row a case; the forms of a case take turns."""
    cases = plan.cases(STEP)
    with threads(plan.threads):
        rows = [_row(case, plan, tell) for case in cases]
    missing = [] if edgewise.is_installed() else ["no edge-wise message passing: torch-geometric is not installed"]
    return Report(rows, [*left_out(cases), *missing])


def _row(case: Case, plan: Plan, tell: Tell) -> Row:
    tell(f"step {case}")
    it = subject(case, dense_form, edgewise_form)
    (times,) = all_in_turns([it.forms], plan.effort)
    return {**columns(it, times, plan.threads), **compared(times, "edgewise", "edgewise_speedup")}
