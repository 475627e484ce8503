"""Heads at agents with targets of their own, on every rank of a real job: started by test_agent_readouts.py.

usage: agent_heads.py FOLDER. Writes FOLDER/RANK.json, check -> "ok" or the traceback.
"""

from __future__ import annotations

import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import TOLERANCE, Problem, dense_answer, local_rows, relative_error
from rank_checks import main
from torch import Tensor

from hdnn_dist import HDNN, Agents, CommunicationGraph, place
from hdnn_dist.exchange.transports.local import LocalWorld
from hdnn_dist.exchange.world import World
from hdnn_dist.model.agent_readouts import AgentReadouts
from hdnn_dist.runs.checkpoint import load_weights, save_weights

ALONE = LocalWorld(torch.device("cpu"))
UNEVEN = (2, 4, 2, 6, 2, 4, 8, 2, 4)
TARGETS = {0: 1, 2: 3, 3: 1, 7: 2, 8: 1}
GRID = CommunicationGraph.grid(3, 3)
LOSSES = ("mean_squared_error", "mean_absolute_error", "huber")


def built(world: World, loss: str = LOSSES[0], owner: object = "auto") -> tuple[Agents, HDNN, AgentReadouts]:
    agents = place(GRID, world, owner)
    net = HDNN(agents, UNEVEN, 3, dtype=torch.float64, kernel="torch")
    return agents, net, AgentReadouts(agents, net, TARGETS, loss, delta=0.5 if loss == "huber" else None)


def columns(head: AgentReadouts) -> list[int]:
    """Of the outputs of all agents, those of this rank."""
    starts = np.cumsum([0, *head.targets.values()])
    where = dict(zip(head.targets, starts.tolist(), strict=False))
    here = [agent for agent in head.agents.local.tolist() if agent in head.targets]
    return [where[agent] + output for agent in here for output in range(head.targets[agent])]


