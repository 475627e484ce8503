"""``hdnn-dist reproduce``: the tables of the published experiments, made by training every cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from hdnn_dist.cli.shell import console, reported
from hdnn_dist.data.mnist_download import download as download_mnist
from hdnn_dist.experiments.catalogue import experiment_named
from hdnn_dist.experiments.cells import Experiment, Result
from hdnn_dist.experiments.choice import chosen_cells
from hdnn_dist.experiments.pages import Output, check_readme, write_page, write_readme
from hdnn_dist.experiments.records import Records
from hdnn_dist.experiments.running import Task, findings, missing, tasks, train_all

KEPT = "the trainings that ended are on record; the same command goes on from there"
errors = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)


def reproduce(
    name: Annotated[str | None, typer.Argument(help="The experiment; without one: which there are.")] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N", help="Train each cell with the seeds 0 to N - 1; default as published.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="The folder of MNIST's four files.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch MNIST's files into that folder first.")] = False,
    out: Annotated[Path, typer.Option(help="Where NAME.md, NAME.jsonl and the picture go.")] = Path("docs/results"),
    jobs: Annotated[str, typer.Option(metavar="N", help="Trainings at the same time, each on one thread.")] = "1",
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=VALUES", help="Of large tables: these cells, such as distance=5,10; repeatable."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of every cell's config, such as epochs=5."),
    ] = None,
) -> None:
    """Train every cell of an experiment; write its table into a page, its headline into ./README.md.

    The headline, one line, replaces what stands between <!-- reproduce NAME --> and <!-- end NAME -->.

    Each training that ends is put on record at once: after Ctrl-C the same command goes on from there. With --only the
    page shows what is on record by then.
    """
    with reported(KEPT):
        experiment = _changed(experiment_named(name), settings or [])
        count = experiment.seeds if seeds is None else _count("--seeds", seeds)
        workers = _count("--jobs", jobs)
        root = _files(experiment, data_root, download)
        check_readme(experiment.name)
        chosen, wanted = chosen_cells(experiment, only or []), tasks(experiment, count, root)
        output = Output(experiment.name, out)
        output.check()
        records = Records(output.records)
        todo = [task for task in wanted if task.cell in chosen]
        with _progress(todo, records) as on_result:
            train_all(todo, records, workers, on_result)
        _write(experiment, wanted, records, output, settings or [])


def _changed(experiment: Experiment, settings: Sequence[str]) -> Experiment:
    """With ``settings`` in every cell."""
    return replace(experiment, cells=tuple(cell.with_settings(settings) for cell in experiment.cells))


def _count(option: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{option} is {text!r}: expected a whole number of at least 1, such as {option} 3")
    return int(text)


def _files(experiment: Experiment, data_root: Path | None, download: bool) -> str | None:
    """The folder of MNIST's files, where one was given, after the download that was asked for."""
    if not experiment.reads_files and (download or data_root is not None):
        given = "--download" if download else f"--data-root {data_root}"
        raise ValueError(f"{given}: {experiment.name} makes its data and reads no files; leave it out")
    if download:
        download_mnist(data_root or Path(str(experiment.cells[0].settings(seed=0).data.root)))
    return None if data_root is None else str(data_root)


def _write(
    experiment: Experiment, wanted: Sequence[Task], records: Records, output: Output, settings: Sequence[str]
) -> None:
    found = findings(experiment, wanted, records)
    command = _command(experiment, len(found[0].results)) + "".join(f" --set {setting}" for setting in settings)
    written = write_page(experiment, found, command, output) + write_readme(experiment, found)
    console.print(experiment.table(found))
    console.print(f"written: {', '.join(map(str, written))}")


def _command(experiment: Experiment, seeds: int) -> str:
    """The command for the page: the same table elsewhere, so without this machine's folders."""
    files = " --data-root FOLDER" if experiment.reads_files else ""
    return f"hdnn-dist reproduce {experiment.name} --seeds {seeds}{files}"


@contextmanager
def _progress(wanted: Sequence[Task], records: Records) -> Iterator[Callable[[Task, Result], None]]:
    """On the standard error: a bar over all trainings on a terminal, elsewhere a line for each that ended."""
    done = len(wanted) - len(missing(wanted, records))
    if done:
        errors.print(f"{done} of {len(wanted)} trainings are on record already")
    if not errors.is_terminal:
        yield _lines(done, len(wanted))
        return
    columns = ("trainings", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.fields[last]}")
    with Progress(*columns, console=errors) as bar:
        shown = bar.add_task("trainings", total=len(wanted), completed=done, last="")
        yield lambda task, result: bar.update(shown, advance=1, last=_told(task, result))


def _lines(done: int, total: int) -> Callable[[Task, Result], None]:
    ended = iter(range(done + 1, total + 1))
    return lambda task, result: errors.print(f"[{next(ended)}/{total}] {_told(task, result)}")


def _told(task: Task, result: Result) -> str:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in result.figures.items())
    accuracy = [] if result.accuracy is None else [f"{result.accuracy:.4f}"]
    found = ", ".join([*accuracy, *([figures] if figures else [])]) or "diverged"
    return f"{task.cell}, seed {task.seed}: {found}, {result.seconds:.1f} s"
