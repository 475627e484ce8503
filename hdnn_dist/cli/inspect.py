"""``hdnn-dist check``, ``topology`` and ``analyze``: what is known before, without and after training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer

from hdnn_dist.analysis.analyze import (
    NAMED,
    Analysis,
    analyse_controls,
    analyse_counterexample,
    analyse_depth,
    analyse_run,
)
from hdnn_dist.analysis.analyze_transport import FIXED, analyse_initials, analyse_trained
from hdnn_dist.analysis.check import agents_by_name, check_config, extent
from hdnn_dist.analysis.cost import LayerCost, layer_cost
from hdnn_dist.cli.report import check_picture
from hdnn_dist.cli.shell import FAILED, ConfigFile, Overrides, console, default_folder, leave, reported, table
from hdnn_dist.exchange.connect import connect, meet_early
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.plots.graph import draw_graph
from hdnn_dist.runs.opened import Opened, read_run
from hdnn_dist.support.arguments import concerning
from hdnn_dist.support.markdown import padded_table
from hdnn_dist.training.config_files import load_config

MOST_DRAWN = 2**17  # edges: a layer's cost takes a network to be built, and a picture its time
LONGEST_NAME = 80  # characters of the default name of a picture


def check(
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Tell whether neighbours alone can train a config, how far its inputs reach, and what a layer costs.

    Exit status 0 if they can and the readout sees every input, 1 if not, 2 for what 'train' would refuse before it
    reads its data.
    """
    with reported():
        settings = load_config(config, overrides or [])
        checked = check_config(settings, CommunicationGraph.parse(settings.graph))
        table(checked.rows())
    if checked.warning is not None:
        console.print(f"warning: {checked.warning}")
    if checked.failure is not None:
        leave(checked.failure, FAILED)


def topology(
    graph: Annotated[
        str, typer.Argument(metavar="NAME_OR_FILE", help="ring:8, grid:8x8, torus:7x7, ..., or a graph file.")
    ],
    features: Annotated[int, typer.Option(min=1, help="Features of every agent.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Samples of a minibatch.")] = 125,
    architecture: Annotated[str, typer.Option(help="Architecture whose messages are counted.")] = "H2",
    picture: Annotated[Path | None, typer.Option(help="Where to draw it; default NAME.png.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Draw over a file that is not of ours; save over one that is there.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Of a file: one edge for links both ways or several; none to itself.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="Write the graph there: .edges, .graphml or .json, for a config to name.")
    ] = None,
) -> None:
    """Describe a communication graph, what a layer costs on it, and draw it."""
    with reported():
        known = CommunicationGraph.load(graph, merge=True) if merge else CommunicationGraph.parse(graph)
        if save is not None and save.exists() and not overwrite:
            raise ValueError(f"--save {save}: the file exists; choose another, or pass --overwrite")
        drawing = picture or Path(re.sub(r"[^\w.+-]", "_", known.name)[:LONGEST_NAME] + ".png")
        check_picture(drawing, overwrite)
        if save is not None:
            known.save(save)
        large = len(known.edges) > MOST_DRAWN
        table(_described(known, None if large else layer_cost(known, features, batch, architecture=architecture)))
        console.print(f"picture: {f'none of more than {MOST_DRAWN} edges' if large else draw_graph(known, drawing)}")


def _described(graph: CommunicationGraph, cost: LayerCost | None) -> dict[str, object]:
    diameter, centre = extent(graph)
    unknown = f"not computed for more than {MOST_DRAWN} edges"
    return {
        "graph": graph.name,
        "agents": graph.agents,
        "edges": len(graph.edges),
        "degree": f"{graph.degree.min()} to {graph.degree.max()}, mean {graph.degree.mean():.2f}",
        "diameter": diameter,
        "centre": centre,
        "forward, a layer": unknown if cost is None else cost.forward,
        "backward, a layer": unknown if cost is None else cost.backward,
        **agents_by_name(graph),
    }


def analyze(
    what: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help=f"A finished run's folder, or one of {', '.join(NAMED)}."),
    ] = None,
    of: Annotated[
        Path | None, typer.Argument(metavar="[RUN|CONFIG]", help="Of transport: a run's folder, or a TOML file.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="AGENT", help="Of transport: whose state is changed; default the farthest."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of transport: change a key; repeatable.")
    ] = None,
    transport: Annotated[str, typer.Option(help="auto, local, c10d (under torchrun) or mpi (under mpirun).")] = "auto",
    run_dir: Annotated[
        Path | None, typer.Option(help=f"Where {', '.join(NAMED)} write; default runs/NAME-TIME.")
    ] = None,
) -> None:
    """Show how gradients travel: norms of the sensitivity matrices with their bounds, singular values, gradients.

    RUN              analysis.json and pictures of a finished run, into its folder
    counterexample   a system whose sensitivity diverges although its state hardly moves
    depth            4 to 4096 layers of H2, H1-J1 and an MLP
    controls         what smoothness, weight penalty and decay, projection and damping do, weaker and stronger
    transport        how far a change at one agent gets, layer by layer: of a CONFIG with every initialisation, or of a
                     RUN before and after training, into its folder
    """
    with reported():
        if what is None:
            raise ValueError(f"RUN is missing: give the folder of a finished run, or one of {', '.join(NAMED)}")
        if what == "transport":
            return _show(_transport(of, source, overrides or [], transport, run_dir))
        _refuse_those_of_transport(what, {"RUN or CONFIG": of, "--from": source, "--set": overrides})
        torch.set_num_threads(1)
        folder = run_dir or default_folder(Path(what))
        with connect(transport) as world:
            if what == "counterexample":
                found = analyse_counterexample(folder) if world.rank == 0 else Analysis()
            elif what == "depth":
                found = analyse_depth(folder, world)
            elif what == "controls":
                found = analyse_controls(folder, world)
            else:
                found = analyse_run(_run_folder(what, run_dir), world)
        _show(found)


def _show(found: Analysis) -> None:
    if found.rows:
        console.print(padded_table(found.rows))
    for line in (*found.notes, *found.written):
        console.print(str(line))


def _run_folder(what: str, run_dir: Path | None) -> Path:
    if run_dir is not None:
        raise ValueError(f"--run-dir {run_dir}: the analysis of a run is written into its own folder, {what}")
    return Path(what)


def _refuse_those_of_transport(what: str, given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} is given, but only 'analyze transport' takes it, not 'analyze {what}': leave it out"
            )


def _transport(
    of: Path | None, source: str | None, overrides: list[str], transport: str, run_dir: Path | None
) -> Analysis:
    meet_early(transport)
    settings = [*overrides, *FIXED]
    if of is not None and of.is_dir():
        opened = read_run(_run_folder(str(of), run_dir), settings, ", or a config file")
    else:
        config = load_config(of, settings)
        opened = Opened(run_dir or default_folder(Path("transport")), config, CommunicationGraph.parse(config.graph))
    with concerning("--from"):
        agent = None if source is None else opened.graph.agent(source)
    torch.set_num_threads(1)
    with connect(transport, timeout=opened.config.timeout, links=opened.config.links) as world:
        analyse = analyse_trained if of is not None and of.is_dir() else analyse_initials
        return analyse(opened, world, agent)
