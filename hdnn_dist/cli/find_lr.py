"""``hdnn-dist find-lr``: which learning rate to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from hdnn_dist.cli.report import check_picture
from hdnn_dist.cli.shell import ConfigFile, Overrides, console, reported
from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.connect import connect, meet_early
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.plots.rates import draw_rates
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.find_lr import Sweep, sweep


def find_lr(
    config: ConfigFile = None,
    overrides: Overrides = None,
    transport: Annotated[str, typer.Option(help="auto, local, c10d (under torchrun) or mpi (under mpirun).")] = "auto",
    lowest: Annotated[float, typer.Option(help="The rate of the first step.")] = 1e-5,
    highest: Annotated[float, typer.Option(help="The rate of the last step, if the loss lasts so long.")] = 10.0,
    steps: Annotated[int, typer.Option(help="Steps of the sweep.")] = 100,
    picture: Annotated[Path, typer.Option(help="Where to draw the loss against the rate.")] = Path("find-lr.png"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Draw over a file that is not of ours.")] = False,
) -> None:
    """Raise the learning rate step by step until the loss explodes, and suggest the one where it falls fastest.

    Nothing is trained: the sweep begins from the first weights and writes none.
    """
    with reported("nothing was written"):
        meet_early(transport)
        settings = load_config(config, overrides or [])
        graph = CommunicationGraph.parse(settings.graph)
        torch.set_num_threads(settings.threads)
        with connect(transport, timeout=settings.timeout, links=settings.links) as world:
            job = build(settings, graph, world)
            with agreed(job.head.everyone):
                if job.is_root:
                    check_picture(picture, overwrite)
            found = sweep(job, lowest, highest, steps)
            if job.is_root:
                _tell(found, picture)


def _tell(found: Sweep, picture: Path) -> None:
    rate = found.suggested
    if rate is None:
        console.print("no rate is suggested: the loss did not fall; lower --lowest, or give more --steps")
    else:
        console.print(f"suggested: --set optimizer.learning_rate={rate:.2g}", highlight=False)
    drawn = draw_rates(found.rates, found.losses, found.smoothed, rate, picture)
    console.print(f"{len(found.rates)} steps, up to {found.rates[-1]:.2g}; picture: {drawn}", highlight=False)
