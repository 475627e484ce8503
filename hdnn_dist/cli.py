"""The command line: ``hdnn-dist train``, ``check``, ``analyze`` and ``topology``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from hdnn_dist.cost import layer_cost
from hdnn_dist.graph import CommunicationGraph
from hdnn_dist.plots import draw_graph
from hdnn_dist.training.agreement import agreed
from hdnn_dist.training.analysing import analyse_counterexample, analyse_depth, analyse_run
from hdnn_dist.training.build import Job, build
from hdnn_dist.training.checking import check_config
from hdnn_dist.training.checkpoint import CHECKPOINTS, save_weights
from hdnn_dist.training.config import load_config
from hdnn_dist.training.loop import DivergenceError, Epoch, Trainer
from hdnn_dist.training.pictures import draw_run
from hdnn_dist.training.runs import RunFolder
from hdnn_dist.training.summary import summarise
from hdnn_dist.transport import TransportError, connect

WRONG_INPUT, FAILED, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    help="Train Hamiltonian deep neural networks whose agents talk to their graph neighbours only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(soft_wrap=True, markup=False, emoji=False)


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file; without one: 8 agents on a ring, double circles.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as --set network.layers=64; repeatable."),
    ] = None,
    transport: Annotated[str, typer.Option(help="auto, local, c10d (under torchrun) or mpi (under mpirun).")] = "auto",
    run_dir: Annotated[Path | None, typer.Option(help="Where to write; default runs/NAME-TIME.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Allow a run folder that holds a finished run.")
    ] = False,
) -> None:
    """Train a network and write a run folder: config, metrics, summary and pictures.

    In one process:   hdnn-dist train
    On 8 ranks:       torchrun --standalone --nproc-per-node 8 -m hdnn_dist train
    Over MPI:         mpiexec -n 8 python -m mpi4py -m hdnn_dist train
    """
    with _reported():
        settings = load_config(config, overrides or [])
        graph = CommunicationGraph.parse(settings.graph)
        torch.set_num_threads(settings.threads)
        with connect(transport, timeout=settings.timeout) as world:
            job = build(settings, graph, world)
            _train(job, run_dir or _default_folder(config), overwrite)


@app.command()
def check(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file; without one: 8 agents on a ring, double circles.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as --set network.layers=64; repeatable."),
    ] = None,
) -> None:
    """Tell whether neighbours alone can train a config, how far its inputs reach, and what a layer costs.

    Exit status 0 if they can and the readout sees every input, 1 if not, 2 for wrong input.
    """
    with _reported():
        settings = load_config(config, overrides or [])
        checked = check_config(settings, CommunicationGraph.parse(settings.graph))
        _table(checked.rows())
    if checked.failure is not None:
        _leave(checked.failure, FAILED)


@app.command()
def topology(
    graph: Annotated[
        str, typer.Argument(metavar="NAME_OR_FILE", help="ring:8, grid:8x8, torus:7x7, ..., or a graph file.")
    ],
    features: Annotated[int, typer.Option(min=1, help="Features of every agent.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Samples of a minibatch.")] = 125,
    architecture: Annotated[str, typer.Option(help="Architecture whose messages are counted.")] = "H2",
    picture: Annotated[Path | None, typer.Option(help="Where to draw it; default NAME.png.")] = None,
) -> None:
    """Describe a communication graph, what a layer costs on it, and draw it."""
    with _reported():
        known = CommunicationGraph.parse(graph)
        drawing = picture or Path(known.name.translate(str.maketrans(":,/", "___")) + ".png")
        if not drawing.parent.is_dir():
            raise ValueError(f"--picture {drawing}: the folder {drawing.parent} does not exist")
        cost = layer_cost(known, features, batch, architecture=architecture)
        rows = {
            "graph": known.name,
            "agents": known.agents,
            "edges": len(known.edges),
            "degree": f"{known.degree.min()} to {known.degree.max()}, mean {known.degree.mean():.2f}",
            "diameter": known.diameter,
            "centre": known.centre,
            "forward, a layer": cost.forward,
            "backward, a layer": cost.backward,
        }
        _table(rows)
        console.print(f"picture: {draw_graph(known, drawing)}")


@app.command()
def analyze(
    what: Annotated[str, typer.Argument(metavar="RUN", help="A finished run's folder, 'counterexample' or 'depth'.")],
    transport: Annotated[str, typer.Option(help="auto, local, c10d (under torchrun) or mpi (under mpirun).")] = "auto",
    run_dir: Annotated[
        Path | None, typer.Option(help="Where 'counterexample' and 'depth' write; default runs/NAME-TIME.")
    ] = None,
) -> None:
    """Show how gradients travel: norms of the sensitivity matrices with their bounds, singular values, gradients.

    RUN              analysis.json and pictures of a finished run, into its folder
    counterexample   a system whose sensitivity diverges although its state hardly moves
    depth            4 to 4096 layers of H2, H1-J1 and an MLP
    """
    with _reported():
        torch.set_num_threads(1)
        folder = run_dir or _default_folder(Path(what))
        with connect(transport) as world:
            if what == "counterexample":
                written = analyse_counterexample(folder) if world.rank == 0 else []
            elif what == "depth":
                written = analyse_depth(folder, world)
            else:
                written = analyse_run(_run_folder(what, run_dir), world)
        for path in written:
            console.print(str(path))


def _run_folder(what: str, run_dir: Path | None) -> Path:
    if run_dir is not None:
        raise ValueError(f"--run-dir {run_dir}: the analysis of a run is written into its own folder, {what}")
    return Path(what)


def main() -> None:
    """The entry point of the command."""
    app(prog_name="hdnn-dist")


def _table(rows: Mapping[str, object]) -> None:
    for name, value in rows.items():
        console.print(f"{name:<18} {value}")


def _train(job: Job, path: Path, overwrite: bool) -> None:
    folder = None
    with agreed(job.head.everyone):
        if job.is_root:
            folder = RunFolder(path, job.config, overwrite)
    trainer = Trainer(job)
    with _progress(job, trainer.steps_per_epoch) as (on_step, on_epoch):
        outcome = trainer.run(on_step, _then(folder, on_epoch))
    summary = summarise(job, outcome, trainer.evaluate(job.train), trainer.evaluate(job.test))
    with agreed(job.head.everyone):
        save_weights(job.net, job.head, path / CHECKPOINTS)
    with agreed(job.head.everyone):
        if folder is not None:
            folder.finish(summary)
        pictures = draw_run(job, outcome.epochs, path)
    if job.is_root:
        _tell(summary, path, pictures)


def _then(folder: RunFolder | None, on_epoch: Callable[[Epoch], None]) -> Callable[[Epoch], None]:
    def write_and_show(row: Epoch) -> None:
        if folder is not None:
            folder.add(row)
        on_epoch(row)

    return write_and_show


@contextmanager
def _progress(job: Job, steps: int) -> Iterator[tuple[Callable[[int, int], None], Callable[[Epoch], None]]]:
    """A bar over all steps with the last epoch beside it, on the root's rank and on a terminal only."""
    if not (job.is_root and console.is_terminal):
        yield lambda epoch, step: None, lambda row: None
        return
    columns = (
        "{task.description}",
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        "{task.fields[last]}",
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=job.config.epochs * steps, last="")

        def show(row: Epoch) -> None:
            last = f"epoch {row.epoch}: loss {row.loss:.4f}, test accuracy {row.test_accuracy:.4f}"
            bar.update(task, last=last)

        yield lambda epoch, step: bar.advance(task), show


