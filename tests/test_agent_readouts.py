"""A readout at every agent with targets: equal to one dense head, on any number of ranks, for one small sum."""

from __future__ import annotations

import json
from pathlib import Path

import agent_heads
import pytest
import torch
from jobs import run

from hdnn_dist import HDNN, CommunicationGraph, connect, place
from hdnn_dist.model.agent_readouts import AgentReadouts

AGENTS = place(CommunicationGraph.grid(3, 3), connect("local"))
NET = HDNN(AGENTS, 2, 2, dtype=torch.float64, kernel="torch")


@pytest.mark.parametrize(("launcher", "ranks"), [("torchrun", 2), ("mpiexec", 4)])
def test_on_ranks(launcher: str, ranks: int, tmp_path: Path) -> None:
    process = run(launcher, ranks, str(Path(agent_heads.__file__)), str(tmp_path))
    written = {file.stem: json.loads(file.read_text()) for file in sorted(tmp_path.glob("*.json"))}
    assert len(written) == ranks, process.stdout + process.stderr
    for rank, found in written.items():
        for check in agent_heads.CHECKS:
            assert found.get(check.__name__) == "ok", f"rank {rank}\n{found.get(check.__name__)}"


@pytest.mark.parametrize("check", agent_heads.CHECKS, ids=lambda check: check.__name__)
def test_in_one_process(check) -> None:
    check(agent_heads.ALONE)


def test_messages() -> None:
    """Two small ones an edge of the tree, whatever the batch; predictions and backward send none."""
    head, y = AgentReadouts(AGENTS, NET, {0: 1, 8: 2}), torch.ones(10, 18, dtype=torch.float64, requires_grad=True)
    before = AGENTS.ledger.traffic()
    loss = head.loss(y, torch.zeros(10, 3, dtype=torch.float64))
    spent = AGENTS.ledger.traffic() - before
    assert (spent.messages, spent.bytes) == (2 * 8, 2 * 8 * 2 * 8)
    before = AGENTS.ledger.traffic()
    loss.backward()
    head(y)
    assert (AGENTS.ledger.traffic() - before).messages == 0


def test_positions_have_weights_of_their_own() -> None:
    """As images have them after a lift."""
    head = AgentReadouts(AGENTS, NET, {4: 1}, positions=(2, 3))
    y = torch.linspace(-1, 1, 5 * 18 * 6, dtype=torch.float64).view(5, 18, 2, 3)
    (W,) = (part.view(part.parameter) for part in head.trained() if part.name == "agent.4.readout")
    torch.testing.assert_close(head(y), y[:, 8:10].flatten(1) @ W.T)
    with pytest.raises(ValueError, match=r"built for positions \(2, 3\), but the state has \(\)"):
        head(y[..., 0, 0])


@pytest.mark.parametrize(
    ("targets", "options", "words"),
    [
        ({9: 1}, {}, r"readout at \[9\]: expected different agents between 0 and 8"),
        ({}, {}, r"readout at \[\]"),
        ({0: 0}, {}, "the outputs of agent 0 is 0: expected a whole number of at least 1"),
        ({0: 1}, {"loss": "cross_entropy"}, "cross_entropy tells classes apart, but agents predict numbers"),
        ({0: 1}, {"loss": "mae"}, "unknown loss 'mae'"),
        ({0: 1}, {"delta": 1.0}, "the loss mean_squared_error has none"),
        ({0: 1}, {"root": 9}, "root 9 is not an agent"),
    ],
)
def test_what_cannot_be_built(targets: dict[int, int], options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AgentReadouts(AGENTS, NET, targets, **options)
