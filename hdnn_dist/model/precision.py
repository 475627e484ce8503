"""Readouts and lifts compute in the types of their weights, inside torch's autocast too, as networks do."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

AS_THEY_ARE: AbstractContextManager[object] = nullcontext()


def own_types(x: Tensor) -> AbstractContextManager[object]:
    """A block in which autocast changes no type on the device of x, of any shape."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else AS_THEY_ARE
