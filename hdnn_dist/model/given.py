"""What a network or a readout is called with, checked before memory is touched."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hdnn_dist.exchange.placement import Agents
from hdnn_dist.support.arguments import is_number, require_type, shown


def chosen_layers(layers: slice, count: int) -> range:
    """Those of ``count`` layers; ``TypeError`` for no slice of numbers, ``ValueError`` for one with a stride."""
    require_type("layers", layers, slice, "a slice, such as slice(0, 4) for the first four")
    if layers.step not in (None, 1):
        raise ValueError(
            f"layers is {shown(layers)}: expected a slice without a stride; call the network for each part"
        )
    return range(count)[layers]


def number_type(dtype: torch.dtype) -> torch.dtype:
    """``dtype``, if it is one of floating-point numbers; ``TypeError`` or ``ValueError`` otherwise."""
    require_type("dtype", dtype, torch.dtype, "torch.float32 or torch.float64")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}: expected floating-point numbers, torch.float32 or torch.float64")
    return dtype


def check_call(x: Tensor, features: int, agents: Agents, weights: Tensor, built: torch.Size) -> None:
    """``TypeError`` or ``ValueError`` unless x is (batch, features[, positions...]), of type and device of the weights.

    ``built``: the shape that they were made with; compiled code reads so many. ``TypeError`` also inside torch's
    DistributedDataParallel, which takes what the ranks hold for copies of one model.
    """
    if DistributedDataParallel._active_ddp_module is not None:
        _refuse_replicas(agents)
    check_shape("weights", weights, built)
    _check_input(x, features, agents, weights)


def check_weight(weight: object) -> None:
    """``ValueError`` unless the weight of a batch is a finite number."""
    if not is_number(weight):
        raise ValueError(f"weight is {shown(weight)}: expected a finite number, the share of this batch")


def check_shape(name: str, parameter: Tensor, built: torch.Size) -> None:
    """``ValueError`` unless a parameter, of any shape, has the one that it was built with."""
    if parameter.shape != built:
        raise ValueError(
            f"{name} has shape {tuple(parameter.shape)}, expected {tuple(built)} as it was built: set values with "
            "load_dense or load_state_dict, or build another one"
        )


def check_dense(K: Tensor, b: Tensor, layers: int, n: int) -> None:
    """``TypeError`` or ``ValueError`` unless K is (layers, n, n) and b (layers, n)."""
    for name, given, shape in (("K", K, (layers, n, n)), ("b", b, (layers, n))):
        require_type(name, given, Tensor, f"a tensor {shape}")
        if given.shape != shape:
            raise ValueError(f"{name} has shape {tuple(given.shape)}: expected {shape}, as dense() returns it")


def _check_input(x: Tensor, features: int, agents: Agents, like: Tensor) -> None:
    if not isinstance(x, Tensor) or x.layout != torch.strided:
        kind = x.layout if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise TypeError(f"input is {kind}: expected a dense tensor (batch, {features}[, positions...])")
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


def _refuse_replicas(agents: Agents) -> None:
    if agents.world.size > 1:
        raise TypeError(
            "DistributedDataParallel gives every rank the weights of rank 0, but here each rank has agents of its own: "
            "call the network itself; its exchanges are all that ranks need"
        )
