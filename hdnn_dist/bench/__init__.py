"""How fast a training step is, beside what others need for it."""

from hdnn_dist.bench.benchmarks import BENCHMARKS
from hdnn_dist.bench.cases import Options
from hdnn_dist.bench.report import Report, Tell

__all__ = ["BENCHMARKS", "Options", "Report", "Tell"]
