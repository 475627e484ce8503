"""What a network is called with, checked before memory is touched."""

from __future__ import annotations

from torch import Tensor

from hdnn_dist.exchange.placement import Agents


def chosen_layers(layers: slice, count: int) -> range:
    """Those of ``count`` layers; ``TypeError`` for what is no slice, ``ValueError`` for one with a stride."""
    if not isinstance(layers, slice):
        raise TypeError(f"layers is {layers!r}: expected a slice, such as slice(0, 4) for the first four")
    if layers.step not in (None, 1):
        raise ValueError(f"layers is {layers!r}: expected a slice without a stride; call the network for each part")
    return range(count)[layers]


def check_input(x: Tensor, features: int, agents: Agents, like: Tensor) -> None:
    """``TypeError`` or ``ValueError`` unless x is (batch, features[, positions...]), of type and device of ``like``."""
    if not isinstance(x, Tensor):
        raise TypeError(f"input is a {type(x).__name__}: expected a tensor (batch, {features}[, positions...])")
    if x.dim() < 2 or x.shape[1] != features:
        raise ValueError(
            f"input has shape {tuple(x.shape)}: expected (batch, {features}[, positions...]), "
            f"the features of the {len(agents)} agents of rank {agents.world.rank}, agent after agent"
        )
    if x.dtype != like.dtype or x.device != like.device:
        raise ValueError(
            f"input is {x.dtype} on {x.device}, but the weights are {like.dtype} on {like.device}: "
            "convert the input, or build the network with that dtype"
        )
