"""Benchmarks: functions from a options to a report, by the name of their command ``hdnn-dist bench NAME``."""

from collections.abc import Callable

from hdnn_dist.bench import checkpoint, exchange, loop, memory, ranks, scaling, step, sweeps
from hdnn_dist.bench.cases import Options
from hdnn_dist.bench.report import Report, Tell

BENCHMARKS: dict[str, Callable[[Options, Tell], Report]] = {
    "step": step.step,
    "loop": loop.loop,
    "memory": memory.memory,
    "agents": sweeps.agents,
    "depth": sweeps.depth,
    "threads": scaling.scaling,
    "ranks": ranks.beside_one_process,
    "exchange": exchange.one_way,
    "checkpoint": checkpoint.checkpoint,
}
