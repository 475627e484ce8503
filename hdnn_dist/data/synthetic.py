"""Two classes of points in the plane: swiss roll, double circles, double moons.

Each class is traced by curves, evenly in the angle, and each coordinate gets uniform noise of a given full
width (0.6 means -0.3 to 0.3). The geometry is that of the examples published with Galimberti, Furieri, Xu
and Ferrari-Trecate, "Hamiltonian Deep Neural Networks Guaranteeing Non-vanishing Gradients by Design"
(arXiv:2105.13205).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hdnn_dist.data.source import Description, Request, Split

SAMPLES = 8000
FEWEST = 8  # two curves a class, and a sample of each for training and for test

Points = npt.NDArray[np.float64]


def swiss_roll(points: int, label: int) -> Points:
    """(points, 2), of class ``label``: one spiral, two turns, radius 0 to 1 (class 0) or 0.2 to 1.2 (class 1)."""
    angle = np.linspace(0, 4 * math.pi, points)
    return _polar(angle / (4 * math.pi) + 0.2 * label, angle)


def double_circles(points: int, label: int) -> Points:
    """(points, 2): two circles a class, radii 1 and 3 (class 0), 2 and 4 (class 1), each gone round twice."""
    inner, outer = (np.linspace(0, 4 * math.pi, n, endpoint=False) for n in _two_parts(points))
    return np.concatenate([_polar(1.0 + label, inner), _polar(3.0 + label, outer)])


def double_moons(points: int, label: int) -> Points:
    """(points, 2): four half circles of radius 1 in a row, each hooked into the next.

    Class 0 opens downwards, centres (0, 0) and (2, 0); class 1 opens upwards, centres (1, 0.5) and (3, 0.5).
    """
    left, right = (np.linspace(0, math.pi, n) for n in _two_parts(points))
    arcs = np.concatenate([_polar(1.0, left), _polar(1.0, right) + np.array([2.0, 0.0])])
    return arcs if label == 0 else np.array([1.0, 0.5]) + arcs * np.array([1.0, -1.0])


@dataclass(frozen=True)
class Synthetic:
    """A source that makes its points: half of them of either class, every second one of a class for test.

    curve: from ``points`` and ``label`` the points of a class, (points, 2), without noise. noise: the default width.
    """

    name: str
    curve: Callable[[int, int], Points]
    noise: float

    def describe(self, root: Path | None) -> Description:
        return Description(self.name, columns=2, classes=2, samples=SAMPLES, noise=self.noise)

    def read(self, request: Request) -> tuple[Split, Split]:
        """Raises ValueError for an odd or too small number of samples and for a width that is no width."""
        self._check(request)
        rng = np.random.Generator(np.random.Philox(request.seed))
        labels = np.repeat(np.arange(2, dtype=np.int64), request.samples // 2)
        clean = np.concatenate([self.curve(request.samples // 2, label) for label in (0, 1)])
        points = clean + (request.noise or 0.0) * rng.uniform(-0.5, 0.5, clean.shape)
        train, test = _every_second(labels, rng)
        return request.split(points[train], labels[train]), request.split(points[test], labels[test])

    def _check(self, request: Request) -> None:
        if request.samples < FEWEST or request.samples % 2:
            raise ValueError(
                f"{self.name} makes an even number of samples, {FEWEST} or more, half of either class, "
                f"not {request.samples}"
            )
        if not 0 <= (request.noise or 0.0) < math.inf:
            raise ValueError(f"the noise of {self.name} must be a width of 0 or more, not {request.noise}")


SYNTHETIC = (
    Synthetic("swiss_roll", swiss_roll, noise=0.0),
    Synthetic("double_circles", double_circles, noise=0.6),
    Synthetic("double_moons", double_moons, noise=0.3),
)


def _polar(radius: float | Points, angle: Points) -> Points:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _two_parts(points: int) -> tuple[int, int]:
    return points - points // 2, points // 2


def _every_second(
    labels: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Two halves in random order. Taken class by class, so that neither half favours a class."""
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return rng.permutation(by_class[0::2]), rng.permutation(by_class[1::2])
