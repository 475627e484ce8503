"""What one rank of an audit does: a few steps of the config, then each part of a step alone, and tells its ledger.

All layers of one layout make the same exchanges, so one of them, run alone, tells what each of them costs. With the
readout alone they have to add up to a whole pass, which the auditor checks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.analysis.audit.meeting import STEPPED, TOLD, WARM, Meeting
from hdnn_dist.exchange.connect import connect
from hdnn_dist.exchange.world import World
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import Trainer


def audited(job: Job, meeting: Meeting, steps: int) -> None:
    """Train so many steps on the first batch, under the eyes of the auditor. Every rank has to call it."""
    trainer, world = Trainer(job), job.agents.world
    rank = world.job.rank
    index = torch.arange(min(job.config.batch_size, len(job.train)), device=job.net.trained_weights.device)
    trainer.step(index)  # after which all are connected
    meeting.tell(WARM, rank, _about(job))
    before, began, copied = job.agents.ledger.traffic(), job.agents.ledger.directed(), world.copied
    for _ in range(steps):
        trainer.step(index)
    wire = job.agents.ledger.traffic() - before
    told = {"steps": _since(job, began).tolist(), "wire_messages": wire.wire_messages, "wire_bytes": wire.wire_bytes}
    meeting.tell(STEPPED, rank, {**told, "copied": world.copied - copied})
    share, _ = trainer.shares.of(index)
    meeting.tell(TOLD, rank, parts(job, *job.train.batch(share)))


def join(transport: str, links: str, timeout: float, replicas: int = 1) -> World:
    """As ``connect``; ``links``: "auto" or "network"."""
    return connect(transport, timeout=timeout, links=links, replicas=replicas)


def _about(job: Job) -> dict[str, Any]:
    world = job.agents.world
    return {
        "process": os.getpid(),
        "meeting_port": os.environ.get("MASTER_PORT"),
        "transport": job.agents.world.transport,
        "kernel": job.net.kernel_for(1),
        "owner": job.agents.owner.tolist(),
        "links": {world.replica * world.size + peer: link for peer, link in job.agents.links.items()},
        "replicas": world.replicas,
    }


def parts(job: Job, inputs: Tensor, labels: Tensor | None) -> dict[str, Any]:
    """Counts (edges, 2, 2), as of ``Ledger.directed``, of each part alone and of a whole pass.

    ``inputs``, ``labels``: a batch, as of ``Samples``. Every rank has to call it.
    """
    state, stack = job.state(inputs).detach(), job.net.stack
    return {
        "layouts": [_layer(job, state, stack.which.index(layout)) for layout in range(len(stack.layouts))],
        "which": stack.which,
        "again": _computed_again(job),
        "readout": _spent(job, lambda: job.head.backward(state.clone(), labels)),
        "pass": _spent(job, lambda: job.head.backward(job.forward(inputs), labels)),
        "off_graph_messages": job.agents.ledger.off_graph_messages,
    }


def _layer(job: Job, state: Tensor, layer: int) -> dict[str, Any]:
    """Of one layer alone: forward and backward."""
    outputs: list[Tensor] = []
    x = state.clone().requires_grad_()
    return {
        "forward": _spent(job, lambda: outputs.append(job.net(x, slice(layer, layer + 1)))),
        "backward": _spent(job, lambda: outputs[0].backward(torch.zeros_like(state))),
    }


def _computed_again(job: Job) -> list[int]:
    """The layers whose forward pass the backward pass repeats: all but the last behind each stored state."""
    last, every = job.net.layers - 1, job.net.store_every
    again = [layer for layer in range(last) if (layer + 1) % every]
    return again if job.net.architecture.simultaneous else []


def _spent(job: Job, part: Callable[[], object]) -> list[Any]:
    before = job.agents.ledger.directed()
    part()
    return list(_since(job, before).tolist())


def _since(job: Job, before: np.ndarray) -> np.ndarray:
    return job.agents.ledger.directed() - before
