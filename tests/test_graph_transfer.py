"""Graph transfer: two agents swap what they see."""

from __future__ import annotations

import numpy as np
import pytest

from hdnn_dist import CommunicationGraph
from hdnn_dist.data.dataset import Dataset, describe, load


def read(graph: CommunicationGraph, agents: tuple[int, ...], samples: int = 22) -> Dataset:
    return load("graph_transfer", seed=3, index=np.array(agents), samples=samples, targets=agents, graph=graph)


@pytest.mark.parametrize(("spec", "far"), [("path:5", 4), ("ring:6", 3), ("crossed_ring:8", 4)])
def test_the_two_farthest_agents_swap(spec: str, far: int) -> None:
    graph = CommunicationGraph.parse(spec)
    data = read(graph, tuple(range(graph.agents)))
    assert (len(data.train), len(data.test)) == (20, 2)
    for split in (data.train, data.test):
        assert split.targets is not None
        told = np.hstack([split.targets[agent] for agent in range(graph.agents)])
        others = [agent for agent in range(graph.agents) if agent not in (0, far)]
        assert (told[:, others] == split.inputs[:, others]).all()
        assert (split.inputs[:, 0] == 1).all()
        assert (split.inputs[:, far] == 0).all()
        assert (told[:, [0, far]] == [0, 1]).all()
    one = read(graph, (far,))  # a rank that owns it alone
    assert one.train.targets is not None
    assert set(one.train.targets) == {far}
    assert (one.train.inputs[:, 0] == 0).all()


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="two agents"):
        describe("graph_transfer", graph=CommunicationGraph.path(1))
    with pytest.raises(ValueError, match="11 samples"):
        read(CommunicationGraph.path(3), (0,), samples=10)
