"""From an image that every agent sees to the features of each agent, without a message."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hdnn_dist.exchange.common_facts import told
from hdnn_dist.model.affine import Affine, SharedAffine
from hdnn_dist.model.identity import refuse_other_weights
from hdnn_dist.model.network import HDNN
from hdnn_dist.model.precision import own_types
from hdnn_dist.model.trained import BEFORE, Trained, by_columns
from hdnn_dist.support.arguments import require_type, whole
from hdnn_dist.weights.initial import draw_lift

PARTS = ("weights", "bias")
SIZE = 3  # pixels, height and width of a kernel; odd, so that an image keeps its size


class ConvolutionalLift(Affine):
    """Every agent computes its own features at every pixel by a 3 x 3 convolution of its own.

    What it returns is an input of ``net``, with the pixels as positions: ``net(lift(images))``. ``channels``: of an
    image. Weights have variance 1/fan-in and are drawn per (seed, agent), so they do not depend on the number of ranks.
    ``shared``: whether all agents have the same kernels, by default where they share the weights of ``net``; or the
    ``shared`` of another lift.

    Parameters: ``weights`` (local features, channels, 3, 3) and ``bias`` (local features), zero at the start; or
    ``shared.weights`` and ``shared.bias``, of the features of one agent. Raises ``ValueError`` for no channels.

    Source: the MNIST example published with Galimberti et al., IEEE TAC 68(5), 2023, whose 8 channels are the agents'
    features here.
    """

    def __init__(self, net: HDNN, channels: int = 1, shared: bool | SharedAffine | None = None) -> None:
        super().__init__()
        require_type("net", net, HDNN, "the HDNN that takes its output")
        shared = net.shared is not None if shared is None else shared
        require_type("shared", shared, (bool, SharedAffine), "True, False or the shared kernels of another lift")
        net.require_same(channels=channels, shared=shared if isinstance(shared, bool) else sorted(shared.facts.items()))
        self.channels, self.everyone = whole("channels", channels), net.tree
        self._agents, self._widths = net.agents, net.features[net.agents.local]
        if shared is False:
            weights = self._drawn(net, net.agents.local)
            self._hold(weights, weights.new_zeros(len(weights)))
        else:
            self._share(net, shared)

    def _drawn(self, net: HDNN, agents: np.ndarray) -> Tensor:
        """(features of these agents, channels, 3, 3)."""
        drawn = draw_lift(agents, net.features[agents], self.channels * SIZE**2, net.seed)
        return torch.as_tensor(drawn).to(net.trained_weights.detach()).reshape(-1, self.channels, SIZE, SIZE)

    def _share(self, net: HDNN, given: bool | SharedAffine) -> None:
        if (net.features != net.features[0]).any():
            raise ValueError(
                f"agents have {sorted(set(net.features.tolist()))} features, but a shared lift is one for all: give "
                "the network one number of features, or leave shared out"
            )
        facts = told({"features of an agent": int(net.features[0]), "channels": self.channels})
        if isinstance(given, SharedAffine):
            refuse_other_weights("shared", given.facts, facts)
        own = given if isinstance(given, SharedAffine) else None
        names = ("lift.weights", "lift.bias")
        self.shared = own or SharedAffine(self._drawn(net, np.array([0])), facts, BEFORE, names)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, local features, height, width); zeros surround an image."""
        self._check(images)
        with own_types(images):
            return F.conv2d(images, *self._held(), padding=SIZE // 2)

    def _spread(self, W: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return W.repeat(len(self._widths), 1, 1, 1), c.repeat(len(self._widths))

    def _add_up(self, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        W, c = self._trained
        return weights.view(-1, *W.shape).sum(0), bias.view(-1, len(c)).sum(0)

    def _trained_here(self) -> Iterator[Trained]:
        for name, part in zip(PARTS, self._trained, strict=True):
            yield from by_columns(f"lift.{name}", part, self._agents.local, self._widths, dim=0, layer=BEFORE)

    def _names(self) -> Iterator[str]:
        return (f"agent.{agent}.lift.{kind}" for agent in range(self._agents.graph.agents) for kind in PARTS)

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
