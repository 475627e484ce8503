"""A run folder, opened: its config and graph, and the job that it was, with the weights that it ended with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.common_facts import same_in_world
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.runs.checkpoint import CHECKPOINTS, load_weights
from hdnn_dist.runs.folder import CONFIG, graph_of
from hdnn_dist.training.build import build
from hdnn_dist.training.config import Config
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.job import Job


class Opened(NamedTuple):
    """What a run folder says of its run."""

    path: Path
    config: Config
    graph: CommunicationGraph


def read_run(path: Path, overrides: Sequence[str] = (), instead: str = "") -> Opened:
    """The config of a run, changed by ``key=value`` overrides, and its graph; needs no message.

    ``ValueError`` for a folder that is no run; ``instead``: what else could have been given.
    """
    if not (path / CONFIG).is_file():
        raise ValueError(f"{path} is no run folder, it has no {CONFIG}: give the folder of a run{instead}")
    config = load_config(path / CONFIG, overrides)
    return Opened(path, config, graph_of(path, config))


def read_run_together(path: Path, world: World) -> Opened:
    """The same on all ranks of a world, which all have to call it: what one of them cannot read, all refuse."""
    refused: ValueError | None = None
    try:
        opened = read_run(path)
    except ValueError as error:
        refused = error
    same_in_world(world, {f"run folder {path}": "can be read" if refused is None else f"refused ({refused})"})
    if refused is not None:
        raise refused
    return opened


def open_job(opened: Opened, world: World) -> Job:
    """The job of a run, with its data and the weights that were saved; every rank has to call it.

    ``ValueError`` for what cannot be built, for weights that are missing or damaged, and for those of another network.
    """
    job = build(placed_on(opened.config, world), opened.graph, world)
    with agreed(job.head.everyone):
        load_weights(job.net, job.others, opened.path / CHECKPOINTS)
    return job


def placed_on(config: Config, world: World) -> Config:
    """A config whose placement fits a world: ranks that were given by hand are those of the run's own job."""
    given = config.placement
    if isinstance(given, str):
        return config
    ranks = 1 + int(np.max(list(given.values() if isinstance(given, Mapping) else given), initial=-1))
    return config if ranks == world.size else config.model_copy(update={"placement": "auto"})
