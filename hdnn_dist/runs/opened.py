"""A run folder, opened: its config and graph, and the job that it was, with the weights that it ended with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.common_facts import same_in_world
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.trained import TrainedModule
from hdnn_dist.runs.checkpoint import CHECKPOINTS, Statistics, load_statistics, load_weights, weights_folder
from hdnn_dist.runs.folder import CONFIG, graph_of
from hdnn_dist.runs.index import INDEX, check_file, read_index
from hdnn_dist.support.arguments import shown
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
        read_weights(job.net, job.others, opened.path)
        _refuse_other_statistics(job.statistics, local_statistics(opened.path, job.agents), job.agents)
    return job


def read_weights(net: HDNN, others: Sequence[TrainedModule], path: Path) -> None:
    """Set this rank's weights from those of a run folder: of the end, or of its newest complete checkpoint.

    Needs no message. ``ValueError`` for weights that are missing, damaged, or of another network.
    """
    folder = weights_folder(path / CHECKPOINTS)
    if (folder / INDEX).is_file():
        files = read_index(folder).files
        for name in sorted(name for name in files if name.startswith("rank-")):
            check_file(folder, name, files)
    load_weights(net, others, folder)


def local_statistics(path: Path, agents: Agents) -> dict[int, dict[str, Tensor]]:
    """The statistics of the data that a run keeps beside its weights, of the agents of this rank: (columns,) each."""
    known = load_statistics(path / CHECKPOINTS)
    return {agent: known[agent] for agent in agents.local.tolist() if agent in known}


def _refuse_other_statistics(found: Statistics, saved: Statistics, agents: Agents) -> None:
    """Data that are standardised otherwise than those of the run mean something else to its network."""
    for agent, own in saved.items():
        for name, values in own.items():
            now, then = np.asarray(found.get(agent, {}).get(name, ())), np.asarray(values)
            if now.shape != then.shape or not np.allclose(now, then, rtol=1e-5, atol=1e-8):
                raise ValueError(
                    f"{name} of the training samples of {agents.graph.named(agent)} is {shown(now.tolist())}, but was "
                    f"{shown(then.tolist())} in the run: these are other data; give the samples to 'predict' as a file"
                )


def placed_on(config: Config, world: World) -> Config:
    """A config whose placement fits a world: ranks that were given by hand are those of the run's own job."""
    given = config.placement
    if isinstance(given, str):
        return config
    ranks = 1 + int(np.max(list(given.values() if isinstance(given, Mapping) else given), initial=-1))
    return config if ranks == world.size else config.model_copy(update={"placement": "auto"})
