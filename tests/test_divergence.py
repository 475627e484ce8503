"""NaN and infinity are found, and named by layer and agent, the same on every rank.

Every check runs in one process, and in a job of two ranks that starts this file as a script: test_divergence.py FOLDER.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import run
from problems import local_rows
from rank_checks import main
from torch import Tensor

from hdnn_dist import HDNN, CommunicationGraph, Readout, connect, place
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.model.lift import ConvolutionalLift
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.divergence import BEFORE, DivergenceError, Place, all_finite, first_not_finite
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import Trainer

RING = CommunicationGraph.ring(8)
FEATURES = (4, 2, 2, 6, 2, 4, 2, 2)
LAYERS, HUGE = 5, 3e38  # twice as much is infinity in float32
SMALL = ("graph=ring:8", "epochs=2", "batch_size=50", "data.samples=400", "network.layers=4")


def network(world: World, architecture: str = "H2", **about: object) -> tuple[HDNN, Readout, Tensor]:
    """A network, its head, and an input that is a number everywhere."""
    agents = place(RING, world, "contiguous")
    net = HDNN(agents, FEATURES, LAYERS, architecture=architecture, **about)
    whole = torch.as_tensor(np.random.default_rng(3).standard_normal((20, sum(FEATURES))), dtype=torch.float32)
    return net, Readout(agents, net), whole[:, local_rows(agents, FEATURES)]


def set_rows(net: HDNN, numbers: Tensor, layer: int, agent: int, value: float, operator: int = 0) -> None:
    """Set one agent's rows of K in one layer, on the rank that has them."""
    for group in net.stack.layout(layer).groups:
        if agent in group.agents:
            at = group.agents.tolist().index(agent)
            group.matrices(net.stack.weights(numbers.detach(), layer))[operator, at] = value


def weights_of_one_agent(world: World) -> None:
    for layer, agent, value in ((0, 0, math.nan), (3, 5, math.inf), (4, 7, -math.inf)):
        net, head, x = network(world)
        assert first_not_finite(net, (head,), x) is None
        set_rows(net, net.weights, layer, agent, value)
        assert first_not_finite(net, (head,), x) == Place("weights", layer, agent, LAYERS)


def a_bias(world: World) -> None:
    """tanh(inf) = 1 hides it from the states."""
    net, head, x = network(world, "MLP")
    if net.agents.owns(7):
        with torch.no_grad():
            order = np.concatenate([group.agents for group in net.layout.groups])
            rows = net.features[order]
            start = int(rows[: order.tolist().index(7)].sum())
            net.layout.bias(net.weights[2])[0, start] = math.inf
    assert bool(all_finite(head.everyone, net(x)))
    assert first_not_finite(net, (head,), x) == Place("weights", 2, 7, LAYERS)


def a_graph_per_layer(world: World) -> None:
    path = CommunicationGraph.path(8)
    net, head, x = network(world, graphs=[RING, path, path, RING, path])
    set_rows(net, net.weights, 3, 6, math.nan)
    assert first_not_finite(net, (head,), x) == Place("weights", 3, 6, LAYERS)


def an_explosion(world: World) -> None:
    """Relu has no limit: K^T s(K x) overflows with weights that are finite."""
    alone = [(i, k) for i, k in zip(*np.nonzero(RING.matrix()), strict=True) if i != 6 or k == 6]
    net, head, x = network(world, activation="relu", pattern=Pattern.from_pairs(8, alone))
    set_rows(net, net.weights, 2, 6, 1e30)
    assert first_not_finite(net, (head,), x) == Place("state", 2, 6, LAYERS)


def an_explosion_at_several_agents(world: World) -> None:
    """Agent 4 writes into its neighbours' blocks: the lowest is named, which is on the other one of two ranks."""
    net, head, x = network(world, activation="relu")
    set_rows(net, net.weights, 1, 4, 1e30)
    assert first_not_finite(net, (head,), x) == Place("state", 1, 3, LAYERS)