def dense_head(head: AgentReadouts, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """(outputs, features of all agents) block-diagonal, and (outputs,); this rank's entries, zeros elsewhere."""
    starts = np.cumsum((0, *UNEVEN))
    W, c = torch.zeros(head.outputs, sum(UNEVEN), dtype=torch.float64), torch.zeros(head.outputs, dtype=torch.float64)
    row = dict(zip(head.targets, np.cumsum([0, *head.targets.values()]).tolist(), strict=False))
    for part in head.trained():
        first, rows = row[part.agent], slice(row[part.agent], row[part.agent] + head.targets[part.agent])
        assert first >= 0
        if part.name.endswith("bias"):
            c[rows] = part.view(bias)
        else:
            W[rows, starts[part.agent] : starts[part.agent + 1]] = part.view(weights)
    return W, c


def equal_to_the_dense_oracle(world: World) -> None:
    """Loss and every gradient, through the network, of one matrix over all agents in one process."""
    for loss in LOSSES:
        problem = Problem(GRID, UNEVEN, "H2")
        agents = problem.agents(world)
        net = problem.network(agents)
        head = AgentReadouts(agents, net, TARGETS, loss, delta=0.5 if loss == "huber" else None)
        torch.nn.init.uniform_(head.bias)
        K, b, J = net.dense()
        own = [part.detach().clone().requires_grad_() for part in (net.weights, head.weights, head.bias)]
        filled = net.fill_dense(own[0])
        K, b = K + filled[0] - filled[0].detach(), b + filled[1] - filled[1].detach()
        of_all = [head.everyone.sum(part.detach()) for part in dense_head(head, *own[1:])]
        W, c = (a + part - part.detach() for a, part in zip(of_all, dense_head(head, *own[1:]), strict=True))
        x, target = problem.inputs().requires_grad_(), torch.as_tensor(np.random.default_rng(5).standard_normal((4, 8)))
        expected = head.criterion.value(dense_answer(problem, K, b, J, x) @ W.T + c, target)
        expected.backward()
        rows = local_rows(agents, problem.features)
        labels = target[:, columns(head)] if columns(head) else None
        check(head, net, x.detach()[:, rows], labels, expected.detach(), [x.grad[:, rows], *(p.grad for p in own)])


def check(
    head: AgentReadouts, net: HDNN, x: Tensor, labels: Tensor | None, expected: Tensor, gradients: list[Tensor]
) -> None:
    """By ``loss`` and by ``backward``, of the batch and of its parts."""
    parameters = (net.weights, head.weights, head.bias)
    known = labels if labels is None else labels.clone()
    for way in ("loss", "backward", "parts"):
        mine = x.clone().requires_grad_()
        for parameter in parameters:
            parameter.grad = None
        if way == "loss":
            value = head.loss(net(mine), known)
            value.backward()
        elif way == "backward":
            value = head.backward(net(mine), known)
        else:
            value = sum(
                head.backward(net(mine[s]), known if known is None else known[s], weight=share) * share
                for s, share in ((slice(0, 3), 0.75), (slice(3, 4), 0.25))
            )
        assert relative_error(value.detach(), expected) < TOLERANCE
        for parameter, gradient in zip((mine, *parameters), gradients, strict=True):
            if parameter.numel():
                assert relative_error(parameter.grad, gradient) < TOLERANCE, way


def predictions_need_nobody(world: World) -> None:
    """One rank alone can predict for its agents, and get a gradient."""
    _, net, head = built(world)
    if world.rank == world.size - 1:
        y = torch.ones(5, net.local_features, dtype=torch.float64, requires_grad=True)
        predicted = head(y)
        assert predicted.shape == (5, len(columns(head)))
        predicted.sum().backward()
        W, _ = dense_head(head, head.weights.detach(), head.bias.detach())
        assert relative_error(y.grad, W.sum(0)[local_rows(head.agents, UNEVEN)].expand(5, -1)) < TOLERANCE


def same_start(world: World) -> None:
    """Bit for bit, wherever agents live."""
    _, _, here = built(world)
    _, _, alone = built(ALONE)
    expected = {part.name: part.view(part.parameter) for part in alone.trained()}
    assert set(expected) == set(here.trained_names())
    for part in here.trained():
        assert torch.equal(part.view(part.parameter), expected[part.name])


def metrics_are_those_of_all(world: World) -> None:
    results = []
    for where, loss in product((world, ALONE), LOSSES[:1]):
        _, net, head = built(where, loss)
        x = torch.as_tensor(np.random.default_rng(1).standard_normal((6, sum(UNEVEN))))
        target = torch.as_tensor(np.random.default_rng(2).standard_normal((6, 8)))
        gathering = head.metrics()
        for part in (slice(0, 4), slice(4, 6)):
            labels = target[part][:, columns(head)]
            head.loss(net(x[part][:, local_rows(head.agents, UNEVEN)]), labels)
            gathering.add(head.predicted, labels)
        results.append(gathering.told())
    assert list(results[0]) == ["mae", "rmse", "r2"]
    assert results[0] == pytest.approx(results[1], rel=1e-10)


def labels_that_one_rank_refuses(world: World) -> None:
    """The same error on every rank, and all are in step afterwards."""
    _, net, head = built(world)
    y = torch.ones(3, net.local_features, dtype=torch.float64)
    labels = torch.zeros(3, len(columns(head)), dtype=torch.float64)
    broken = world.rank == head.agents.owner[8]
    for wrong, words in (
        (labels[:2], r"targets have shape \(2, "),
        (labels.float(), "torch.float32"),
        (None, "labels"),
    ):
        with pytest.raises(ValueError, match=words):
            head.loss(y, wrong if broken else labels)
    assert torch.isfinite(head.loss(y, labels))


def weights_come_back(world: World) -> None:
    agents, net, head = built(world)
    torch.nn.init.uniform_(head.bias)
    letters = torch.zeros(200, dtype=torch.float64)
    if head.everyone.is_root:
        path = tempfile.mkdtemp().encode()
        letters[: len(path)] = torch.tensor(list(path), dtype=torch.float64)
    folder = Path(bytes(int(code) for code in head.everyone.sum(letters) if code).decode())
    save_weights(net, [head], folder)
    head.everyone.sum(torch.zeros(1, dtype=torch.float64))  # all have written
    kept = [part.view(part.parameter).clone() for part in head.trained()]
    with torch.no_grad():
        head.weights.zero_()
        head.bias.zero_()
    load_weights(net, [head], folder)
    assert all(torch.equal(part.view(part.parameter), old) for part, old in zip(head.trained(), kept, strict=True))
    state = head.state_dict()
    head.load_state_dict(state)
    other = AgentReadouts(agents, net, {**TARGETS, 8: 2})
    if agents.owns(8):
        with pytest.raises((ValueError, RuntimeError)):
            other.load_state_dict(state)


def same_arguments(world: World) -> None:
    agents, net, _ = built(world)
    if world.size > 1:
        with pytest.raises(ValueError, match="the ranks disagree: targets"):
            AgentReadouts(agents, net, TARGETS if world.rank else {**TARGETS, 8: 2})


CHECKS = (
    equal_to_the_dense_oracle, predictions_need_nobody, same_start, metrics_are_those_of_all,
    labels_that_one_rank_refuses, weights_come_back, same_arguments,
)  # fmt: skip

if __name__ == "__main__":
    main(CHECKS)
