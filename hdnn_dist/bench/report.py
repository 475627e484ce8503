"""What a benchmark hands back, and its table: plain text that is Markdown too."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hdnn_dist.bench.cases import cores
from hdnn_dist.support.markdown import Row, padded_table

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """``rows``, all with the same columns; ``notes``: what was left out, and why."""

    rows: list[Row]
    notes: Sequence[str] = ()

    @property
    def kernels(self) -> str:
        """The kernels that its rows ran on; empty where they ran on none."""
        return ", ".join(dict.fromkeys(str(row["kernel"]) for row in self.rows if "kernel" in row))

    @property
    def head(self) -> str:
        """What every figure depends on, in one line."""
        return f"{machine()}, kernel {self.kernels}" if self.kernels else machine()

    def table(self) -> str:
        """A Markdown table, padded so that it reads as plain text; columns without any value are left out."""
        return padded_table(self.rows)


def machine() -> str:
    """The processor and the versions of what runs on it."""
    return f"{processor()}, {cores()} cores, torch {torch.__version__}, Python {platform.python_version()}"


def processor() -> str:
    """The name of the CPU."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
