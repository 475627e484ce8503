"""A linear map of each agent, or one that all share: what heads and lifts hold, and how gradients come together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.model.identity import packed, refuse_other_weights, unpacked
from hdnn_dist.model.trained import SharedParameter, Trained


class SharedAffine(nn.Module):
    """W (outputs, ...), ``weights``, and c (outputs,), ``bias``, of all agents; every rank holds the same.

    ``facts``: what they depend on to mean the same; ``layer``: where they stand, see ``Trained``; ``names``: of both.
    """

    def __init__(self, weights: Tensor, facts: dict[str, str], layer: int, names: tuple[str, str]) -> None:
        super().__init__()
        self.facts, self._layer, self._names = facts, layer, names
        self.weights = SharedParameter(weights)
        self.bias = SharedParameter(weights.new_zeros(len(weights)))

    def trained(self) -> Iterator[Trained]:
        """As ``TrainedModule.trained``."""
        layers = range(self._layer, self._layer + 1)
        for name, part in zip(self.trained_names(), (self.weights, self.bias), strict=True):
            yield Trained(name, 0, part, as_it_is, layers, shared=True)

    def trained_names(self) -> Iterator[str]:
        """As ``TrainedModule.trained_names``."""
        yield from (f"shared.{name}" for name in self._names)

    def get_extra_state(self) -> Tensor:
        """(bytes,) for ``state_dict``: ``facts``."""
        return packed(self.facts)

    def set_extra_state(self, state: Tensor) -> None:
        """``ValueError`` for the state of weights that mean something else; (bytes,) as ``get_extra_state``."""
        refuse_other_weights("this state", unpacked(state), self.facts)


class Affine(nn.Module):
    """The base of heads and lifts. ``shared``: the module that holds what agents share, else None; ``everyone``: the
    tree over all agents.

    ``_spread`` and ``_add_up`` say what each agent here has of it.
    """

    shared: SharedAffine | None
    everyone: SumTree

    def _hold(self, weights: Tensor, bias: Tensor) -> None:
        """Weights and bias, of any shape, of the agents here."""
        for name, part in (("weights", weights), ("bias", bias)):
            self.register_parameter(name, nn.Parameter(part, requires_grad=part.numel() > 0))
        self.shared = None

    @property
    def weights(self) -> Tensor:
        """(...,) of the agents here, as a subclass says: a parameter, or what shared ones give, anew each time."""
        return self.trained_weights if self.shared is None else self._spread(self.shared.weights, self.shared.bias)[0]

    @property
    def bias(self) -> Tensor:
        """(...,) as ``weights``."""
        return self._trained[1] if self.shared is None else self._spread(self.shared.weights, self.shared.bias)[1]

    @property
    def trained_weights(self) -> nn.Parameter:
        """The parameter that ``weights`` come from, of any shape."""
        return self._trained[0]

    @property
    def _trained(self) -> tuple[nn.Parameter, nn.Parameter]:
        if self.shared is not None:
            return self.shared.weights, self.shared.bias
        return self._parameters["weights"], self._parameters["bias"]  # type: ignore[return-value]

    def trained(self) -> Iterator[Trained]:
        """As ``TrainedModule.trained``: weights and biases of every agent here that is read, or what they share."""
        return self._trained_here() if self.shared is None else self.shared.trained()

    def trained_names(self) -> Iterator[str]:
        """As ``TrainedModule.trained_names``."""
        return self._names() if self.shared is None else self.shared.trained_names()

    def _held(self) -> tuple[Tensor, Tensor]:
        """``weights`` and ``bias``, differentiable: gradients of shared ones are summed along the tree."""
        if self.shared is None:
            return self._trained
        weights, bias = _Spread.apply(*self._trained, self)
        return weights, bias

    def _add_gradients(self, weights: Tensor, bias: Tensor) -> None:
        """To those that the parameters hold, from the gradients (...,) of ``weights`` and ``bias``."""
        own = (weights, bias) if self.shared is None else self._of_all(weights, bias)
        for parameter, grad in zip(self._trained, own, strict=True):
            if parameter.requires_grad:
                parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)

    def _of_all(self, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of what is shared, the same on every rank: one sum along the tree."""
        W, c = self._add_up(weights, bias)
        both = self.everyone.sum(torch.cat([W.flatten(), c]))
        return both[: W.numel()].view_as(W), both[W.numel() :]

    def _trained_here(self) -> Iterator[Trained]:
        """``trained`` where each agent has its own; ``_names`` their names on all ranks."""
        raise NotImplementedError

    def _names(self) -> Iterator[str]:
        raise NotImplementedError

    def _spread(self, W: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """What is shared, (outputs, width) and (outputs,), as ``weights`` and ``bias``."""
        raise NotImplementedError

    def _add_up(self, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The adjoint of ``_spread``, of the agents here: (outputs, width) and (outputs,)."""
        raise NotImplementedError


def as_it_is(part: Tensor) -> Tensor:
    """All of a part, of any shape: a view."""
    return part


class _Spread(torch.autograd.Function):
    """Every rank goes through both passes, since the loss behind it is on every rank."""

    @staticmethod
    def forward(ctx: Any, W: Tensor, c: Tensor, of: Affine) -> tuple[Tensor, Tensor]:
        ctx.of = of
        ctx.set_materialize_grads(True)
        return of._spread(W, c)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        return *ctx.of._of_all(weights, bias), None
