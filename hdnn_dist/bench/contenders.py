"""The contenders of one training step that are measured beside each other, and the columns that come of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hdnn_dist.bench import baseline, edgewise
from hdnn_dist.bench.cases import Case, Effort
from hdnn_dist.bench.networks import build, fixed_pair, halves_first, training_step
from hdnn_dist.bench.report import Row
from hdnn_dist.bench.timing import Step, Timing, in_turns
from hdnn_dist.bench.work import bare_product, megabytes_moved, product_flops, step_flops
from hdnn_dist.model.network import HDNN

Contenders = dict[str, Step]
Times = dict[str, Timing]


@dataclass(frozen=True)
class Subject:
    """A case, its network, the seconds that building it took, and the contenders of its training step by name."""

    case: Case
    net: HDNN
    build_seconds: float
    contenders: Contenders


def subject(case: Case, *others: Callable[[Case, HDNN], Contenders]) -> Subject:
    """Ours and the bare product, and what ``others`` add."""
    began = time.perf_counter()
    net = build(case)
    seconds = time.perf_counter() - began
    contenders: Contenders = {"ours": training_step(net, *fixed_pair(case)), "bmm": bare_product(case)}
    for other in others:
        contenders |= other(case, net)
    return Subject(case, net, seconds, contenders)


def dense_contender(case: Case, net: HDNN) -> Contenders:
    """The dense masked baseline, unless its weights are too large."""
    if baseline.dense_bytes(case) > baseline.LARGEST_BYTES:
        return {}
    x, g = (halves_first(tensor, case.agents) for tensor in fixed_pair(case))
    return {"baseline": training_step(baseline.dense_baseline(net), x, g)}


def edgewise_contender(case: Case, net: HDNN) -> Contenders:
    """Message passing along edges, where torch-geometric is installed."""
    if not edgewise.is_installed():
        return {}
    x, g = (edgewise.by_agent(tensor, case.agents) for tensor in fixed_pair(case))
    return {"edgewise": training_step(edgewise.edgewise(net), x, g)}


def left_out(cases: Sequence[Case]) -> list[str]:
    """A line for every case without a dense baseline, with the reason."""
    limit = baseline.LARGEST_BYTES
    return [
        f"no baseline for {case}: its dense weights would take {baseline.dense_bytes(case) / 2**20:.0f} MiB, "
        f"more than the limit of {limit / 2**20:.0f}"
        for case in cases
        if baseline.dense_bytes(case) > limit
    ]


def all_in_turns(contenders: Sequence[Contenders], effort: Effort) -> list[Times]:
    """The timings of all of them, all measured in turns with each other."""
    timings = iter(in_turns([step for each in contenders for step in each.values()], effort))
    return [{name: next(timings) for name in each} for each in contenders]


def columns(it: Subject, times: Times, threads: int) -> Row:
    """A row; ``spread``: between the quartiles; ``speedup``: of ours over the dense baseline."""
    case, ours = it.case, times["ours"]
    return {
        **case.columns(threads),
        "milliseconds": ours.milliseconds,
        "spread_milliseconds": ours.spread,
        **compared(times, "baseline", "speedup"),
        "gflops": step_flops(case) / ours.milliseconds / 1e6,
        "bmm_gflops": product_flops(case) / times["bmm"].best / 1e9,
        "moved_megabytes": megabytes_moved(it.net, it.contenders["ours"]),
        "kernel": it.net.kernel_for(case.batch),
    }


def compared(times: Times, name: str, ratio: str) -> Row:
    """The columns of another form beside ours; empty where it was left out."""
    if name not in times:
        return {f"{name}_milliseconds": None, f"{name}_spread_milliseconds": None, ratio: None}
    return {
        f"{name}_milliseconds": times[name].milliseconds,
        f"{name}_spread_milliseconds": times[name].spread,
        ratio: times[name].milliseconds / times["ours"].milliseconds,
    }
