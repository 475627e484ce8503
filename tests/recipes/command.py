"""Recipe: a command. One file: a typer function, registered with the application."""

import typer

from hdnn_dist import CommunicationGraph
from hdnn_dist.cli import app
from hdnn_dist.cli.shell import reported


def leaves(graph: str) -> None:
    """Count the agents that have one neighbour."""
    with reported():
        typer.echo(int((CommunicationGraph.parse(graph).degree == 1).sum()))


app.command()(leaves)
