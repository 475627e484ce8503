"""``hdnn-dist report`` and ``compare``: pages about runs, from what their folders hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from hdnn_dist.cli.shell import console, reported
from hdnn_dist.plots.series import draw_panels
from hdnn_dist.plots.style import is_ours
from hdnn_dist.runs.record import read_run
from hdnn_dist.runs.report.comparison import Comparison
from hdnn_dist.runs.report.run import report as report_page
from hdnn_dist.support.files import write_whole
from hdnn_dist.support.markdown import aligned_table

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


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="The folders of two runs or more.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as a page of Markdown.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write an HTML page there.")] = None,
    picture: Annotated[Path, typer.Option(help="Where to draw the curves together.")] = Path("compare.png"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file that is not of ours.")] = False,
) -> None:
    """Set runs side by side: the keys of their configs that differ, their results, their curves in one picture."""
    with reported("nothing was written"):
        if len(runs) < 2:
            raise ValueError(f"{runs[0]} is alone: give two runs or more, or see 'hdnn-dist report'")
        check_picture(picture, overwrite)
        if output is not None:
            check_output(output, overwrite)
        found = Comparison([read_run(run) for run in runs])
        written = [f"picture: {draw_panels(found.panels(), picture)}"]
        if output is not None:
            written.append(f"page: {write_whole(output, found.html())}")
        console.print(found.markdown() if markdown else "\n".join([*_tables(found), *written]))


def _tables(found: Comparison) -> Iterator[str]:
    """As plain text, an empty line behind each."""
    for lines in filter(None, (found.differences, found.results)):
        yield aligned_table(["", *found.names], lines) + "\n"
    if not found.differences:
        yield "the configs do not differ"


def check_picture(path: Path, overwrite: bool) -> None:
    """``ValueError`` for a place where no picture can be written, and for a file that is no picture of ours."""
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--picture {path}: the folder {path.parent} does not exist")
    if path.exists() and not overwrite and not (path.is_file() and is_ours(path)):
        raise ValueError(f"{path} is not a picture of ours: choose another --picture, or pass --overwrite")


def check_output(path: Path, overwrite: bool) -> None:
    """``ValueError`` for a place where nothing can be written, and for a file of somebody else."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else f"cannot be written: {path.parent} is no folder"
        raise ValueError(f"{path} {what}: name a file, such as report.html")
    if path.exists() and not overwrite and MADE not in path.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{path} is not a file of ours: choose another name, or pass --overwrite")
