"""What a network says of samples, from its logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.model.head import Head
from hdnn_dist.runs.outputs import names_of


@dataclass(frozen=True)
class Predictions:
    """Of classification ``classes`` (samples,) and ``probabilities`` (samples, classes); else ``values`` (samples,
    outputs). The others are ``None``. ``names``: of the classes, or of outputs that belong to agents, if any.
    """

    classes: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    values: np.ndarray | None = None
    names: list[str] | None = None

    def __len__(self) -> int:
        given = self.values if self.classes is None else self.classes
        return 0 if given is None else len(given)

    def columns(self) -> dict[str, np.ndarray]:
        """(samples,) each, by name: class, probability_0, ..., or value_0, ..., or value_ and whose it is."""
        if self.values is not None:
            names = self.names or list(map(str, range(self.values.shape[1])))
            return {f"value_{name}": column for name, column in zip(names, self.values.T, strict=True)}
        assert self.classes is not None
        assert self.probabilities is not None
        names = self.names or list(map(str, range(self.probabilities.shape[1])))
        each = {f"probability_{name}": column for name, column in zip(names, self.probabilities.T, strict=True)}
        return {"class": self.classes if self.names is None else np.array(names)[self.classes], **each}


def predictions(head: Head, logits: Tensor, class_names: Sequence[str] | None = None) -> Predictions:
    """Of logits (samples, outputs); ``class_names``: what people call the classes."""
    if not head.criterion.integer:
        return Predictions(values=logits.cpu().numpy(), names=names_of(head, head.agents.graph.label))
    two = torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
    chosen, named = two.argmax(1).cpu().numpy(), None if class_names is None else list(class_names)
    return Predictions(chosen, two.softmax(1).cpu().numpy(), names=named)