def an_explosion_that_heals(world: World) -> None:
    """relu(-inf) = 0, so the output is finite: a search by halves would look no further."""
    net, head, x = network(world, "MLP", activation="relu")
    x = x.abs()
    with torch.no_grad():
        net.weights[2, :, : net.layout.entries] = -1.0
    set_rows(net, net.weights, 1, 2, HUGE)
    assert all_finite(head.everyone, net(x))
    assert first_not_finite(net, (head,), x) == Place("state", 1, 2, LAYERS)


def an_input(world: World) -> None:
    net, head, x = network(world)
    x = x.clone()
    if net.agents.owns(3):
        x[7, local_rows(net.agents, FEATURES) == sum(FEATURES[:3])] = math.nan
    found = first_not_finite(net, (head,), x)
    assert found == Place("state", BEFORE, 3, LAYERS)
    assert str(found) == "input, agent 3"


def a_gradient(world: World) -> None:
    """The last layer is the first that the backward pass meets."""
    net, head, x = network(world)
    head.loss(net(x), torch.zeros(20, dtype=torch.long) if head.tree.is_root else None).backward()
    assert first_not_finite(net, (head,), x) is None
    set_rows(net, net.weights.grad, 1, 0, math.nan)
    set_rows(net, net.weights.grad, 3, 5, math.inf, operator=1)
    assert first_not_finite(net, (head,), x) == Place("gradient", 3, 5, LAYERS)


def a_readout(world: World) -> None:
    net, head, x = network(world)
    head = Readout(net.agents, net, at=(2, 5, 7), root=7)
    if net.agents.owns(5):
        with torch.no_grad():
            head.weights[1, -1 - FEATURES[7]] = math.nan
    found = first_not_finite(net, (head,), x)
    assert found == Place("weights", LAYERS, 5, LAYERS)
    assert str(found) == "readout, agent 5"
    if head.tree.is_root:
        with torch.no_grad():
            head.bias[0] = math.inf
    assert first_not_finite(net, (head,), x) == found, "agent 5 comes before agent 7"


def a_coupling(world: World) -> None:
    net, head, x = network(world, coupling="trained")
    if net.agents.owns(4):
        with torch.no_grad():
            group = next(group for group in net.coupling_spec.layout.groups if 4 in group.agents)
            group.matrices(net.coupling)[0, group.agents.tolist().index(4)] = math.nan
    assert first_not_finite(net, (head,), x) == Place("weights", 0, 4, LAYERS)


def a_lift(world: World) -> None:
    net, _, _ = network(world)
    head, lift = Readout(net.agents, net, positions=(3, 2)), ConvolutionalLift(net)
    images = torch.ones(2, 1, 3, 2)
    assert first_not_finite(net, (head, lift), lift(images)) is None
    if net.agents.owns(6):
        with torch.no_grad():
            lift.bias[torch.nonzero(local_rows(net.agents, FEATURES) == sum(FEATURES[:6]))] = math.inf
    found = first_not_finite(net, (head, lift), lift(images))
    assert found == Place("weights", BEFORE, 6, LAYERS)
    assert str(found) == "lift, agent 6"


def agreement(world: World) -> None:
    """One rank's NaN is every rank's."""
    tree = SumTree(place(RING, world))
    last = torch.full((2,), math.nan if world.rank == world.size - 1 else 1.0)
    assert all_finite(tree, torch.ones(3), None, torch.ones(0))
    assert not all_finite(tree, torch.ones(3), None, last)


def job_of(world: World, *overrides: str) -> Job:
    config = load_config(None, [*SMALL, *overrides])
    return build(config, CommunicationGraph.parse(config.graph), world)


def spoiled(world: World, when: tuple[int, int], value: float, *overrides: str, agent: int = 5) -> str:
    """The error of a run in which one agent's K of layer 2, or of the last, is set after a step."""
    job = job_of(world, *overrides)
    layer = min(2, job.net.layers - 1)

    def on_step(epoch: int, step: int) -> None:
        if (epoch, step) == when:
            set_rows(job.net, job.net.weights, layer, agent, value)

    with pytest.raises(DivergenceError) as error:
        Trainer(job).run(on_step, lambda row: None)
    return str(error.value)