def _tell(summary: dict[str, Any], path: Path, pictures: list[Path]) -> None:
    console.print(
        f"{summary['architecture']}, {summary['agents']} agents on {summary['graph']}, {summary['ranks']} ranks "
        f"({summary['transport']}): test accuracy {summary['test_accuracy']:.4f}, loss {summary['loss']:.4f}, "
        f"{summary['seconds']:.1f} s, off-graph messages {summary['off_graph_messages']}"
    )
    console.print(f"run folder: {path}    pictures: {', '.join(picture.name for picture in pictures)}")


def _default_folder(config: Path | None) -> Path:
    name = "default" if config is None else config.stem
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def _reported() -> Iterator[None]:
    """Turn failures into one line and an exit status: 2 for wrong input, 1 for a failed run, 130 for Ctrl-C."""
    try:
        with _warned_once():
            yield
    except ValueError as error:
        _leave(f"error: {error}", WRONG_INPUT)
    except (TransportError, DivergenceError, OSError, MemoryError) as error:
        _leave(f"failed: {error}", FAILED)
    except KeyboardInterrupt:
        _leave("interrupted; the run folder holds what was finished", INTERRUPTED)


@contextmanager
def _warned_once() -> Iterator[None]:
    """Show the first warning of a kind, in one line; the drift of the state can come with every step."""
    shown = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if category not in shown:
            sys.stderr.write(f"hdnn-dist: warning: {message}\n")
        shown.add(category)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _leave(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"hdnn-dist: {message}\n")
    raise typer.Exit(status)
