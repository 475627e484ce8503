"""What every command shares: where it prints, how it ends, and in which folder it writes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from hdnn_dist.exchange.agreement import RankError
from hdnn_dist.exchange.ending import end_now
from hdnn_dist.exchange.launchers import launched_as
from hdnn_dist.exchange.world import TransportError
from hdnn_dist.graph.source import GraphFileWarning
from hdnn_dist.support.arguments import one_line
from hdnn_dist.training.loop import DivergenceError

WRONG_INPUT, FAILED, INTERRUPTED = 2, 1, 130

ConfigFile = Annotated[Path | None, typer.Argument(help="TOML file; without one: 8 agents on a ring, double circles.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as --set network.layers=64; repeatable."),
]

console = Console(soft_wrap=True, markup=False, emoji=False)


def table(rows: Mapping[str, object]) -> None:
    """Print names and values in two columns."""
    for name, value in rows.items():
        console.print(f"{name:<18} {value}")


def default_folder(config: Path | None) -> Path:
    """``runs/NAME-TIME``, after the name of the config file."""
    name = "default" if config is None else config.stem
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def reported(kept: str = "the run folder holds what was finished") -> Iterator[None]:
    """Turn failures into one line and an exit status: 2 for wrong input, 1 for a failed run, 130 for Ctrl-C.

    ``kept``: what Ctrl-C leaves behind.
    """
    try:
        with _warned_once():
            yield
    except ValueError as error:
        leave(f"error: {error}", WRONG_INPUT)
    except (TransportError, RankError, DivergenceError, OSError, MemoryError) as error:
        leave(f"failed: {str(error) or 'out of memory'}", FAILED)
    except KeyboardInterrupt:
        leave(f"interrupted; {kept}", INTERRUPTED)


@contextmanager
def _warned_once() -> Iterator[None]:
    """Show the first warning of a kind, in one line; the drift of the state can come with every step.

    What is said of a graph file is shown by one rank, each line once.
    """
    shown: set[object] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        of_file = issubclass(category, GraphFileWarning)
        kind = (category, str(message)) if of_file else category
        if kind not in shown and not (of_file and launched_as()):
            sys.stderr.write(f"hdnn-dist: warning: {one_line(message)}\n")
        shown.add(kind)

    with warnings.catch_warnings():
        warnings.simplefilter("always", GraphFileWarning)
        warnings.showwarning = show
        yield


def leave(message: str, status: int) -> NoReturn:
    """One line on the standard error, and the end of the command, for which no other rank waits."""
    sys.stderr.write(f"hdnn-dist: {one_line(message)}\n")
    end_now(status)
    raise typer.Exit(status)
