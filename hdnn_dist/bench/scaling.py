"""``bench threads``: one training step with 1, 2, ... threads, in turns."""

from __future__ import annotations

from hdnn_dist.bench.cases import THREADS, Case, Options
from hdnn_dist.bench.contenders import Contenders, all_in_turns, columns, dense_contender, left_out, subject
from hdnn_dist.bench.report import Report, Row, Tell
from hdnn_dist.bench.timing import Step, threads


def scaling(options: Options, tell: Tell) -> Report:
    """A row for every number of threads up to the options's, with the speed-up over one."""
    cases = options.cases(THREADS)
    return Report([row for case in cases for row in _rows(case, options, tell)], left_out(cases))


def _rows(case: Case, options: Options, tell: Tell) -> list[Row]:
    numbers = range(1, options.threads + 1)
    tell(f"threads {case} with {', '.join(map(str, numbers))} in turns")
    it = subject(case, dense_contender)
    measured = all_in_turns([_with(number, it.contenders) for number in numbers], options.effort)
    one = measured[0]["ours"].milliseconds
    return [
        {**columns(it, times, number), "threads_speedup": one / times["ours"].milliseconds}
        for number, times in zip(numbers, measured, strict=True)
    ]


def _with(number: int, contenders: Contenders) -> Contenders:
    return {name: _threaded(number, run) for name, run in contenders.items()}


def _threaded(number: int, run: Step) -> Step:
    def step() -> None:
        with threads(number):
            run()

    return step
