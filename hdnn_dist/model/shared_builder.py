"""What the user says of shared weights, checked and brought to blocks for every role and tables for every layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from hdnn_dist.exchange.common_facts import fact
from hdnn_dist.graph.edge_labels import EdgeLabels
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.model.first_weights import WAVE, First, first_wave
from hdnn_dist.model.shared import SharedWeights
from hdnn_dist.propagation.activations import Activation
from hdnn_dist.propagation.architectures import Architecture
from hdnn_dist.propagation.system import CouplingSpec
from hdnn_dist.support.arguments import named, require_type, seed_number
from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.layers import Layers
from hdnn_dist.weights.roles import NORMALISATIONS, OWN, Pairs, RoleTable, draw_roles, fan_in
from hdnn_dist.weights.shared_wave import shared_wave

Shared = bool | SharedWeights


class Wanted(NamedTuple):
    """What ``HDNN`` was given of it."""

    shared: Shared
    normalisation: str | None
    edge_labels: EdgeLabels

    def told(self) -> dict[str, object]:
        """Facts, which every rank has to give alike."""
        labels = self.edge_labels
        known = sorted(labels.items(), key=repr) if isinstance(labels, Mapping) else labels
        given = self.shared.facts if isinstance(self.shared, SharedWeights) else self.shared
        return {"shared": given, "normalisation": self.normalisation, "edge_labels": known}

    def refuse_without(self) -> None:
        """``ValueError`` for keys of shared weights where none are shared."""
        require_type("shared", self.shared, (bool, SharedWeights), "True, False or the shared weights of a network")
        for name in ("normalisation", "edge_labels"):
            if self.shared is False and getattr(self, name) is not None:
                raise ValueError(f"{name} is given, but weights are not shared: pass shared=True, or leave it out")


def shared_weights(
    wanted: Wanted,
    architecture: Architecture,
    activation: Activation,
    features: np.ndarray,
    stack: Layers,
    first: First,
    dtype: torch.dtype,
) -> tuple[SharedWeights, list[RoleTable]]:
    """The module, new or that of another network, and a table for each layout; ``features``: (agents,).

    ``ValueError`` for agents of different features, and for shared weights that mean something else.
    """
    _refuse_uneven(features)
    given = wanted.shared if isinstance(wanted.shared, SharedWeights) else None
    normalisation, labels = _settings(wanted, given)
    pairs = [_pairs(layout, architecture, labels, normalisation) for layout in stack.layouts]
    if first.initial == WAVE and normalisation != NORMALISATIONS[0] and given is None:
        raise ValueError(f"initial='wave' is stable with normalisation 'symmetric' only, not {normalisation!r}")
    rows = int(architecture.block_sizes(features)[0])
    names = (
        [OWN, *sorted({str(name) for each in pairs for name in each.names} - {OWN})] if given is None else given.names
    )
    facts = {
        "architecture": architecture.name,
        "features of an agent": fact(int(features[0])),
        "layers": fact(len(stack)),
        "step": fact(first.step),
        "activation": activation.name,
        "roles": ", ".join(names),
        "normalisation": normalisation,
    }
    if given is None:
        values = _drawn(names, rows, pairs[0], architecture, stack, first)
        device = stack.layouts[0].device
        module = SharedWeights(
            torch.as_tensor(values, dtype=dtype, device=device), names, rows, facts, labels, normalisation
        )
    else:
        module = given
        module.require(facts)
        if module.roles.dtype != dtype:
            raise ValueError(
                f"shared holds {module.roles.dtype}, but this network has {dtype}: give both the same dtype"
            )
        _refuse_other_roles(pairs, module)
    tables = [
        RoleTable(layout, each, names, architecture.skew, dtype)
        for layout, each in zip(stack.layouts, pairs, strict=True)
    ]
    return module, tables


def _settings(wanted: Wanted, given: SharedWeights | None) -> tuple[str, EdgeLabels]:
    normalisation = NORMALISATIONS[0] if given is None else given.normalisation
    if wanted.normalisation is not None:
        normalisation = named("normalisation", wanted.normalisation, {name: name for name in NORMALISATIONS})
    known = given.edge_labels if given is not None and isinstance(given.edge_labels, str) else None
    return normalisation, known if wanted.edge_labels is None else wanted.edge_labels


def _pairs(layout: BlockLayout, architecture: Architecture, labels: EdgeLabels, normalisation: str) -> Pairs:
    stored: Pattern = layout.pattern
    whole = stored.union(stored.transposed()) if architecture.skew else stored
    return Pairs(layout.halo.agents.graph, whole, labels, normalisation)


def _drawn(
    names: Sequence[str], rows: int, pairs: Pairs, architecture: Architecture, stack: Layers, first: First
) -> np.ndarray:
    """(layers, operators, entries) the first of them."""
    wave = first_wave(stack, architecture, first)
    initial = first.initial if wave is None else "normal"
    variance = fan_in(pairs, rows) * (2 if architecture.skew else 1)  # of A - A^T
    shape = (len(stack), stack.operators, rows, stack.layouts[0].biases)
    drawn = draw_roles(names, shape, seed_number(first.seed), initial, variance)
    return drawn if wave is None else shared_wave(drawn, len(names), rows, variance, wave, architecture.skew)


def _refuse_uneven(features: np.ndarray) -> None:
    other = np.flatnonzero(features != features[0])
    if other.size:
        raise ValueError(
            f"agent {other[0]} has {features[other[0]]} features and agent 0 has {features[0]}, but shared weights "
            "need as many at every agent: give one number for all"
        )


def refuse_coupling_of_agents(spec: CouplingSpec) -> None:
    """``ValueError`` for a coupling that is trained, which each agent would have of its own."""
    if spec.trained:
        raise ValueError(
            "coupling is 'trained', of each agent's own, but weights are shared: give 'I', 'J1', 'J2' or a matrix"
        )


def _refuse_other_roles(pairs: list[Pairs], module: SharedWeights) -> None:
    found = {str(name) for each in pairs for name in each.names} - set(module.names)
    if found:
        raise ValueError(
            f"this graph has edges of label {min(found)!r}, but the shared weights have {', '.join(module.names)}: "
            "give edge_labels with the labels that they were made with"
        )
