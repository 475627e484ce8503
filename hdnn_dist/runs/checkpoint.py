"""Weights on the disk: every rank writes those of its own agents, and any number of ranks reads them back.

A tensor belongs to an agent, or to the root, and its name says to whom:

    agent.I.K        (layers, operators, rows, columns)    the columns of the blocks that agent I reads, ascending
    agent.I.b        (layers, operators, biases, rows)
    agent.I.C        (1 or layers, rows, columns)          the coupling J or X, where it is trained
    agent.I.readout  (outputs, features times positions)   where the readout reads agent I
    readout.bias     (outputs,)
    agent.I.lift.weights  (features, channels, 3, 3)       where there is a lift
    agent.I.lift.bias     (features,)
    shared.ROLE.K    (layers, operators, rows, rows)       in the place of agent.I.K and agent.I.b where agents share
    shared.b         (layers, operators, biases, rows)     them; written by the rank of agent 0, read by all
    agent.I.statistics.NAME  (columns,)                    of the data that enter there, such as mean and std

Where layers have patterns of their own, there is a tensor for each, agent.I.K.LAYER and agent.I.b.LAYER.

The weights of a finished run are files of the folder itself. Beside them are checkpoints, each a folder that is
complete once it has an index (``index``):

    rank-R.safetensors               the weights of a finished run
    step-00000120/rank-R.safetensors weights after 120 steps, laid out alike
    step-00000120/state-R.safetensors  what else it takes to go on from there (``snapshot``)
    step-00000120/index.json         written last: the position, what the run was, every file with its checksum
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hdnn_dist.model.identity import refuse_other_weights
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.trained import TrainedModule, written
from hdnn_dist.runs.index import newest
from hdnn_dist.runs.sums import refuse_damaged, sums_of
from hdnn_dist.support.files import whole_file

CHECKPOINTS = "checkpoints"
PATTERN = "rank-*.safetensors"
STATISTICS = ".statistics."

Statistics = Mapping[int, Mapping[str, Tensor | np.ndarray]]


def save_weights(
    net: HDNN, others: Sequence[TrainedModule], folder: Path, statistics: Statistics | None = None
) -> Path:
    """Write this rank's ``rank-R.safetensors``: a reader finds a whole file or none. Needs no message.

    ``others``: what is trained beside the network, the head and the like; ``statistics``: of the data, of local agents,
    agent -> name -> (columns,). Of several replicas the first writes.
    """
    world = net.agents.world
    if world.replica:
        return folder / f"rank-{world.rank}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rank-{world.rank}.safetensors"
    own = {part.name: part.view(part.parameter) for part in written((net, *others), net.agents)}
    parts = {**own, **named_statistics(statistics or {})}
    tensors = {name: part.detach().cpu().clone().contiguous() for name, part in parts.items()}
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata={"ranks": str(world.size), **net.about(), **sums_of(tensors)})
    return path


def load_weights(net: HDNN, others: Sequence[TrainedModule], folder: Path) -> None:
    """Set this rank's weights from the files of a run, however many ranks wrote them. Needs no message.

    ``folder``: of all checkpoints of a run, or of one. Numbers are converted to the type of the network. Raises
    ``ValueError`` for files that are missing, damaged, or of other modules; then nothing is changed.
    """
    where = _index(weights_folder(folder), net.needed())
    _refuse_other_network(where.keys(), {name for module in (net, *others) for name in module.trained_names()}, folder)
    own = _tensors(net, *others)
    read = {name: part for path in set(where.values()) for name, part in _read(path, where, own)}
    with torch.no_grad():
        for name, part in own.items():
            part.copy_(read[name])


def weights_folder(folder: Path) -> Path:
    """Where the weights to use are: ``folder`` itself once a run is finished, else its newest complete checkpoint."""
    return folder if any(folder.glob(PATTERN)) else newest(folder) or folder


def named_statistics(statistics: Statistics) -> dict[str, Tensor]:
    """Statistics (columns,) by the names that they have on the disk."""
    return {
        f"agent.{agent}{STATISTICS}{name}": torch.as_tensor(values)
        for agent, own in statistics.items()
        for name, values in own.items()
    }


def load_statistics(folder: Path) -> dict[int, dict[str, Tensor]]:
    """Those of all agents that the files of ``folder`` hold, agent -> name -> (columns,); see ``load_weights``."""
    found: dict[int, dict[str, Tensor]] = {}
    for path in sorted(weights_folder(folder).glob(PATTERN)):
        with safe_open(path, framework="pt") as file:
            for name in (name for name in file.keys() if STATISTICS in name):  # noqa: SIM118
                agent, key = name.removeprefix("agent.").split(STATISTICS)
                part = refuse_damaged(file.get_tensor(name), name, file.metadata() or {}, path)
                found.setdefault(int(agent), {})[key] = part
    return found


def remove_weights(folder: Path) -> None:
    """Remove the files of an earlier run, which may have had more ranks."""
    for path in folder.glob(PATTERN):
        path.unlink(missing_ok=True)


def _tensors(*modules: TrainedModule) -> dict[str, Tensor]:
    """Views of everything that is trained on this rank, by name."""
    return {part.name: part.view(part.parameter) for module in modules for part in module.trained()}


def _index(folder: Path, about: Mapping[str, str]) -> dict[str, Path]:
    """Which file holds each tensor."""
    files = sorted(folder.glob(PATTERN))
    if not files:
        raise ValueError(
            f"{folder} holds no weights ({PATTERN}): give the checkpoints folder of a finished run, or "
            "of one with a complete checkpoint"
        )
    where: dict[str, Path] = {}
    for path in files:
        names, metadata = _names(path)
        ranks = metadata.get("ranks")
        if ranks != str(len(files)):
            raise ValueError(f"{folder} holds {len(files)} files, but {path.name} was written by one of {ranks} ranks")
        refuse_other_weights(str(path), metadata, about)
        twice = where.keys() & names
        if twice:
            raise ValueError(f"{path.name} and {where[min(twice)].name} both hold {min(twice)}: they are of two runs")
        where.update(dict.fromkeys(names, path))
    return where


def _names(path: Path) -> tuple[set[str], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name for name in file.keys() if STATISTICS not in name}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None


def _refuse_other_network(found: Set[str], needed: Set[str], folder: Path) -> None:
    """The names are known for all agents, so that every rank refuses alike."""
    if needed - found:
        raise ValueError(f"{folder} has no {min(needed - found)}, which this network needs: it is of another network")
    if found - needed:
        raise ValueError(f"{folder} has {min(found - needed)}, which this network has not: it is of another network")


def _read(path: Path, where: Mapping[str, Path], own: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Those of this rank's tensors that are in one file, sound and of their shapes."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        for name, like in own.items():
            if where[name] == path:
                found = refuse_damaged(file.get_tensor(name), name, metadata, path)
                if found.shape != like.shape:
                    raise ValueError(
                        f"{name} in {path} has shape {tuple(found.shape)}, but this network needs {tuple(like.shape)}"
                    )
                yield name, found
