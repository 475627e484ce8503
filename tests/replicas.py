"""One rank of a job of several replicas: started by test_replicas.py.

usage: replicas.py FOLDER REPLICAS. Writes FOLDER/RANK.json, case -> what this rank has found, and what was refused.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from hdnn_dist import CommunicationGraph, connect
from hdnn_dist.exchange.agreement import agreed, told_by_root
from hdnn_dist.exchange.world import World
from hdnn_dist.runs.summary import summarise
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.divergence import DivergenceError
from hdnn_dist.training.loop import Trainer

# 30 samples to train with: batches of 13, 13 and 4, or of 7 and a last one of 2, less than four replicas.
SMALL = (
    *("graph=ring:4", "dtype=float64", "epochs=2", "data.samples=38", "batch_size=13", "network.layers=3"),
    *("network.kernel=torch", "optimizer.clip=0.3", "penalties.weights=0.01", "record_gradients=true"),
)
CASES = {
    "H2": (),
    "H2, check_finite": ("check_finite=true", "batch_size=7", "network.kernel=auto"),
    "H1-J1": ("network.architecture=H1-J1", "network.store_every=2", "readout.at=[2]", "optimizer.name=sgd"),
    "shared": ("network.shared=true", "readout.shared=true"),
    "bound": ("penalties.bound=50.0", "batch_size=7", "optimizer.clip=100.0"),
}
LINKS = ("auto", "network")


def result(case: str, world: World) -> dict[str, Any]:
    """Of a whole training on this rank."""
    config = load_config(None, [*SMALL, *CASES[case]])
    trainer = Trainer(job := build(config, CommunicationGraph.parse(config.graph), world))
    outcome = trainer.run(lambda epoch, step: None, lambda row: None)
    summary = summarise(job, outcome, trainer.evaluate(job.train), trainer.evaluate(job.test))
    rows = [(row.loss, row.train_accuracy, row.test_loss, row.test_accuracy) for row in outcome.epochs]
    trained = [part for module in (job.net, *job.others) for part in module.trained()]
    return {
        "replica": world.replica,
        "rows": rows,
        "gradients": [step.norms for row in outcome.epochs for step in row.gradients],
        "trained": {part.name: part.view(part.parameter).flatten().tolist() for part in trained},
        "links": sorted(set(job.agents.links.values())),
        "waited": outcome.waited,
        "summary": {key: summary[key] for key in COUNTED},
    }


COUNTED = (
    *("ranks", "replicas", "links", "parameters_per_rank", "messages_per_step", "off_graph_messages"),
    *("bytes_between_replicas_per_step", "loss", "test_loss", "test_accuracy", "wire_messages_per_step"),
)
REFUSED = {
    "graph": ("graph=path:2", "data.columns={0 = [0, 1]}"),
    "batch": ("batch_size=1",),
    "seed": (),
}


def refused(what: str, world: World) -> str:
    """The error of a config that cannot be, or differs in the last replica."""
    own = [f"seed={world.replica}"] if what == "seed" else []
    config = load_config(None, [*SMALL, *REFUSED[what], *own])
    try:
        return f"built: {build(config, CommunicationGraph.parse(config.graph), world)}"
    except ValueError as error:
        return str(error)


def other_weights(world: World) -> str:
    """Of one agent, in the last replica."""
    config = load_config(None, SMALL)
    job = build(config, CommunicationGraph.parse(config.graph), world)
    if world.replica == world.replicas - 1 and job.agents.owns(3):
        with torch.no_grad():
            job.net.weights[-1] += 1e-12
    try:
        return f"trained: {Trainer(job).run(lambda epoch, step: None, lambda row: None)}"
    except ValueError as error:
        return str(error)


def poisoned(world: World, *settings: str) -> str:
    """A sample that is NaN, which one replica has in its share of a batch; what is said of it."""
    config = load_config(None, [*SMALL, *settings])
    job = build(config, CommunicationGraph.parse(config.graph), world)
    job.train.inputs[5] = torch.nan
    try:
        return f"trained: {Trainer(job).run(lambda epoch, step: None, lambda row: None)}"
    except DivergenceError as error:
        return str(error)


LONG = "a text that is longer than any line of an error " * 100


def full_disk(world: World) -> str:
    """Of the last rank alone."""
    config = load_config(None, SMALL)
    job = build(config, CommunicationGraph.parse(config.graph), world)
    try:
        with agreed(job.head.everyone):
            if world.job.rank == world.job.size - 1:
                raise OSError("no space left")
    except OSError as error:
        return f"{len(told_by_root(job.head.everyone, LONG))} characters: {error}"
    return "nothing"


def threads_of_gloo() -> list[str]:
    """Those that are still there once every world is closed."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has just ended
            names.append((task / "comm").read_text().strip())
    return [name for name in names if "gloo" in name]


def joined(replicas: int) -> str:
    try:
        with connect(replicas=replicas, timeout=60.0) as world:
            return f"joined: {world}"
    except ValueError as error:
        return str(error)


def main(folder: Path, replicas: int) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ.get("PMI_RANK", os.environ.get("RANK", "0")))
    found: dict[str, Any] = {"no divisor": joined(3), "different": joined(2 if rank else 1)}
    for links in LINKS:
        with connect(replicas=replicas, timeout=60.0, links=links) as world:
            found |= {f"{case}, {links}": result(case, world) for case in CASES}
            if links == LINKS[0]:
                found |= {what: refused(what, world) for what in REFUSED}
                found["weights"] = other_weights(world)
                found["sample"] = poisoned(world)
                found["sample, checked"] = poisoned(world, "check_finite=true")
                found["disk"] = full_disk(world).replace(f"rank {world.job.size - 1}: ", "")
    found["threads"] = threads_of_gloo()
    (folder / f"{rank}.json").write_text(json.dumps(found))


def expected(case: str) -> dict[str, Any]:
    """Of one process with all agents and whole batches."""
    with connect("local") as world:
        return result(case, world)


def trained(results: Sequence[dict[str, Any]], case: str, replica: int) -> dict[str, list[float]]:
    """The parameters of all agents of a replica."""
    return {k: v for own in results if own[case]["replica"] == replica for k, v in own[case]["trained"].items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
