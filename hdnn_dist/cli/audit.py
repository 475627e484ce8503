"""``hdnn-dist audit``: the ledger of a config's ranks, beside what the operating system shows of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from hdnn_dist.analysis.audit.audit import CONFIG, Plan, ranks_for
from hdnn_dist.analysis.audit.audit import audit as audited
from hdnn_dist.analysis.audit.meeting import Meeting
from hdnn_dist.analysis.audit.rank import audited as run_as_rank
from hdnn_dist.analysis.audit.rank import join
from hdnn_dist.analysis.audit.report import as_json as json_of
from hdnn_dist.analysis.audit.report import as_text
from hdnn_dist.cli.shell import FAILED, ConfigFile, Overrides, console, leave, reported
from hdnn_dist.exchange.connect import meet_early
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config


def audit(
    config: ConfigFile = None,
    overrides: Overrides = None,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="How many to start; default those of the placement, or up to 4.")
    ] = None,
    transport: Annotated[str, typer.Option(help="c10d (torchrun is started) or mpi (mpiexec).")] = "c10d",
    links: Annotated[
        str | None, typer.Option(help="auto, or network: no shared memory on one host; default that of the config.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps that are audited, all on the first batch.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print it all as JSON, nothing else.")] = False,
) -> None:
    """Run a few steps of a config on several ranks, and show what they send beside what the operating system sees.

    The ledger's messages and bytes, of each edge, direction and layer; sockets and shared memory of each pair of ranks.

    Exit status 0 if nothing is off the graph, 1 if anything is, 2 for wrong input. Linux only.
    """
    with reported(kept="nothing was left behind"):
        settings = load_config(config, overrides or [])
        plan = Plan(transport, links or settings.links, steps)
        plan.check()
        graph = CommunicationGraph.parse(settings.graph)
        found = audited(settings, graph, ranks or ranks_for(settings, graph), plan)
        if as_json:
            typer.echo(json.dumps(json_of(found), indent=2))
        else:
            console.print(as_text(found), highlight=False)
    if found.failures:
        leave(found.failures[0], FAILED)


def audit_rank(folder: Annotated[Path, typer.Argument(help="Where the auditor has written its plan.")]) -> None:
    """One rank of an audit, which starts it."""
    with reported():
        plan = Plan.read(folder)
        meet_early(plan.transport)
        settings = load_config(folder / CONFIG, [f"epochs={plan.steps + 1}"])  # as long as the schedule has to be
        graph = CommunicationGraph.parse(settings.graph)
        torch.set_num_threads(settings.threads)
        with join(plan.transport, plan.links, settings.timeout, settings.replicas) as world:
            run_as_rank(build(settings, graph, world), Meeting(folder, settings.timeout), plan.steps)
