"""A network inside torch's wrappers, on every rank of a job: started by test_ranks.py. Prints "right" at the end."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hdnn_dist import HDNN, CommunicationGraph, Readout, connect, place


def refused(wrapped: nn.Module, x: torch.Tensor) -> bool:
    """Copies of one model are not what the ranks hold."""
    try:
        wrapped(x)
    except TypeError as error:
        return "call the network itself" in str(error)
    return False


def main() -> None:
    torch.set_num_threads(1)
    with connect(timeout=60.0) as world:
        agents = place(CommunicationGraph.ring(8), world)
        net = HDNN(agents, 2, 4)
        head, labels = Readout(agents, net), torch.tensor([0, 1, 1])
        x = torch.randn(3, net.local_features, generator=torch.Generator().manual_seed(world.rank))
        loss = head.loss(net(x), labels)
        loss.backward()
        gradient = net.weights.grad.clone()

        net.zero_grad()
        head.loss(torch.compile(net, backend="eager")(x), labels).backward()
        assert torch.equal(net.weights.grad, gradient), "torch.compile"

        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = head.loss(net(x), labels)
        cast.backward()
        assert torch.equal(cast, loss), "autocast"
        assert torch.equal(net.weights.grad, gradient), "autocast"

        assert refused(DistributedDataParallel(net), x)
        assert refused(DistributedDataParallel(nn.Sequential(net)), x)
        print("right")


if __name__ == "__main__":
    main()
