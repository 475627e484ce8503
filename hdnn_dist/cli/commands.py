"""The command line, ``hdnn-dist``. A command is a function of a module of this package, registered below."""

from __future__ import annotations

import typer

from hdnn_dist.cli import bench, inspect, reproduce, train

app = typer.Typer(
    help="Train Hamiltonian deep neural networks whose agents talk to their graph neighbours only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    train.train,
    inspect.check,
    inspect.topology,
    inspect.analyze,
    reproduce.reproduce,
    bench.bench,
):
    app.command()(command)


def main() -> None:
    """The entry point of the command."""
    app(prog_name="hdnn-dist")
