"""The summary of a run: what was trained, how well, how fast, and what it cost the graph."""

from __future__ import annotations

from typing import Any

import torch

from hdnn_dist.exchange.ledger import Traffic
from hdnn_dist.runs.links import pairs_by_link
from hdnn_dist.support.version import VERSION
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import Outcome, Score


def summarise(job: Job, outcome: Outcome, train: Score, test: Score) -> dict[str, Any]:
    """The content of summary.json, the same on every rank, which all have to call it: counts are summed on the tree.

    ``messages``, ``bytes`` and ``bytes_per_edge`` are traffic between agents a training step, of all replicas;
    ``wire_``: between ranks; ``bytes_between_replicas``: of gradients that ranks give into sums with their copies. They
    and ``seconds_waited_per_rank`` are of what was done since the last resume. ``links``: what carries the edges
    between ranks -> the pairs of ranks, such as "0-1 1-2".
    """
    traffic = Traffic.from_vector(_sum(job, torch.as_tensor(outcome.traffic.vector())).cpu().numpy())
    copied = _of_ranks(job, outcome.copied).sum()
    per_rank = _of_ranks(job, sum(parameter.numel() for parameter in job.parameters))
    waited = _of_ranks(job, outcome.waited)
    drift = _of_ranks(job, job.net.drift or 0.0).max()
    off_graph = _sum(job, torch.tensor([job.agents.ledger.off_graph_messages]))
    config, steps, here = job.config, max(outcome.steps, 1), outcome.measured
    return {
        "architecture": config.network.architecture,
        "agents": job.agents.graph.agents,
        "graph": job.agents.graph.name,
        "ranks": job.agents.world.job.size,
        "replicas": job.agents.world.replicas,
        "transport": job.agents.world.transport,
        "links": {link: " ".join(f"{a}-{b}" for a, b in pairs) for link, pairs in pairs_by_link(job).items()},
        "layers": config.network.layers,
        "features": config.network.features,
        "data": job.about.name,
        "seed": config.seed,
        "dtype": config.dtype,
        "parameters_per_rank": [int(count) for count in per_rank],
        "epochs": len(outcome.epochs),
        "train_accuracy": train.accuracy,
        "test_accuracy": test.accuracy,
        "train_metrics": train.metrics,
        "test_metrics": test.metrics,
        "loss": train.loss,
        "test_loss": test.loss,
        "seconds": outcome.seconds,
        "seconds_per_step": outcome.seconds / steps,
        "seconds_waited_per_rank": [float(seconds) for seconds in waited],
        "messages_per_step": traffic.messages / here,
        "bytes_per_step": traffic.bytes / here,
        "bytes_per_edge": int(traffic.edge_bytes.max(initial=0)) / here,
        "wire_messages_per_step": traffic.wire_messages / here,
        "wire_bytes_per_step": traffic.wire_bytes / here,
        "bytes_between_replicas_per_step": float(copied) / here,
        "off_graph_messages": int(off_graph),
        "reconstruction_drift": None if job.net.drift is None else float(drift),
        "version": VERSION,
        "torch": torch.__version__,
    }


def _sum(job: Job, vector: torch.Tensor) -> torch.Tensor:
    """Over all ranks of all replicas."""
    return job.agents.world.of_replicas(job.head.everyone.sum(_on_tree(job, vector))).sum(0)


def _of_ranks(job: Job, value: float) -> torch.Tensor:
    """(ranks,) the values of all ranks of all replicas."""
    own = job.head.everyone.collect(_on_tree(job, torch.tensor(value, dtype=torch.float64)))
    return job.agents.world.of_replicas(own).flatten()


def _on_tree(job: Job, numbers: torch.Tensor) -> torch.Tensor:
    return numbers.to(device=job.agents.world.device, dtype=torch.float64)
