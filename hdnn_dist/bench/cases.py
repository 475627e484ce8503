"""What is measured: rings of agents, their features, layers and samples; and how long."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import product

from hdnn_dist.bench.launching import HELD, LAUNCHERS, LINKS
from hdnn_dist.support.arguments import named, whole


@dataclass(frozen=True)
class Case:
    """A ring of ``agents`` with ``features`` each (p and q together), ``layers``, and ``batch`` samples."""

    agents: int
    features: int
    layers: int
    batch: int

    def __str__(self) -> str:
        return f"{self.agents}x{self.features}x{self.layers}x{self.batch}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """From ``AGENTSxFEATURESxLAYERSxBATCH``; ``ValueError`` for anything else."""
        sizes = text.split("x")
        if len(sizes) != 4 or not all(size.isdecimal() and int(size) for size in sizes):
            raise ValueError(
                f"case {text!r}: expected AGENTSxFEATURESxLAYERSxBATCH, four whole numbers of at least 1, "
                "such as 8x2x64x125"
            )
        return cls(*map(int, sizes))

    def columns(self, threads: int) -> dict[str, int]:
        """The first columns of its row."""
        return {
            "agents": self.agents,
            "features": self.features,
            "layers": self.layers,
            "batch": self.batch,
            "threads": threads,
        }


@dataclass(frozen=True)
class Sweep:
    """The cases of a benchmark: those to report, and small ones that show in seconds that it works."""

    full: tuple[Case, ...]
    quick: tuple[Case, ...]


STEP = Sweep(
    full=(
        Case(8, 2, 4, 125),
        Case(8, 2, 64, 125),
        Case(8, 16, 64, 125),
        Case(128, 16, 2, 128),
        Case(512, 16, 2, 128),
        Case(512, 16, 16, 128),
    ),
    quick=(Case(8, 2, 4, 8), Case(16, 8, 2, 8)),
)
AGENTS = Sweep(
    full=tuple(Case(agents, 8, 2, 64) for agents in (64, 1024, 16384, 65536)),
    quick=(Case(8, 8, 2, 8), Case(16, 8, 2, 8)),
)
DEPTH = Sweep(
    full=tuple(Case(8, 2, layers, 125) for layers in (4, 16, 64, 256, 1024, 4096)),
    quick=(Case(8, 2, 4, 8), Case(8, 2, 8, 8)),
)
THREADS = Sweep(full=(Case(512, 16, 16, 128),), quick=(Case(16, 16, 2, 8),))
MEMORY = Sweep(
    full=tuple(Case(8, 8, layers, 4000) for layers in (64, 256, 1024, 4096)),
    quick=(Case(8, 4, 4, 500), Case(8, 4, 8, 500)),
)
STORED = Sweep(full=(Case(8, 8, 256, 4000),), quick=(Case(8, 4, 8, 500),))
# between ranks, of 2 and of 8; the second is the network of launch/configs/double_circles_ring8.toml
RANKS = Sweep(
    full=(Case(512, 16, 16, 128), Case(64, 16, 16, 128), Case(8, 2, 32, 125)),
    quick=(Case(8, 4, 2, 8),),
)
RING_OF_8 = Sweep(full=(Case(8, 2, 32, 125),), quick=(Case(8, 2, 2, 8),))
GRID = Sweep(
    full=tuple(Case(*sizes, 128) for sizes in product((8, 64, 512), (2, 16), (2, 16, 64))),
    quick=(Case(8, 2, 2, 8), Case(8, 4, 2, 8)),
)
# 10 and 100 MB of weights
CHECKPOINT = Sweep(full=(Case(512, 16, 12, 16), Case(512, 16, 122, 16)), quick=(Case(8, 2, 4, 8),))
LOOP = Sweep(full=(Case(8, 2, 64, 125),), quick=(Case(8, 2, 4, 8),))


@dataclass(frozen=True)
class Effort:
    """``rounds``: how many times measurements take turns; ``block_seconds``: about what one turn takes."""

    rounds: int
    block_seconds: float


FULL = Effort(rounds=7, block_seconds=0.2)
QUICK = Effort(rounds=2, block_seconds=0.0)


@dataclass(frozen=True)
class Options:
    """What was asked for. ``given``: cases in place of a benchmark's own.

    Of ranks, empty for a benchmark's own: ``ranks``, how many; ``launchers``, which start them; ``links``, that they
    ask for; ``grid``: small and large cases, in place of others.
    Raises ``ValueError`` for more threads than there are cores, or fewer than one, fewer than two ranks, and unknown
    names.
    """

    threads: int
    quick: bool = False
    given: tuple[Case, ...] = ()
    ranks: tuple[int, ...] = ()
    launchers: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    grid: bool = False

    def __post_init__(self) -> None:
        for number in self.ranks:
            whole("ranks", number, least=2)
        for name in self.launchers:
            named("launcher", name, LAUNCHERS)
        for name in self.links:
            named("links", name, dict.fromkeys((*LINKS, *HELD)))
        if not 1 <= self.threads <= cores():
            raise ValueError(f"threads is {self.threads}: expected 1 to {cores()}, the cores of this machine")

    @property
    def effort(self) -> Effort:
        """How long to measure."""
        return QUICK if self.quick else FULL

    def cases(self, sweep: Sweep) -> tuple[Case, ...]:
        """The cases to measure."""
        return self.given or (sweep.quick if self.quick else sweep.full)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
