"""``hdnn-dist report`` and ``compare``: pages about runs, from what their folders hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hdnn_dist.cli.shell import console, reported
from hdnn_dist.runs.record import read_run
from hdnn_dist.runs.report.run import report as report_page
from hdnn_dist.support.files import write_whole

MADE = "hdnn-dist"  # stands in every page of ours


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, finished or not.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write; default RUN/report.html.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file that is not of ours.")] = False,
) -> None:
    """Write one self-contained HTML page about a run: curves, graph, results, gradients, ranks, config."""
    with reported():
        path = output or run / "report.html"
        check_output(path, overwrite)
        console.print(f"report: {write_whole(path, report_page(read_run(run)))}")


def check_output(path: Path, overwrite: bool) -> None:
    """``ValueError`` for a place where nothing can be written, and for a file of somebody else."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else f"cannot be written: {path.parent} is no folder"
        raise ValueError(f"{path} {what}: name a file, such as report.html")
    if path.exists() and not overwrite and MADE not in path.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{path} is not a file of ours: choose another name, or pass --overwrite")
