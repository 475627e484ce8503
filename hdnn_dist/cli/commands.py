"""The command line, ``hdnn-dist``. A command is a function of a module of this package, registered below."""

from __future__ import annotations

import sys
from typing import Any

import typer

from hdnn_dist.cli import audit, bench, find_lr, inspect, report, reproduce, results, train
from hdnn_dist.cli.shell import WRONG_INPUT
from hdnn_dist.support.arguments import one_line

UsageError: Any = typer.BadParameter.__base__  # which typer has no public name for

app = typer.Typer(
    help="Train Hamiltonian deep neural networks whose agents talk to their graph neighbours only.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    train.train,
    inspect.check,
    inspect.topology,
    inspect.analyze,
    report.report,
    report.compare,
    find_lr.find_lr,
    reproduce.reproduce,
    bench.bench,
    audit.audit,
    results.predict,
    results.export,
):
    app.command()(command)
app.command("eval")(results.evaluate)
app.command("import")(results.import_)
app.command(hidden=True)(audit.audit_rank)  # which audit starts


def main() -> None:
    """The entry point of the command; without arguments it shows its help. A slip in usage is one line, like others."""
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], prog_name="hdnn-dist", standalone_mode=False))
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "hdnn-dist"
        message = one_line(error.format_message()).rstrip(".")
        sys.stderr.write(f"hdnn-dist: error: {message}; see {command} --help\n")
        sys.exit(WRONG_INPUT)
