"""What a benchmark hands back, and its table: plain text that is Markdown too."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hdnn_dist.bench.cases import cores

Row = dict[str, int | float | str | None]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """``rows``, all with the same columns; ``notes``: what was left out, and why."""

    rows: list[Row]
    notes: Sequence[str] = ()

    @property
    def kernels(self) -> str:
        """The kernels that its rows ran on."""
        return ", ".join(dict.fromkeys(str(row["kernel"]) for row in self.rows))

    def table(self) -> str:
        """A Markdown table, padded so that it reads as plain text; columns without any value are left out."""
        names = [name for name in self.rows[0] if any(row[name] is not None for row in self.rows)]
        cells = [[*map(_heading, names)], *([_cell(row[name]) for name in names] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        head, *body = [_line(line, widths) for line in cells]
        return "\n".join([head, _line(["-" * (width - 1) + ":" for width in widths], widths), *body])


def machine() -> str:
    """What every figure depends on, in one line."""
    return f"{processor()}, {cores()} cores, torch {torch.__version__}, Python {platform.python_version()}"


def processor() -> str:
    """The name of the CPU."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _heading(name: str) -> str:
    return name.replace("milliseconds", "ms").replace("_", " ")


def _cell(value: int | float | str | None) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".removesuffix(".")
    return "-" if value is None else str(value)
