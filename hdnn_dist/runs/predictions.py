"""What a network says of samples, from its logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.model.head import Head
from hdnn_dist.runs.outputs import names_of


@dataclass(frozen=True)
class Predictions:
    """Of classification ``classes`` (samples,) and ``probabilities`` (samples, classes); else ``values`` (samples,
    outputs), with ``names`` where they belong to agents. The others are ``None``.
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
        each = {f"probability_{number}": column for number, column in enumerate(self.probabilities.T)}
        return {"class": self.classes, **each}


def predictions(head: Head, logits: Tensor) -> Predictions:
    """Of logits (samples, outputs)."""
    if not head.criterion.integer:
        return Predictions(values=logits.cpu().numpy(), names=names_of(head, head.agents.graph.label))
    two = torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
    return Predictions(two.argmax(1).cpu().numpy(), two.softmax(1).cpu().numpy())
