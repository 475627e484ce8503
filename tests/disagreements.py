"""Two ranks that are given different things, one after the other: started by test_disagreements.py.

usage: disagreements.py FOLDER. Writes FOLDER/RANK.json, case -> the error, or what came out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import hdnn_dist.exchange.connect as connect_file
from hdnn_dist import HDNN, Agents, CommunicationGraph, Pattern, Readout, activations, connect, place
from hdnn_dist.exchange.common_facts import same_in_world
from hdnn_dist.exchange.world import World
from hdnn_dist.model.agent_readouts import AgentReadouts
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.training.build import build
from hdnn_dist.training.config import OWN_KEYS, known_keys
from hdnn_dist.training.config_files import load_config

RING = CommunicationGraph.ring(8)
SMALL = ("data.samples=200", "network.layers=3", "epochs=1")
# Every key whose value matters: what the last rank sets it to, and what both have besides.
KEYS: dict[str, tuple[str, ...]] = {
    "seed": ("1",),
    "dtype": ("float64",),
    "epochs": ("2",),
    "batch_size": ("50",),
    "accumulate": ("2",),
    "record_gradients": ("true",),
    "check_finite": ("true",),
    "timeout": ("250.0",),
    "links": ("network",),
    "replicas": ("2",),
    "placement": ("contiguous",),
    "network.architecture": ("MS3",),
    "network.features": ("4",),
    "network.layers": ("4",),
    "network.step": ("0.2",),
    "network.initial": ("scaled",),
    "network.courant": ("0.8", "network.initial=wave"),
    "network.jitter": ("0.2", "network.initial=wave"),
    "network.pattern": (str([[i, i] for i in range(8)]),),
    "network.shared": ("true",),
    "network.normalisation": ("mean", "network.shared=true"),
    "network.edge_labels": ("direction", "network.shared=true"),
    "network.scheme": ("euler",),
    "network.activation": ("relu",),
    "network.coupling": ("trained",),
    "network.damping": ("0.1", "network.architecture=H1-J1"),
    "network.store_every": ("2", "network.architecture=H1-J1"),
    "network.lift": ("convolution", "data.name=digits"),
    "readout.at": ("[0]",),
    "readout.root": ("3",),
    "readout.loss": ("binary_cross_entropy",),
    "readout.class_weights": ("balanced",),
    "readout.shared": ("true",),
    "readout.delta": ("2.0", "readout.loss=huber", "data.name=waves"),
    "data.name": ("swiss_roll",),
    "data.source": ("table",),
    "data.table.files": ("{agent}.csv",),
    "data.table.columns": ("['u']",),
    "data.table.id": ("key",),
    "data.table.labels": ("y.csv",),
    "data.table.label": ("y",),
    "data.table.targets": ("['v']",),
    "data.table.task": ("regression",),
    "data.table.classes": ("['no', 'yes']",),
    "data.table.missing_ids": ("drop",),
    "data.table.missing_values": ("mean",),
    "data.table.standardise": ("false",),
    "data.table.standardise_targets": ("true",),
    "data.table.delimiter": ("';'",),
    "data.table.memory": ("64.0",),
    "data.table.split.validation": ("0.1",),
    "data.table.split.test": ("0.3",),
    "data.table.split.train_ids": ("[1, 2]",),
    "data.table.split.validation_ids": ("[3]",),
    "data.table.split.test_ids": ("[4]",),
    "data.table.split.time": ("when",),
    "data.table.split.validation_from": ("5.0",),
    "data.table.split.test_from": ("6.0",),
    "data.transfer.classes": ("3",),
    "data.transfer.distance": ("2",),
    "data.transfer.shown_at": ("3",),
    "data.samples": ("100",),
    "data.noise": ("0.1",),
    "data.columns": ("{0 = [0], 3 = [1]}",),
    "data.patch": ("[1, 8]", "data.name=digits", "data.patch=[8, 1]"),
    "checkpoint.every_steps": ("3",),
    "checkpoint.every_epochs": ("2",),
    "checkpoint.every_minutes": ("5.0",),
    "checkpoint.keep": ("3",),
    "checkpoint.best": ("loss",),
    "optimizer.name": ("sgd",),
    "optimizer.learning_rate": ("0.01",),
    "optimizer.weight_decay": ("0.1",),
    "optimizer.readout_factor": ("10.0",),
    "optimizer.momentum": ("0.5", "optimizer.name=sgd"),
    "optimizer.schedule": ("constant",),
    "optimizer.decay": ("0.5", "optimizer.schedule=exponential"),
    "optimizer.clip": ("1.0",),
    "penalties.smoothness": ("0.1",),
    "penalties.smoothness_scale": ("divide",),
    "penalties.weights": ("0.1",),
    "penalties.readout": ("0.1",),
    "penalties.bound": ("9.0",),
    "stop.patience": ("3",),
    "stop.min_delta": ("0.1",),
    "stop.metric": ("accuracy",),
    "stop.goal": ("0.9",),
    "stop.goal_epochs": ("2",),
}
assert KEYS.keys() == set(known_keys()) - set(OWN_KEYS), "a key is missing here"


def build_with(key: str, world: World) -> object:
    """The config of one rank has another value."""
    value, *both = KEYS[key]
    own = [f"{key}={value}"] if world.rank else []
    config = load_config(None, [*SMALL, *both, *own])
    return build(config, CommunicationGraph.parse(config.graph), world)


def other(world: World, first: object, second: object) -> object:
    return second if world.rank else first


def network(world: World, **differs: object) -> HDNN:
    return HDNN(place(RING, world), **{"layers": 3, **(differs if world.rank else {})})


def head(world: World, **differs: object) -> Readout:
    net = network(world)
    return Readout(net.agents, net, **(differs if world.rank else {}))


def batches(world: World, first: tuple[int, ...], second: tuple[int, ...], **about: object) -> torch.Tensor:
    """A batch of another shape, after one that both agree on; blocks may flow one way, so that nobody waits."""
    net = HDNN(place(RING, world), layers=3, **about)
    net(torch.zeros(4, net.local_features))
    batch, *positions = first if world.rank == 0 else second
    return net(torch.zeros(batch, net.local_features, *positions))


def softsign(slope: float) -> activations.Activation:
    return activations.custom(
        lambda z: slope * z / (1 + z.abs()), lambda z: slope / (1 + z.abs()) ** 2, name="softsign"
    )


def version(world: World) -> None:
    same_in_world(world, {"version of hdnn-dist": other(world, connect_file.VERSION, "0.0.9")})


def owners_by_hand(world: World) -> Agents:
    return place(RING, world, other(world, [0, 0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0, 0]))


def metis_on_one_machine(world: World) -> Agents:
    """As with pymetis installed on one machine only: by name both ask for the same."""
    if world.rank:
        import hdnn_dist.exchange.placement as placement

        placement._metis, kept = (lambda graph, ranks: placement._contiguous(graph.agents, ranks)), placement._metis
    try:
        return place(CommunicationGraph.torus(4, 4), world)
    finally:
        if world.rank:
            placement._metis = kept


ONE_WAY = {"architecture": "MLP", "pattern": Pattern.from_matrix(np.tril(RING.matrix()))}
API: dict[str, tuple[str, Callable[[World], object]]] = {
    "graph": ("graph", lambda world: place(other(world, RING, CommunicationGraph.path(8)), world)),
    "edges of a graph": (
        "graph",
        lambda world: place(CommunicationGraph.erdos_renyi(8, 0.6, seed=int(other(world, 1, 3))), world),
    ),
    "owners by hand": ("placement", owners_by_hand),
    "METIS on one machine": ("owners of the agents", metis_on_one_machine),
    "version": ("version of hdnn-dist", version),
    "features": ("features", lambda world: network(world, features=4)),
    "features that cannot be": ("features", lambda world: network(world, features=3)),
    "layers": ("layers", lambda world: network(world, layers=4)),
    "step": ("step", lambda world: network(world, step=0.2)),
    "architecture of equal shapes": ("architecture", lambda world: network(world, architecture="MS3")),
    "architecture that is none": ("architecture", lambda world: network(world, architecture="H3")),
    "seed": ("seed", lambda world: network(world, seed=1)),
    "scheme": ("scheme", lambda world: network(world, scheme="euler")),
    "activation": ("activation", lambda world: network(world, activation="relu")),
    "activation of one name": (
        "activation",
        lambda world: HDNN(place(RING, world), activation=softsign(float(other(world, 1.0, 0.5)))),
    ),
    "initial": ("initial", lambda world: network(world, initial="normal")),
    "pattern": ("pattern", lambda world: network(world, pattern=Pattern.diagonal(8))),
    "graphs": ("graphs", lambda world: network(world, graphs=[RING] * 3)),
    "coupling": ("coupling", lambda world: network(world, coupling=torch.eye(8))),
    "entries of a coupling": (
        "coupling",
        lambda world: HDNN(place(RING, world), coupling=float(other(world, 1.0, 2.0)) * np.eye(8)),
    ),
    "dtype": ("dtype", lambda world: network(world, dtype=torch.float64)),
    "store_every": ("store_every", lambda world: network(world, store_every=2)),
    "classes": ("classes", lambda world: head(world, classes=3)),
    "loss": ("loss", lambda world: head(world, loss="binary_cross_entropy")),
    "class weights": ("class_weights", lambda world: head(world, class_weights=[1.0, 2.0])),
    "targets of agents": (
        "targets",
        lambda world: AgentReadouts((net := network(world)).agents, net, {0: int(other(world, 1, 2))}),
    ),
    "readers": ("at", lambda world: head(world, at=[1])),
    "root": ("root", lambda world: head(world, root=2)),
    "channels": ("channels", lambda world: ConvolutionalLift(network(world), int(other(world, 1, 2)))),
    "batch": ("batch and positions of the input", lambda world: batches(world, (9,), (10,))),
    "batch, one way": ("batch and positions of the input", lambda world: batches(world, (9,), (10,), **ONE_WAY)),
    "positions": ("batch and positions of the input", lambda world: batches(world, (6, 2), (6, 3))),
}
CASES: dict[str, tuple[str, Callable[[World], object]]] = {
    **{f"config {key}": (key, lambda world, key=key: build_with(key, world)) for key in KEYS},
    **API,
}


def outcome(case: Callable[[World], object], world: World) -> str:
    try:
        return f"came out: {case(world)!r}"
    except ValueError as error:
        return str(error)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with connect(timeout=60.0) as world:
        found = {name: outcome(case, world) for name, (_, case) in CASES.items()}
        net = network(world)  # the ranks are in step afterwards
        loss = Readout(net.agents, net).loss(net(torch.zeros(3, net.local_features)), torch.zeros(3, dtype=torch.long))
        found["afterwards"] = str(loss.item())
        (folder / f"{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
