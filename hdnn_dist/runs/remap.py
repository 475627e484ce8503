"""Agents of a checkpoint become agents of a network on another graph: by what its file calls them, or by number.

Agents that still exist keep their blocks, columns of agents that they did not read start at zero, and so do the moments
of the optimiser; what is an agent's own, where it is new, stays as it was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from hdnn_dist.model.trained import Trained
from hdnn_dist.runs.index import CheckpointIndex
from hdnn_dist.runs.snapshot import STATE, WEIGHTS, reads
from hdnn_dist.training.job import Job

BLOCKS = {"K": "reads", "C": "reads_C"}  # tensors whose last dimension is the columns that an agent reads


class Files(Protocol):
    """Tensors of a checkpoint, by file and name."""

    def read(self, file: str, name: str) -> Tensor | None:
        """(...,) of any shape; None where there is none of that name."""


class AgentMap:
    """``old``: agent here -> agent there. ``told``: in a line what was mapped, nothing where all are the same.

    ``reads_here``: (2, blocks) by name, as ``snapshot.reads``.
    """

    def __init__(self, old: dict[int, int], same: bool, told: str, reads_here: dict[str, Tensor]) -> None:
        self.old, self.same, self.told, self._reads = old, same, told, reads_here
        self._new = {there: here for here, there in old.items()}

    def needed(self, agents: Iterable[int]) -> list[int]:
        """The agents there of these here."""
        return [self.old[agent] for agent in agents if agent in self.old]

    def put(self, files: Files, index: CheckpointIndex, kind: str, part: Trained, into: Tensor) -> None:
        """Set ``into``, the weight (no ``kind``) or moment of a part, of any shape."""
        there = self._owner(part, index)
        if there is None:
            self._put_new(kind, part, into)
            return
        owner, name = index.owners[there], _renamed(part, there)
        file = (STATE if kind else WEIGHTS).format(owner)
        value = files.read(file, f"{kind}/{name}" if kind else name)
        if value is None and self.same:
            raise ValueError(f"{file} has no {kind + '/' if kind else ''}{name}: it is of another network")
        if value is None:
            return
        if not self.same:
            value = self._spread(files.read(STATE.format(owner), _reads_name(name)), part, value, into)
        if value.shape != into.shape:
            raise ValueError(f"{name} in {file} has shape {tuple(value.shape)}, here it needs {tuple(into.shape)}")
        into.copy_(value)

    def _owner(self, part: Trained, index: CheckpointIndex) -> int | None:
        """The agent there whose rank has written a part."""
        if part.shared:
            return part.agent
        return self.old.get(part.agent) if part.name.startswith("agent.") else index.root

    def _put_new(self, kind: str, part: Trained, into: Tensor) -> None:
        """A new agent: its own block stays as drawn, those of its edges are zero."""
        here = self._reads.get(_reads_name(part.name))
        if kind or here is None:
            return
        at = 0
        for agent, width in here.T.tolist():
            if agent != part.agent:
                into[..., at : at + width] = 0
            at += width

    def _spread(self, there: Tensor | None, part: Trained, value: Tensor, into: Tensor) -> Tensor:
        """Columns of each neighbour there to where it is here."""
        here = self._reads.get(_reads_name(part.name))
        if there is None or here is None or value.shape[:-1] != into.shape[:-1]:
            return value
        starts = dict(zip(there[0].tolist(), (there[1].cumsum(0) - there[1]).tolist(), strict=True))
        widths = dict(there.T.tolist())
        spread, at = torch.zeros_like(into, device="cpu", dtype=value.dtype), 0
        for agent, width in here.T.tolist():
            old = self.old.get(agent)
            if old in starts and widths[old] == width:
                spread[..., at : at + width] = value[..., starts[old] : starts[old] + width]
            at += width
        return spread


def mapping_of(index: CheckpointIndex, job: Job, folder: Path, remap: bool) -> AgentMap:
    """Which agents are which; ``ValueError`` for a graph, or a network, that is another, unless ``remap`` allows it."""
    own = job.net.about()
    for name in own:
        if name not in ("graph", "pattern") and index.about.get(name, own[name]) != own[name]:
            raise ValueError(f"{folder} is of {name} {index.about[name]}, but this network has {name} {own[name]}")
    same = all(index.about.get(name) == own[name] for name in ("graph", "pattern"))
    if not (same or remap):
        name = next(name for name in ("graph", "pattern") if index.about.get(name) != own[name])
        raise ValueError(
            f"{folder} is of {name} {index.about.get(name)}, but here it is {own[name]}: give the same, or pass "
            "--remap to keep the blocks of agents that still exist"
        )
    there, here = _names(index.labels, len(index.owners)), _names(job.agents.graph.labels, job.agents.graph.agents)
    known = {name: number for number, name in enumerate(there)}
    old = {agent: known[name] for agent, name in enumerate(here) if name in known}
    if not old:
        raise ValueError(f"{folder} has none of the agents of {job.agents.graph.name}: start a run without --resume")
    return AgentMap(old, same, "" if same else _told(old, len(there), len(here)), dict(reads(job.net)))


def _names(labels: Iterable[object] | None, agents: int) -> list[str]:
    return list(map(str, range(agents) if labels is None else labels))


def _told(old: dict[int, int], there: int, here: int) -> str:
    return (
        f"{len(old)} agents keep their blocks, {here - len(old)} are new, {there - len(old)} are gone; "
        "blocks of new edges start at zero"
    )


def _renamed(part: Trained, there: int) -> str:
    """What a part was called where its agent had another number."""
    prefix = f"agent.{part.agent}."
    return f"agent.{there}.{part.name.removeprefix(prefix)}" if part.name.startswith(prefix) else part.name


def _reads_name(name: str) -> str:
    """Of the tensor that says whose columns a tensor has: agent.3.K.2 -> agent.3.reads.2."""
    head, agent, *rest = name.split(".")
    if head != "agent" or rest[0] not in BLOCKS:
        return ""
    return ".".join([head, agent, BLOCKS[rest[0]], *rest[1:]])
