"""Weights on the disk: every rank writes those of its own agents, and any number of ranks reads them back.

A tensor belongs to an agent, or to the root, and its name says to whom:

    agent.I.K        (layers, operators, rows, columns)    the columns of the blocks that agent I reads, ascending
    agent.I.b        (layers, operators, biases, rows)
    agent.I.C        (1 or layers, rows, columns)          the coupling J or X, where it is trained
    agent.I.readout  (outputs, features times positions)   where the readout reads agent I
    readout.bias     (outputs,)
    agent.I.lift.weights  (features, channels, 3, 3)       where there is a lift
    agent.I.lift.bias     (features,)

Where layers have patterns of their own, there is a tensor for each, agent.I.K.LAYER and agent.I.b.LAYER.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.readout import Readout
from hdnn_dist.support.files import whole_file
from hdnn_dist.weights.blocks import BlockLayout

CHECKPOINTS = "checkpoints"
PATTERN = "rank-*.safetensors"


def save_weights(net: HDNN, head: Readout, folder: Path, lift: ConvolutionalLift | None = None) -> Path:
    """Write this rank's ``rank-R.safetensors``: a reader finds a whole file or none. Needs no message."""
    world = net.agents.world
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rank-{world.rank}.safetensors"
    tensors = {name: part.detach().cpu().clone().contiguous() for name, part in _tensors(net, head, lift)}
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata={"ranks": str(world.size), "architecture": net.architecture.name})
    return path


def load_weights(net: HDNN, head: Readout, folder: Path, lift: ConvolutionalLift | None = None) -> None:
    """Set this rank's weights from the files of a run, however many ranks wrote them. Needs no message.

    Numbers are converted to the type of the network. Raises ``ValueError`` for files that are missing, damaged, or of
    another network; then nothing is changed.
    """
    where = _index(folder)
    _refuse_other_network(where.keys(), _needed(net, head, lift), folder)
    own = dict(_tensors(net, head, lift))
    read = {name: _read(where, name, part) for name, part in own.items()}
    with torch.no_grad():
        for name, part in own.items():
            part.copy_(read[name])


def remove_weights(folder: Path) -> None:
    """Remove the files of an earlier run, which may have had more ranks."""
    for path in folder.glob(PATTERN):
        path.unlink(missing_ok=True)


def _tensors(net: HDNN, head: Readout, lift: ConvolutionalLift | None) -> Iterator[tuple[str, Tensor]]:
    """Names and views of everything that is trained on this rank."""
    if net.plan.alike:
        yield from _of_layers(net.layout, net.weights, "")
    else:
        for layer in range(net.layers):
            yield from _of_layers(net.plan.layout(layer), net.plan.weights(net.weights, layer), f".{layer}")
    if net._coupling_plan.trained and net._coupling_plan.layout is not None:
        for agent, C in _blocks(net._coupling_plan.layout, net.coupling):
            yield f"agent.{agent}.C", C
    yield from _of_readout(net, head)
    if lift is not None:
        yield from _of_lift(net, lift)


def _of_layers(layout: BlockLayout, weights: Tensor, suffix: str) -> Iterator[tuple[str, Tensor]]:
    for agent, K in _blocks(layout, weights):
        yield f"agent.{agent}.K{suffix}", K
    rows = layout.halo.rows
    b = weights[..., layout.entries :].unflatten(-1, ((layout.size - layout.entries) // rows, rows))
    for group in layout.groups:
        for number, agent in enumerate(group.agents.tolist()):
            start = group.place.start + number * group.rows
            yield f"agent.{agent}.b{suffix}", b[..., start : start + group.rows]


def _blocks(layout: BlockLayout, weights: Tensor) -> Iterator[tuple[int, Tensor]]:
    for group in layout.groups:
        yield from zip(group.agents.tolist(), group.matrices(weights).unbind(-3), strict=True)


def _of_readout(net: HDNN, head: Readout) -> Iterator[tuple[str, Tensor]]:
    read = net.agents.local[np.isin(net.agents.local, head.at)]
    widths = net.features[read] * (head.weights.shape[1] // max(int(net.features[read].sum()), 1))
    for agent, part in zip(read.tolist(), head.weights.split(widths.tolist(), dim=1), strict=True):
        yield f"agent.{agent}.readout", part
    if head.tree.is_root:
        yield "readout.bias", head.bias


def _of_lift(net: HDNN, lift: ConvolutionalLift) -> Iterator[tuple[str, Tensor]]:
    widths = net.features[net.agents.local].tolist()
    for name, part in lift.named_parameters():
        for agent, own in zip(net.agents.local.tolist(), part.split(widths), strict=True):
            yield f"agent.{agent}.lift.{name}", own


def _index(folder: Path) -> dict[str, Path]:
    """Which file holds each tensor."""
    files = sorted(folder.glob(PATTERN))
    if not files:
        raise ValueError(f"{folder} holds no weights ({PATTERN}): give the checkpoints folder of a finished run")
    where: dict[str, Path] = {}
    for path in files:
        names, ranks = _names(path)
        if ranks != str(len(files)):
            raise ValueError(f"{folder} holds {len(files)} files, but {path.name} was written by one of {ranks} ranks")
        twice = where.keys() & names
        if twice:
            raise ValueError(f"{path.name} and {where[min(twice)].name} both hold {min(twice)}: they are of two runs")
        where.update(dict.fromkeys(names, path))
    return where


def _names(path: Path) -> tuple[set[str], str | None]:
    try:
        with safe_open(path, framework="pt") as file:
            return set(file.keys()), (file.metadata() or {}).get("ranks")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None


def _needed(net: HDNN, head: Readout, lift: ConvolutionalLift | None) -> set[str]:
    """The names of the tensors of all agents."""
    suffixes = [""] if net.plan.alike else [f".{layer}" for layer in range(net.layers)]
    kinds = [kind + suffix for suffix in suffixes for kind in "Kb"] + ["C"] * net._coupling_plan.trained
    if lift is not None:
        kinds += [f"lift.{name}" for name, _ in lift.named_parameters()]
    needed = {f"agent.{agent}.{kind}" for agent in range(net.agents.graph.agents) for kind in kinds}
    return needed | {f"agent.{agent}.readout" for agent in head.at.tolist()} | {"readout.bias"}


def _refuse_other_network(found: Set[str], needed: Set[str], folder: Path) -> None:
    """The names are known for all agents, so that every rank refuses alike."""
    if needed - found:
        raise ValueError(f"{folder} has no {min(needed - found)}, which this network needs: it is of another network")
    if found - needed:
        raise ValueError(f"{folder} has {min(found - needed)}, which this network has not: it is of another network")


def _read(where: dict[str, Path], name: str, like: Tensor) -> Tensor:
    with safe_open(where[name], framework="pt") as file:
        found = file.get_tensor(name)
    if found.shape != like.shape:
        raise ValueError(
            f"{name} in {where[name]} has shape {tuple(found.shape)}, but this network needs {tuple(like.shape)}"
        )
    return found
