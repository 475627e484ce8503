"""``hdnn-dist eval``, ``predict``, ``export`` and ``import``: what is taken away from a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from hdnn_dist.cli.shell import Overrides, console, reported
from hdnn_dist.exchange.connect import connect, meet_early
from hdnn_dist.exchange.world import World
from hdnn_dist.runs.evaluation import scores
from hdnn_dist.runs.export import DENSE, FORMATS, export_run, import_run
from hdnn_dist.runs.opened import open_job, read_run
from hdnn_dist.runs.prediction import predict_run
from hdnn_dist.runs.prediction_files import refuse_existing
from hdnn_dist.support.arguments import named
from hdnn_dist.support.markdown import padded_table
from hdnn_dist.training.config import Config

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
Transport = Annotated[str, typer.Option(help="auto, local, c10d (under torchrun) or mpi (under mpirun).")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Allow an output that is there already.")]
NOTHING = "nothing was written"


def evaluate(
    run: Run,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="KEY=VALUE", help="Other data, such as --data samples=800; repeatable."),
    ] = None,
    overrides: Overrides = None,
    transport: Transport = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Loss and metrics of a saved run on its samples for training and test, or on other data.

    On any number of ranks, under any launcher: the numbers are those of its summary.json, to rounding.
    """
    with reported(NOTHING):
        meet_early(transport)
        opened = read_run(run, [*(overrides or []), *(f"data.{pair}" for pair in data or [])])
        with _world(opened.config, transport) as world:
            job = open_job(opened, world)
            found = scores(job)
            if job.is_root:
                _tell(run, found, as_json)


def predict(
    run: Run,
    data: Annotated[str, typer.Argument(metavar="DATA", help="test, train, or a file: .csv, .npz or .parquet.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write: .csv, .npz or .parquet.")],
    overrides: Overrides = None,
    transport: Transport = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Write what a saved run says of samples: an id, then class and probabilities, or values.

    A file of samples has all columns of the data set, in their order, and 'id' beside them if you like.
    """
    with reported(NOTHING):
        meet_early(transport)
        opened = read_run(run, overrides or [])
        with _world(opened.config, transport) as world:
            samples = predict_run(opened, world, data, output, overwrite)
            if not world.rank:
                console.print(f"{samples} samples: {output}")


def export(
    run: Run,
    output: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write, such as model.safetensors.")],
    form: Annotated[
        str, typer.Option("--format", help="safetensors (dense matrices) or torch (a program, .pt2).")
    ] = DENSE,
    overwrite: Overwrite = False,
) -> None:
    """Write a run as one file for one process: dense K, b, J and readout, or a program of torch.export.

    By this process alone, whatever ranks the run had. docs/export.md has a plain torch loader.
    """
    with reported(NOTHING):
        named("format", form, dict.fromkeys(FORMATS))
        refuse_existing(output, overwrite)
        console.print(f"exported: {export_run(read_run(run), output, form)}")


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What 'hdnn-dist export' wrote, .safetensors.")],
    run_dir: Annotated[Path, typer.Option(help="The run folder to make.")],
    overwrite: Overwrite = False,
) -> None:
    """Make a run folder of an exported file, with the same weights bit for bit."""
    with reported(NOTHING):
        console.print(f"run folder: {import_run(file, run_dir, overwrite)}")


def _world(settings: Config, transport: str) -> World:
    torch.set_num_threads(settings.threads)
    return connect(transport, timeout=settings.timeout, links=settings.links)


def _tell(run: Path, found: dict[str, dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"run": str(run), **found}, indent=2))
    else:
        console.print(padded_table(_rows(found)))


def _rows(found: dict[str, dict[str, Any]]) -> Sequence[dict[str, Any]]:
    return [{"samples of": name, **dict(map(_digits, numbers.items()))} for name, numbers in found.items()]


def _digits(pair: tuple[str, Any]) -> tuple[str, Any]:
    name, value = pair
    return name, f"{value:.6g}" if isinstance(value, float) else value
