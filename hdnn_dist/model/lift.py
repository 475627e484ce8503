"""From an image that every agent sees to the features of each agent, without a message."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdnn_dist.model.network import HDNN
from hdnn_dist.model.precision import own_types
from hdnn_dist.model.trained import BEFORE, Trained, by_columns
from hdnn_dist.support.arguments import require_type, whole
from hdnn_dist.weights.initial import draw_lift

SIZE = 3  # pixels, height and width of a kernel; odd, so that an image keeps its size


class ConvolutionalLift(nn.Module):
    """Every agent computes its own features at every pixel by a 3 x 3 convolution of its own.

    What it returns is an input of ``net``, with the pixels as positions: ``net(lift(images))``. ``channels``: of an
    image. Weights have variance 1/fan-in and are drawn per (seed, agent), so they do not depend on the number of ranks.

    Parameters: ``weights`` (local features, channels, 3, 3) and ``bias`` (local features), zero at the start.
    Raises ``ValueError`` for no channels.

    Source: the MNIST example published with Galimberti et al., IEEE TAC 68(5), 2023, whose 8 channels are the agents'
    features here.
    """

    def __init__(self, net: HDNN, channels: int = 1) -> None:
        super().__init__()
        require_type("net", net, HDNN, "the HDNN that takes its output")
        net.require_same(channels=channels)
        self.channels = whole("channels", channels)
        self._agents, self._widths = net.agents, net.features[net.agents.local]
        drawn = draw_lift(net.agents.local, net.features[net.agents.local], channels * SIZE**2, net.seed)
        weights = torch.as_tensor(drawn, dtype=net.weights.dtype, device=net.weights.device)
        self.weights = nn.Parameter(weights.reshape(-1, channels, SIZE, SIZE))
        self.bias = nn.Parameter(weights.new_zeros(len(weights)))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, local features, height, width); zeros surround an image."""
        self._check(images)
        with own_types(images):
            return F.conv2d(images, self.weights, self.bias, padding=SIZE // 2)

    def trained(self) -> Iterator[Trained]:
        """As ``TrainedModule.trained``: kernels and biases of every agent here."""
        for name, part in self.named_parameters():
            yield from by_columns(f"lift.{name}", part, self._agents.local, self._widths, dim=0, layer=BEFORE)

    def trained_names(self) -> Iterator[str]:
        """As ``TrainedModule.trained_names``."""
        kinds = [name for name, _ in self.named_parameters()]
        return (f"agent.{agent}.lift.{kind}" for agent in range(self._agents.graph.agents) for kind in kinds)

    def _check(self, images: Tensor) -> None:
        if images.dim() != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"images have shape {tuple(images.shape)}: expected (batch, {self.channels}, height, width), "
                "the whole image on every rank"
            )
        if images.dtype != self.weights.dtype or images.device != self.weights.device:
            raise ValueError(
                f"images are {images.dtype} on {images.device}, but the weights are {self.weights.dtype} on "
                f"{self.weights.device}: convert the images, or build the network with that dtype"
            )
