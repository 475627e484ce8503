"""Readouts compute in the type of their weights, inside torch's autocast too, as networks do."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

Rest = ParamSpec("Rest")
Result = TypeVar("Result")
Owner = TypeVar("Owner", bound=nn.Module)


def in_own_precision(
    method: Callable[Concatenate[Owner, Tensor, Rest], Result],
) -> Callable[Concatenate[Owner, Tensor, Rest], Result]:
    """A method, of a tensor of any shape and more, in which autocast changes no type on the device of the tensor."""

    @wraps(method)
    def apart(self: Owner, x: Tensor, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        kind = x.device.type
        if not torch.is_autocast_enabled(kind):
            return method(self, x, *args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return method(self, x, *args, **kwargs)

    return apart
