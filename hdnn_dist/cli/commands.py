"""The command line, ``hdnn-dist``. A command is a function of a module of this package, named below.

A module, with all that it needs, is imported when its command is asked for: every rank of a job starts with this file.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from hdnn_dist.cli.shell import WRONG_INPUT
from hdnn_dist.support.arguments import one_line

UsageError: Any = typer.BadParameter.__base__  # which typer has no public name for

# What is typed, and where its function is, in the order of --help.
COMMANDS = {
    "train": ("train", "train"),
    "check": ("inspect", "check"),
    "topology": ("inspect", "topology"),
    "analyze": ("inspect", "analyze"),
    "report": ("report", "report"),
    "compare": ("report", "compare"),
    "find-lr": ("find_lr", "find_lr"),
    "reproduce": ("reproduce", "reproduce"),
    "bench": ("bench", "bench"),
    "audit": ("audit", "audit"),
    "predict": ("results", "predict"),
    "export": ("results", "export"),
    "eval": ("results", "evaluate"),
    "import": ("results", "import_"),
    "audit-rank": ("audit", "audit_rank"),
}
HIDDEN = "audit-rank"  # which audit starts


class Commands(TyperGroup):
    """Those of ``COMMANDS``, each imported when it is used, and those that are registered with ``app``."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names."""
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What runs a command; ``None`` for another name."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, function = COMMANDS[cmd_name]
        alone = typer.Typer(add_completion=False)
        alone.command(cmd_name, hidden=cmd_name == HIDDEN)(getattr(import_module(f"hdnn_dist.cli.{module}"), function))
        return get_command(alone)


app = typer.Typer(
    cls=Commands,
    callback=lambda: None,
    help="Train Hamiltonian deep neural networks whose agents talk to their graph neighbours only.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The entry point of the command; without arguments it shows its help. A slip in usage is one line, like others."""
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], prog_name="hdnn-dist", standalone_mode=False))
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "hdnn-dist"
        message = one_line(error.format_message()).rstrip(".")
        sys.stderr.write(f"hdnn-dist: error: {message}; see {command} --help\n")
        sys.exit(WRONG_INPUT)
