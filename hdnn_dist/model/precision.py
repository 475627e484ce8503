"""Readouts and lifts compute in the types of their weights, inside torch's autocast too, as networks do."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

AS_THEY_ARE: AbstractContextManager[object] = nullcontext()


def own_types(device: str) -> AbstractContextManager[object]:
    """A block in which autocast changes no type on this kind of device, such as "cpu"."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else AS_THEY_ARE
