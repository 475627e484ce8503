"""Benchmarks: functions from a plan to a report, by the name of their command ``hdnn-dist bench NAME``."""

from collections.abc import Callable

from hdnn_dist.bench import loop, memory, scaling, step, sweeps
from hdnn_dist.bench.cases import Plan
from hdnn_dist.bench.report import Report, Tell

BENCHMARKS: dict[str, Callable[[Plan, Tell], Report]] = {
    "step": step.step,
    "loop": loop.loop,
    "memory": memory.memory,
    "agents": sweeps.agents,
    "depth": sweeps.depth,
    "threads": scaling.scaling,
}

__all__ = ["BENCHMARKS", "Plan", "Report", "Tell"]
