"""What a rank has to write, copied into spare memory between two steps and written while training goes on.

rank-R.safetensors holds the weights, as ``checkpoint`` lays them out. state-R.safetensors holds

    NAME/agent.I.K, ...   what the optimiser keeps of each weight, such as exp_avg/agent.I.K
    agent.I.reads         (2, blocks) int64: the agents whose columns agent.I.K has, and how many of each; where layers
                          differ, agent.I.reads.LAYER; agent.I.reads_C for agent.I.C
    run.results.N, run.gradients.NAME, root.gradients.NAME   see ``training.progress``
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hdnn_dist.model.network import HDNN
from hdnn_dist.model.trained import Trained, written
from hdnn_dist.runs.checkpoint import Statistics, named_statistics
from hdnn_dist.runs.shards import write_shard
from hdnn_dist.training.loop import Trainer
from hdnn_dist.training.progress import moments, tensors
from hdnn_dist.weights.blocks import BlockLayout

WEIGHTS, STATE = "rank-{}.safetensors", "state-{}.safetensors"
Files = dict[str, tuple[int, int]]
ByParameter = dict[str, dict[nn.Parameter, Tensor]]


class Snapshot:
    """Spare memory for one checkpoint of this rank, used again for the next.

    ``prepare`` makes it, ``take`` fills it, ``write`` brings it to the disk; the last two exclude each other.
    ``statistics``: agent -> name -> (columns,).
    """

    def __init__(self, trainer: Trainer, statistics: Statistics | None = None) -> None:
        job = trainer.job
        self.trainer = trainer
        self.ready = False
        self._spare: ByParameter = {}
        self._small: dict[str, Tensor] = {}
        self._statistics = named_statistics(statistics or {})
        self._metadata = {"ranks": str(job.agents.world.size), **job.net.about()}
        self._reads = dict(reads(job.net))

    def prepare(self) -> None:
        """Make the spare memory, after the first step; its pages are touched, so that ``take`` only copies."""
        self._spare = {
            name: {parameter: _spare(value) for parameter, value in each.items()}
            for name, each in _sources(self.trainer).items()
        }
        self.ready = True

    def take(self) -> None:
        """Copy what may change with the next step: a copy of memory, and what is small."""
        with torch.no_grad():
            for name, each in _sources(self.trainer).items():
                for parameter, value in each.items():
                    self._spare[name][parameter].copy_(value)
        self._small = tensors(self.trainer)

    def write(self, folder: Path) -> Files:
        """Write both files of this rank: name -> bytes and CRC-32."""
        folder.mkdir(parents=True, exist_ok=True)
        rank, written = self.trainer.job.agents.world.rank, {}
        weights = {**dict(self._parts("")), **self._statistics}
        kept = [name for name in self._spare if name]
        state = {
            **{f"{kind}/{name}": part for kind in kept for name, part in self._parts(kind)},
            **self._reads,
            **self._small,
        }
        for name, content in ((WEIGHTS, weights), (STATE, state)):
            file = name.format(rank)
            written[file] = write_shard(folder / file, content, self._metadata)
        return written

    @property
    def bytes(self) -> int:
        """Of the spare memory."""
        return sum(spare.numel() * spare.element_size() for each in self._spare.values() for spare in each.values())

    def _parts(self, kind: str) -> Iterator[tuple[str, Tensor]]:
        job = self.trainer.job
        for part in written((job.net, *job.others), job.agents):
            if part.parameter in self._spare[kind]:
                yield part.name, part.view(self._spare[kind][part.parameter])


def trained(trainer: Trainer) -> Iterator[Trained]:
    """All that is trained on this rank."""
    return (part for module in (trainer.job.net, *trainer.job.others) for part in module.trained())


def reads(net: HDNN) -> Iterator[tuple[str, Tensor]]:
    """Name and (2, blocks): whose columns the blocks of each local agent have, and how many of each."""
    if net.stack.alike:
        yield from _reads_of(net.stack.layout(0), "reads")
    else:
        for layer in range(len(net.stack)):
            yield from _reads_of(net.stack.layout(layer), f"reads.{layer}")
    if isinstance(net.coupling, nn.Parameter):
        yield from _reads_of(net.coupling_spec.layouts[0], "reads_C")


def _reads_of(layout: BlockLayout, name: str) -> Iterator[tuple[str, Tensor]]:
    for agent in layout.halo.agents.local.tolist():
        read = layout.pattern.reads(agent)
        yield f"agent.{agent}.{name}", torch.as_tensor(np.stack([read, layout.halo.sizes[read]]).astype(np.int64))


def _sources(trainer: Trainer) -> Mapping[str, Mapping[nn.Parameter, Tensor]]:
    """The weights, under an empty name, and the moments."""
    return {"": {parameter: parameter.detach() for parameter in trainer.parameters}, **moments(trainer)}


def _spare(value: Tensor) -> Tensor:
    pinned = value.device.type == "cuda"
    return torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned).fill_(0)
