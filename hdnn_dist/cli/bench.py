"""``hdnn-dist bench``: how fast propagation is on this machine, and beside what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from hdnn_dist.bench.benchmarks import BENCHMARKS
from hdnn_dist.bench.cases import Case, Options, cores
from hdnn_dist.bench.report import Report, Tell
from hdnn_dist.cli.shell import console, reported
from hdnn_dist.support.arguments import named

LAUNCHED = {"ranks", "exchange"}  # the benchmarks that start ranks
OPTIONS_OF = {"ranks": {"ranks"}, "grid": {"ranks"}, "launcher": LAUNCHED, "links": LAUNCHED}
progress = Console(stderr=True, markup=False, emoji=False)


def bench(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="step, loop, memory, agents, depth, threads, ranks, checkpoint, exchange."),
    ],
    threads: Annotated[
        int | None, typer.Option(help="Default 1; for 'threads' the most to try, default all cores.")
    ] = None,
    cases: Annotated[
        list[str] | None,
        typer.Option("--case", metavar="AxFxLxB", help="Agents, features, layers, batch: 8x2x64x125; repeatable."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Seconds: small cases, to see that it works.")] = False,
    ranks: Annotated[
        list[int] | None, typer.Option(help="Of 'ranks': how many; repeatable. Default 2 and 8.", show_default=False)
    ] = None,
    launcher: Annotated[
        list[str] | None, typer.Option(help="Of 'ranks', 'exchange': torchrun, mpiexec; repeatable. Default both.")
    ] = None,
    links: Annotated[
        list[str] | None,
        typer.Option(
            help="Of 'ranks', 'exchange': auto (shared memory), network; repeatable. Default both. Of 'ranks' also "
            "held: a network that holds each message for 1 ms, and held-1: with one tile in flight there."
        ),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Of 'ranks': 8 to 512 agents x 2, 16 features x 2 to 64 layers, links auto.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows alone; notes go to standard error.")] = False,
) -> None:
    """Measure training steps (forward and backward of H2 on a ring, float32) and print a Markdown table.

    step      beside the dense masked baseline, in turns, and beside the machine's own batched product
    loop      a full step of the optimiser beside forward and backward alone
    memory    peak memory of deep networks, and with every k-th state stored
    agents    time per agent and layer, 64 to 65,536 agents
    depth     time per layer, 4 to 4096 layers
    threads   speed-up with threads
    ranks     one process beside 2 and 8 ranks, under each launcher and with each link, in turns
    checkpoint  how long training stands still for one, beside a copy in memory of what it keeps
    exchange  a message from one rank to another by each link, beside that of the link alone
    """
    with reported(kept="nothing was measured to the end"):
        benchmark = named("benchmark", name, BENCHMARKS)
        _refuse_others(name, ranks=ranks, grid=grid, launcher=launcher, links=links, case=cases)
        most = cores() if name == "threads" else 1
        options = Options(
            threads=most if threads is None else threads,
            quick=quick,
            given=tuple(map(Case.parse, cases or ())),
            ranks=tuple(ranks or ()),
            launchers=tuple(launcher or ()),
            links=tuple(links or ()),
            grid=grid,
        )
        with _progress() as tell:
            report = benchmark(options, tell)
        _print(report, as_json)


def _refuse_others(name: str, **given: object) -> None:
    """``ValueError`` for an option that this benchmark would not heed."""
    for option, value in given.items():
        if value and name not in OPTIONS_OF.get(option, BENCHMARKS.keys() - {"exchange"}):
            raise ValueError(f"--{option} says nothing to 'bench {name}': leave it out")


@contextmanager
def _progress() -> Iterator[Tell]:
    """What is being measured, on a terminal only."""
    if not progress.is_terminal:
        yield lambda text: None
        return
    with progress.status("") as status:
        yield status.update


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.rows, indent=2))
        for note in report.notes:
            typer.echo(note, err=True)
        return
    console.print(f"{report.head}\n", highlight=False)
    console.print(report.table(), highlight=False)
    for note in report.notes:
        console.print(note, highlight=False)
