"""The 8 x 8 digits that scikit-learn ships: 1797 images, 10 classes, no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hdnn_dist.data.source import Description, Request, Split

NAME = "digits"
SAMPLES, CLASSES = 1797, 10
FEWEST = 5 * CLASSES  # a fifth is for test, and each class must be in it
BRIGHTEST = 16.0


class Digits:
    """A source of handwritten digits: pixels scaled to 0 to 1, a fifth for test, stratified by class."""

    def describe(self, root: Path | None) -> Description:
        return Description(NAME, columns=64, classes=CLASSES, samples=SAMPLES, image=(8, 8))

    def read(self, request: Request) -> tuple[Split, Split]:
        """Raises ValueError for a number of samples it has not and where scikit-learn is not installed."""
        if not FEWEST <= request.samples <= SAMPLES:
            raise ValueError(f"{NAME} has {SAMPLES} samples; take {FEWEST} to {SAMPLES} of them, not {request.samples}")
        pixels, labels = _images()
        train, test = _parts(labels, request.samples, request.seed)
        return request.split(pixels[train], labels[train]), request.split(pixels[test], labels[test])


def _images() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """All pixels (1797, 64) and labels (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError(_NOT_INSTALLED) from None
    pixels, labels = load_digits(return_X_y=True)
    return pixels / BRIGHTEST, labels.astype(np.int64)


def _parts(labels: npt.NDArray[np.int64], samples: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Indices of the training and the test samples."""
    from sklearn.model_selection import train_test_split

    test = -(-samples // 5)
    rng = np.random.RandomState(np.random.Philox(seed))  # the legacy type that scikit-learn takes; any seed fits
    parts: list[npt.NDArray[np.int64]] = train_test_split(
        np.arange(len(labels)), train_size=samples - test, test_size=test, stratify=labels, random_state=rng
    )
    return parts


_NOT_INSTALLED = f"the data set {NAME} needs scikit-learn, which is not installed: pip install 'hdnn-dist[data]'"
