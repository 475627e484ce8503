"""The architectures: which half-steps make a layer, on which part of the state, h the step size.

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

from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.propagation.state import halves_rows
from hdnn_dist.propagation.vector_fields import Direct, Gradient, Norm, Skew, Transposed, VectorField
from hdnn_dist.support.arguments import named, unknown


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

    @property
    def skew(self) -> bool:
        """Whether what is stored is U, every block once, and K = U - U^T."""
        return self.mirrored and self.rows == self.columns


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

    def patterns(self, T: Pattern, R: Pattern) -> list[Pattern]:
        """What a set of agents passes one after the other, with K in blkSparse(T) and C in blkSparse(R)."""
        coupling = {"C": [R], "CT": [R.transposed()]}.get(self.coupled or "", [])
        return self.field.patterns(T) + coupling

    def stretch(self, norm: Norm, coupling: Norm, slope: float) -> Norm:
        """A Lipschitz constant of what it adds, per unit of h, or of what it puts in the place of its target.

        ``norm``: of L, ``coupling``: of C, numbers or arrays (layers,); ``slope``: the largest |s'|.
        """
        added = abs(self.scale(1.0)) * self.field.lipschitz(norm, slope)
        return coupling * added if self.coupled else added

    def largest_norm(self, stretch: float, coupling: float, slope: float) -> float:
        """The largest ||K|| for which ``stretch`` is kept."""
        added = stretch / abs(self.scale(1.0)) / (coupling if self.coupled else 1.0)
        return self.field.norm_within(added, slope) / self.field.coefficients.size


@dataclass(frozen=True)
class Architecture:
    """A layer as half-steps.

    ``parts``: the parts of the state, two halves or the whole y; ``halves``: whether an agent's features are two;
    ``simultaneous``: whether all half-steps read the state before the layer (forward Euler). ``coupling``: what C is
    unless one is given, "I", "J1" or "J2"; ``None`` where it has to be given, and where none stands in the layer.

    What bounds, conditions and kernels have to know follows from these. ``ValueError`` for a layer that cannot be.
    """

    name: str
    parts: tuple[str, ...]
    halves: bool
    operators: tuple[Operator, ...]
    layer: tuple[HalfStep, ...]
    simultaneous: bool
    coupling: str | None = None

    def __post_init__(self) -> None:
        for half in self.layer:
            self._check(half)
        if len({len(operator.biases) for operator in self.operators}) != 1:
            raise ValueError(f"{self.name}: its operators have different numbers of biases; give all as many")

    @property
    def skew(self) -> bool:
        """Whether K is stored as U with K = U - U^T."""
        return any(operator.skew for operator in self.operators)

    @property
    def coupled(self) -> bool:
        """Whether a coupling (J or X) can be given."""
        return any(half.coupled for half in self.layer)

    @property
    def keeps_volume(self) -> bool:
        """Whether a layer has determinant 1 whatever K, X and s are: each half-step adds to one half what it reads from
        the other. Its largest singular value, and that of every product, is then at least 1.
        """
        return not self.simultaneous

    @property
    def symplectic(self) -> bool:
        """Whether M J M^T = J for the Jacobian of a layer: gradients that take turns, X^T towards the first half, X
        towards the second, in J = [0 -X^T; X 0], or no coupling.
        """
        alternate = {self.parts[0]: "CT", self.parts[-1]: "C"}
        couplings = [half.coupled for half in self.layer]
        fits = not self.coupled or couplings == [alternate[half.target] for half in self.layer]
        return not self.simultaneous and fits and all(half.field.gradient for half in self.layer)

    def block_sizes(self, features: np.ndarray) -> np.ndarray:
        """(agents,) rows of each agent's block of one part."""
        return features // len(self.parts)

    def part_rows(self, features: np.ndarray) -> list[np.ndarray]:
        """For every part, its (rows,) in a state that holds agent after agent; ``features``: (agents,) of those."""
        return [np.arange(features.sum())] if len(self.parts) == 1 else list(halves_rows(features))

    def dense_rows(self, features: np.ndarray) -> np.ndarray:
        """(n,) the row of the state, agent after agent, at each place of the dense view; ``features``: (agents,)."""
        return np.concatenate(halves_rows(features)) if self.halves else np.arange(features.sum())

    def check_features(self, features: np.ndarray) -> None:
        """``ValueError`` where an agent's ``features`` (agents,) cannot be halved."""
        odd = np.flatnonzero(features % 2)
        if self.halves and odd.size:
            raise ValueError(
                f"agent {odd[0]} has {features[odd[0]]} features, but {self.name} splits each agent's features into "
                f"two halves: give it an even number, such as {features[odd[0]] + 1}"
            )

    def _check(self, half: HalfStep) -> None:
        """``ValueError`` for a half-step that has no place in this layer."""
        step = f"{self.name}: the half-step {half.source} -> {half.target}"
        if not {half.source, half.target} <= set(self.parts):
            raise ValueError(f"{step} names a part that the state has not; its parts are {', '.join(self.parts)}")
        if not 0 <= half.operator < len(self.operators):
            raise ValueError(f"{step} uses operator {half.operator}, but there are {len(self.operators)}, from 0 on")
        if not 0 <= half.bias < len(self.operators[half.operator].biases):
            raise ValueError(
                f"{step} uses bias {half.bias}, which operator {half.operator} has not; add it to its biases"
            )
        if not self.simultaneous and (half.source == half.target or half.replaces):
            raise ValueError(f"{step} cannot be undone: read one part and add to another, or make it simultaneous")

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
    name: str,
    layer: tuple[HalfStep, HalfStep],
    *operators: Operator,
    parts: tuple[str, str],
    coupling: str | None = None,
) -> Architecture:
    return Architecture(name, parts, True, operators, layer, simultaneous=False, coupling=coupling)


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
    coupling="I",
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
H1_J1 = replace(H1, name="H1-J1", halves=True, coupling="J1")
H1_J2 = replace(H1, name="H1-J2", coupling="J2")
MS2 = _whole("MS2", Operator("K", mirrored=True), HalfStep(Skew, source="y", target="y"))
MLP = _whole("MLP", Operator("K"), HalfStep(Direct, source="y", target="y", replaces=True))

ARCHITECTURES = {known.name: known for known in (H2, H1, H1_J1, H1_J2, MS1, MS2, MS3, MLP)}


def architecture(name: str, scheme: str | None = None) -> Architecture:
    """The architecture of that name; ``ValueError`` naming the nearest for an unknown one."""
    return named("architecture", name, ARCHITECTURES).with_scheme(scheme)
