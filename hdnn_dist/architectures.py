"""The architectures: which half-steps make a layer, on which part of the state (DESIGN: mathematics).

A half-step is ``target += factor h C F(source)`` with F(x) = K^T s(K x + b) and a coupling C, which is the
part of J that joins source to target. Architectures with two halves hold p first and q second inside each agent.

    H2      p+ = p - h Kq^T s(Kq q + bq);  q+ = q + h Kp^T s(Kp p+ + bp)      semi-implicit Euler, X = I
    H1-J1   y+ = y + h J K^T s(K y + b),  J = [0 -I; I 0]                        forward Euler

Galimberti, Furieri, Xu and Ferrari-Trecate, "Hamiltonian Deep Neural Networks Guaranteeing Nonvanishing Gradients
by Design", IEEE Transactions on Automatic Control 68(5), 2023: H1 and H2 are its equations for J and K.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hdnn_dist.choices import unknown
from hdnn_dist.couplings import Canonical, Coupling, Identity, halves_rows


@dataclass(frozen=True)
class HalfStep:
    """``target += factor h C F(source)``.

    ``operator`` names the K and b of F, ``source`` and ``target`` parts of the state, ``coupling`` makes C.
    """

    operator: str
    source: str
    target: str
    factor: float
    coupling: type[Coupling] = Identity


@dataclass(frozen=True)
class Architecture:
    """A layer as half-steps.

    ``parts``: the parts of the state, (p, q) or the whole y; ``halves``: whether an agent's features are two halves;
    ``operators``: the K, in the order in which their weights lie in memory.
    """

    name: str
    parts: tuple[str, ...]
    halves: bool
    operators: tuple[str, ...]
    layer: tuple[HalfStep, ...]

    @property
    def reversible(self) -> bool:
        """Whether no half-step reads the part that it writes, so that a layer can be undone exactly."""
        return all(half.source != half.target for half in self.layer)

    def block_sizes(self, features: np.ndarray) -> np.ndarray:
        """(agents,) rows of each agent's block of one part."""
        return features // len(self.parts)

    def part_rows(self, features: np.ndarray) -> list[np.ndarray]:
        """For every part, its rows in a state that holds agent after agent (``features``: of those agents)."""
        return [np.arange(features.sum())] if len(self.parts) == 1 else list(halves_rows(features))

    def dense_rows(self, features: np.ndarray) -> np.ndarray:
        """The row of the state, agent after agent, that stands at each place of the dense view."""
        return np.concatenate(halves_rows(features)) if self.halves else np.arange(features.sum())

    def check_features(self, features: np.ndarray) -> None:
        """``ValueError`` where an agent's features cannot be halved."""
        odd = np.flatnonzero(features % 2)
        if self.halves and odd.size:
            raise ValueError(
                f"agent {odd[0]} has {features[odd[0]]} features, but {self.name} splits each agent's features into "
                f"two halves, p and q: give it an even number, such as {features[odd[0]] + 1}"
            )


H2 = Architecture(
    name="H2",
    parts=("p", "q"),
    halves=True,
    operators=("Kp", "Kq"),
    layer=(
        HalfStep("Kq", source="q", target="p", factor=-1.0),
        HalfStep("Kp", source="p", target="q", factor=1.0),
    ),
)

H1_J1 = Architecture(
    name="H1-J1",
    parts=("y",),
    halves=True,
    operators=("K",),
    layer=(HalfStep("K", source="y", target="y", factor=1.0, coupling=Canonical),),
)

ARCHITECTURES = {architecture.name: architecture for architecture in (H2, H1_J1)}


def architecture(name: str) -> Architecture:
    """The architecture of that name; ``ValueError`` naming the nearest for an unknown one."""
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]
