"""The architectures: which half-steps make a layer, on which part of the state (DESIGN: mathematics).

    H2    p+ = p - h X^T Kq^T s(Kq q + bq);  q+ = q + h X Kp^T s(Kp p+ + bp)       semi-implicit Euler
    H1    y+ = y + h J K^T s(K y + b), J skew                                             forward Euler
    MS1   z+ = z + h s(K0 y + bz);  y+ = y + h s(-K0^T z+ + by)                      Verlet
    MS2   y+ = y + h s(K y + b), K = -K^T                                                  forward Euler
    MS3   z+ = z - h K1^T s(K1 y + b2);  y+ = y + h K2^T s(K2 z+ + b1)                Verlet
    MLP   y+ = s(K y + b)                                                      for comparison: it vanishes

H1 and H2: Galimberti, Furieri, Xu and Ferrari-Trecate, "Hamiltonian Deep Neural Networks Guaranteeing Nonvanishing
Gradients by Design", IEEE Transactions on Automatic Control 68(5), 2023. MS1: Haber and Ruthotto, "Stable architectures
for deep neural networks", Inverse Problems 34, 2018; MS2: Chang, Chen, Haber and Chi, "AntisymmetricRNN", ICLR 2019;
MS3: Chang et al., "Reversible architectures for arbitrarily deep residual neural networks", AAAI 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hdnn_dist.propagation.state import halves_rows
from hdnn_dist.propagation.vector_fields import Direct, Gradient, Skew, Transposed, VectorField
from hdnn_dist.support.arguments import unknown


@dataclass(frozen=True)
class Operator:
    """A matrix K and its biases.

    ``rows``, ``columns``: the halves of the dense K that it stands in, None for all of it; ``mirrored``: whether minus
    its transpose stands in the dense K too; ``biases``: the halves of the dense b.
    """

    name: str
    rows: int | None = None
    columns: int | None = None
    mirrored: bool = False
    biases: tuple[int | None, ...] = (None,)


@dataclass(frozen=True)
class HalfStep:
    """``target += factor h C F(source)``, or ``target = F(source)`` where it ``replaces``.

    ``operator``, ``bias``: which K and b F uses, by number; ``coupled``: how the coupling stands in it, "C", its
    transpose "CT", or not at all.
    """

    field: type[VectorField]
    source: str
    target: str
    factor: float = 1.0
    operator: int = 0
    bias: int = 0
    coupled: str | None = None
    replaces: bool = False

    def scale(self, step: float) -> float:
        """What C F(source) is multiplied with, for the step size h."""
        return 1.0 if self.replaces else self.factor * step


@dataclass(frozen=True)
class Architecture:
    """A layer as half-steps.

    ``parts``: the parts of the state, two halves or the whole y; ``halves``: whether an agent's features are two;
    ``simultaneous``: whether all half-steps read the state before the layer (forward Euler).
    """

    name: str
    parts: tuple[str, ...]
    halves: bool
    operators: tuple[Operator, ...]
    layer: tuple[HalfStep, ...]
    simultaneous: bool

    @property
    def skew(self) -> bool:
        """Whether K is stored as U with K = U - U^T."""
        return any(half.field is Skew for half in self.layer)

    @property
    def coupled(self) -> bool:
        """Whether a coupling (J or X) can be given."""
        return any(half.coupled for half in self.layer)

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
                f"two halves: give it an even number, such as {features[odd[0]] + 1}"
            )

    def with_scheme(self, scheme: str | None) -> Architecture:
        """The same Hamiltonian under another integrator, for comparison; ``None`` keeps its own.

        Only "euler" can be asked for where halves alternate; ``ValueError`` for what the mathematics does not allow.
        """
        own = "euler" if self.simultaneous else "split"
        if scheme is None or scheme == own:
            return self
        if scheme not in ("euler", "split"):
            raise unknown("scheme", scheme, ("euler", "split"))
        if scheme == "split":
            raise ValueError(
                f"scheme 'split' needs half-steps that read one half and write the other, and {self.name} has none: "
                "use 'H2', 'MS1' or 'MS3', or scheme 'euler'"
            )
        return replace(self, simultaneous=True)


def _two_halves(
    name: str, first: tuple[HalfStep, HalfStep], *operators: Operator, parts: tuple[str, str]
) -> Architecture:
    return Architecture(name, parts, True, operators, first, simultaneous=False)


def _whole(name: str, operator: Operator, half: HalfStep, halves: bool = False) -> Architecture:
    return Architecture(name, ("y",), halves, (operator,), (half,), simultaneous=True)


H2 = _two_halves(
    "H2",
    (
        HalfStep(Gradient, source="q", target="p", factor=-1.0, operator=1, coupled="CT"),
        HalfStep(Gradient, source="p", target="q", operator=0, coupled="C"),
    ),
    Operator("Kp", rows=0, columns=0, biases=(0,)),
    Operator("Kq", rows=1, columns=1, biases=(1,)),
    parts=("p", "q"),
)
MS1 = _two_halves(
    "MS1",
    (
        HalfStep(Direct, source="y", target="z", bias=0),
        HalfStep(Transposed, source="z", target="y", bias=1),
    ),
    Operator("K0", rows=1, columns=0, mirrored=True, biases=(1, 0)),
    parts=("y", "z"),
)
MS3 = _two_halves(
    "MS3",
    (
        HalfStep(Gradient, source="y", target="z", factor=-1.0, operator=0),
        HalfStep(Gradient, source="z", target="y", operator=1),
    ),
    Operator("K1", rows=1, columns=0, biases=(1,)),
    Operator("K2", rows=0, columns=1, biases=(0,)),
    parts=("y", "z"),
)
H1 = _whole("H1", Operator("K"), HalfStep(Gradient, source="y", target="y", coupled="C"))
H1_J1 = replace(H1, name="H1-J1", halves=True)
H1_J2 = replace(H1, name="H1-J2")
MS2 = _whole("MS2", Operator("K", mirrored=True), HalfStep(Skew, source="y", target="y"))
MLP = _whole("MLP", Operator("K"), HalfStep(Direct, source="y", target="y", replaces=True))

ARCHITECTURES = {known.name: known for known in (H2, H1, H1_J1, H1_J2, MS1, MS2, MS3, MLP)}


def architecture(name: str, scheme: str | None = None) -> Architecture:
    """The architecture of that name; ``ValueError`` naming the nearest for an unknown one."""
    if name not in ARCHITECTURES:
        raise unknown("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name].with_scheme(scheme)