def training(world: World) -> None:
    """The cheap check names the epoch, the thorough one the step after the one that broke."""
    told = spoiled(world, (1, 3), math.nan)
    assert told.startswith("the weights are no longer finite in epoch 2, layer 2, agent 5: ")
    assert "lower optimizer.learning_rate" in told
    assert "check_finite=true" in told
    told = spoiled(world, (1, 1), math.inf, "check_finite=true")
    assert told.startswith("the weights are no longer finite in epoch 2, step 3, layer 2, agent 5: ")
    assert "check_finite" not in told
    told = spoiled(world, (0, 0), 1e30, "check_finite=true", "network.activation=relu")
    assert told.startswith("the state is no longer finite in epoch 1, step 2, layer 2, agent 4: ")


def far_from_the_readout(world: World) -> None:
    """Two layers do not reach the agent that is read, so the loss stays a number."""
    settings = ("network.layers=2", "readout.at=[0]", "data.columns={0=[0], 1=[1]}")
    told = spoiled(world, (0, 3), math.nan, *settings, agent=4)
    assert told.startswith("the weights are no longer finite in epoch 1, layer 1, agent 4: ")


def the_samples(world: World) -> None:
    job = job_of(world)
    if job.agents.owns(4):
        job.train.inputs[:, local_rows(job.agents, (2,) * 8) == 8] = math.inf
    for setting in ("check_finite=false", "check_finite=true"):
        config = load_config(None, [*SMALL, setting])
        with pytest.raises(DivergenceError, match=r"state .* in epoch 1,.* input, agent 4: .*look at the data"):
            Trainer(Job(**{**job.__dict__, "config": config})).run(lambda epoch, step: None, lambda row: None)


def a_loss_beyond_meaning(world: World) -> None:
    """Every number is finite all the same."""
    job = job_of(world, "optimizer.learning_rate=1e5", "network.layers=2")
    with pytest.raises(DivergenceError, match=r"the loss is .*e\+.* in epoch 1, and was .* in the first step: .*lower"):
        Trainer(job).run(lambda epoch, step: None, lambda row: None)
    assert all(parameter.isfinite().all() for parameter in job.parameters)


CHECKS: tuple[Callable[[World], None], ...] = (
    weights_of_one_agent, a_bias, a_graph_per_layer, an_explosion, an_explosion_at_several_agents,
    an_explosion_that_heals, an_input, a_gradient, a_readout, a_coupling, a_lift, agreement, training,
    far_from_the_readout, the_samples, a_loss_beyond_meaning,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::hdnn_dist.model.propagation.DriftWarning")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_in_one_process(check: Callable[[World], None]) -> None:
    check(connect("local"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What the two ranks of one job found."""
    folder = tmp_path_factory.mktemp("ranks")
    process = run("torchrun", 2, str(Path(__file__)), str(folder))
    written = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    assert written, process.stdout + process.stderr
    return written


@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_on_two_ranks(results: list[dict[str, str]], check: str) -> None:
    assert [result.get(check, "not reached: see the check before") for result in results] == ["ok", "ok"]


@pytest.mark.parametrize("kind", ["weights", "state", "gradient"])
def test_a_place_is_known_by_its_order(kind: str) -> None:
    """Also that no two places of a step share one."""
    layers = 3
    places = [Place(kind, layer, 4, layers) for layer in range(BEFORE, layers + 1)]
    assert [Place.at(place.order, place.agent, layers) for place in places] == places
    ordered = sorted(places, key=lambda place: place.order)
    assert ordered == (places[::-1] if kind == "gradient" else places)


def test_weights_come_before_the_state_that_they_spoil() -> None:
    steps = [("state", BEFORE), ("weights", 0), ("state", 0), ("weights", 1), ("weights", 2), ("gradient", 2)]
    orders = [Place(kind, layer, 0, 2).order for kind, layer in [*steps, ("gradient", 1), ("gradient", BEFORE)]]
    assert orders == sorted(orders)
    assert len(set(orders)) == len(orders)


if __name__ == "__main__":
    main(CHECKS)
