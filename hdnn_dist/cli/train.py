"""``hdnn-dist train``: a run folder from a config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from hdnn_dist.cli.progress import progress
from hdnn_dist.cli.resuming import FoundRun, Remap, Resume, config_to_resume, found_run
from hdnn_dist.cli.shell import ConfigFile, Overrides, console, default_folder, reported
from hdnn_dist.exchange.agreement import agreed, told_by_root
from hdnn_dist.exchange.connect import connect, meet_early
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.model.metrics import headline
from hdnn_dist.runs.checkpoint import CHECKPOINTS, save_weights
from hdnn_dist.runs.description import save_description
from hdnn_dist.runs.findings import find, write_findings
from hdnn_dist.runs.folder import RunFolder
from hdnn_dist.runs.links import pairs_by_link
from hdnn_dist.runs.pictures import decision_plane, draw_run
from hdnn_dist.runs.summary import summarise
from hdnn_dist.runs.watchers import require_watchers, watchers
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import Epoch, Trainer


def train(
    config: ConfigFile = None,
    overrides: Overrides = None,
    transport: Annotated[str, typer.Option(help="auto, local, c10d (under torchrun) or mpi (under mpirun).")] = "auto",
    run_dir: Annotated[Path | None, typer.Option(help="Where to write; default runs/NAME-TIME.")] = None,
    replicas: Annotated[
        int | None,
        typer.Option(help="Groups of ranks with all agents each that share the batches; default 1."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Allow a run folder that holds another run of ours.")
    ] = False,
    resume: Resume = None,
    remap: Remap = False,
) -> None:
    """Train a network and write a run folder: config, metrics, summary and pictures.

    In one process:   hdnn-dist train
    On 8 ranks:       torchrun --standalone --nproc-per-node 8 -m hdnn_dist train
    Over MPI:         mpiexec -n 8 python -m mpi4py -m hdnn_dist train
    Two replicas:     mpiexec -n 8 python -m mpi4py -m hdnn_dist train --replicas 2
    """
    with reported():
        meet_early(transport)
        changes = [*(overrides or []), *([] if replicas is None else [f"replicas={replicas}"])]
        settings = load_config(config_to_resume(config, resume), changes)
        graph = CommunicationGraph.parse(settings.graph)
        torch.set_num_threads(settings.threads)
        with connect(transport, timeout=settings.timeout, links=settings.links, replicas=settings.replicas) as world:
            job = build(settings, graph, world)
            trainer = Trainer(job)
            found = found_run(trainer, resume, run_dir, remap)
            new = partial(RunFolder.new, default_folder(config), settings)
            _train(trainer, found, found.maker(run_dir, overwrite) or new)


def _train(trainer: Trainer, found: FoundRun, make: Callable[[], RunFolder]) -> None:
    """``make``: the run folder, which the root makes; its name and its clock decide for all ranks."""
    job, folder = trainer.job, None
    with agreed(job.head.everyone):
        if job.is_root:
            require_watchers(job.config)
            folder = make()
            save_description(job.about, folder.path)
    path = Path(told_by_root(job.head.everyone, "" if folder is None else str(folder.path)))
    _tell_links(job)
    with (
        _watched(job, folder) as listeners,
        progress(trainer, console) as (on_step, on_epoch),
        found.checkpointed(path) as checkpoints,
    ):
        outcome = trainer.run(
            _each([checkpoints.on_step, on_step]), _each([*listeners, on_epoch, checkpoints.on_epoch])
        )
        checkpoints.finish()
    summary = summarise(job, outcome, trainer.evaluate(job.train), trainer.evaluate(job.test))
    with agreed(job.head.everyone):
        save_weights(job.net, job.others, path / CHECKPOINTS, job.statistics)
    plane, findings = decision_plane(job), find(job, outcome)
    with agreed(job.head.everyone):
        if folder is not None:
            write_findings(path, findings, plane)
            folder.finish(summary)
    if job.is_root:
        _tell(summary, path, draw_run(job, outcome.epochs, path, plane))


def _tell_links(job: Job) -> None:
    """The first line of a run on several ranks."""
    counts = [f"{len(pairs)} through {link}" for link, pairs in pairs_by_link(job).items()]
    if job.is_root and job.agents.world.job.size > 1:
        edges = f"; edges between ranks: {', '.join(counts)}" if counts else ""
        console.print(f"{job.agents.graph.name} on {_ranks(job.agents.world)}{edges}", highlight=False)


def _ranks(world: World) -> str:
    apart = "" if world.replicas == 1 else f" in {world.replicas} replicas"
    return f"{world.job.size} ranks{apart}, {world.transport}"


def _each(listeners: Sequence[Callable[..., None]]) -> Callable[..., None]:
    """One after the other."""

    def tell(*arguments: Any) -> None:
        for listener in listeners:
            listener(*arguments)

    return tell


@contextmanager
def _watched(job: Job, folder: RunFolder | None) -> Iterator[list[Callable[[Epoch], None]]]:
    """Who is told of every epoch on this rank: the run folder first. One that does not start fails on every rank."""
    with ExitStack() as stack:
        told: list[Callable[[Epoch], None]] = []
        with agreed(job.head.everyone):
            if folder is not None:
                told = [folder.add, *stack.enter_context(watchers(job.config, folder.path))]
        yield told


def _tell(summary: dict[str, Any], path: Path, pictures: list[Path]) -> None:
    console.print(
        f"{summary['architecture']}, {summary['agents']} agents on {summary['graph']}, {summary['ranks']} ranks "
        f"({summary['transport']}): test {headline(summary['test_metrics'])}, loss {summary['loss']:.4f}, "
        f"{summary['seconds']:.1f} s, off-graph messages {summary['off_graph_messages']}"
    )
    console.print(f"run folder: {path}    pictures: {', '.join(picture.name for picture in pictures)}")
