"""The MNIST database of handwritten digits, read from its four idx files: 28 x 28 pixels, 10 classes.

An idx file is a header (magic number and sizes, 4 bytes each) and then one byte for each pixel or label. Only the
original files are taken, which their MD5 tells, so the header has nothing to say that is not known.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from hdnn_dist.data.source import Description, Request, Split

NAME = "mnist"
CLASSES = 10
IMAGE = (28, 28)
PIXELS = IMAGE[0] * IMAGE[1]
BRIGHTEST = 255.0
MEAN, DEVIATION = 0.1307, 0.3081  # of all training pixels, scaled to 0 to 1
CHUNK = 1000  # images that are in memory with all their pixels

Bytes = npt.NDArray[np.uint8]
Order = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Training or test: the names of its two files, unpacked or with ``.gz``, and the MD5 of each, unpacked."""

    samples: int
    images: str
    labels: str
    images_md5: str
    labels_md5: str


TRAIN = Part(
    samples=60_000,
    images="train-images-idx3-ubyte",
    labels="train-labels-idx1-ubyte",
    images_md5="6bbc9ace898e44ae57da46a324031adb",
    labels_md5="a25bea736e30d166cdddb491f175f624",
)
TEST = Part(
    samples=10_000,
    images="t10k-images-idx3-ubyte",
    labels="t10k-labels-idx1-ubyte",
    images_md5="2646ac647ad5339dbf082846283269ea",
    labels_md5="27ae3e4e09519cfbb04c329615203637",
)


@dataclass(frozen=True)
class Mnist:
    """A source of handwritten digits: standardised pixels (-0.42 to 2.82), training and test samples as published.

    Fewer samples are drawn at random from both parts, a seventh of them for test as in the whole.
    """

    train: Part = TRAIN
    test: Part = TEST

    def describe(self, root: Path | None) -> Description:
        return Description(NAME, columns=PIXELS, classes=CLASSES, samples=self._samples, image=IMAGE)

    def read(self, request: Request) -> tuple[Split, Split]:
        """Inputs are float32: a pixel is a byte.

        Raises ValueError for a number of samples it has not, for a folder that is not given or lacks a file, and for
        a file that cannot be read, is cut off or is not the original.
        """
        train, test = self._counts(request.samples)
        files = self._find(request.root)
        rng = np.random.Generator(np.random.Philox(request.seed))
        return (
            _split(self.train, files, _drawn(rng, self.train.samples, train), request),
            _split(self.test, files, _drawn(rng, self.test.samples, test), request),
        )

    @property
    def checksums(self) -> dict[str, str]:
        """The names of the four files, and the MD5 of each, unpacked."""
        train, test = self.train, self.test
        return {
            train.images: train.images_md5,
            train.labels: train.labels_md5,
            test.images: test.images_md5,
            test.labels: test.labels_md5,
        }

    @property
    def _samples(self) -> int:
        return self.train.samples + self.test.samples

    def _counts(self, samples: int) -> tuple[int, int]:
        """How many of ``samples`` are for training and for test."""
        test = samples * self.test.samples // self._samples
        if test < 1 or samples > self._samples:
            fewest = -(-self._samples // self.test.samples)
            raise ValueError(f"{NAME} has {self._samples} samples; take {fewest} to {self._samples}, not {samples}")
        return samples - test, test

    def _find(self, root: Path | None) -> dict[str, Path]:
        """Where each of the four files is. All ranks look for all, so that all find out what is missing."""
        wanted = list(self.checksums)
        if root is None:
            raise ValueError(f"the data set {NAME} is read from files: set data.root to the folder of {_named(wanted)}")
        found = {name: path for name in wanted if (path := _place(root, name)) is not None}
        missing = [name for name in wanted if name not in found]
        if missing:
            raise ValueError(f"the folder {root} of data.root (or its MNIST/raw) lacks {_named(missing)}")
        return found


def _place(root: Path, name: str) -> Path | None:
    """A file in the folder itself or where torchvision puts it, unpacked or not."""
    places = [folder / file for folder in (root, root / "MNIST" / "raw") for file in (name, f"{name}.gz")]
    return next((place for place in places if place.is_file()), None)


def _named(names: list[str]) -> str:
    return (
        f"{', '.join(names)}, as they are or with .gz: the MNIST database of handwritten digits; "
        "torchvision.datasets.MNIST downloads the same files, and so does 'hdnn-dist reproduce' with --download"
    )


def _drawn(rng: np.random.Generator, available: int, samples: int) -> Order:
    """Which samples to take, in the order of the file."""
    return np.sort(rng.permutation(available)[:samples])


def _split(part: Part, files: dict[str, Path], chosen: Order, request: Request) -> Split:
    """The chosen samples of one part; the file of labels is not opened where they are not needed."""
    images = _Idx(files[part.images], 16, part.samples, PIXELS, part.images_md5)
    inputs = np.empty((len(chosen), len(request.columns)), dtype=np.float32)
    for start, table in images.chunks():
        first, last = np.searchsorted(chosen, [start, start + len(table)])
        inputs[first:last] = table[np.ix_(chosen[first:last] - start, request.columns)]
    inputs -= MEAN * BRIGHTEST
    inputs /= DEVIATION * BRIGHTEST
    if not request.labels:
        return Split(inputs, None)
    labels = _Idx(files[part.labels], 8, part.samples, 1, part.labels_md5)
    return Split(inputs, np.concatenate([table[:, 0] for _, table in labels.chunks()])[chosen].astype(np.int64))


@dataclass(frozen=True)
class _Idx:
    """One idx file: ``header`` bytes, then ``items`` of ``width`` bytes each."""

    path: Path
    header: int
    items: int
    width: int
    md5: str

    def chunks(self) -> Iterator[tuple[int, Bytes]]:
        """(number of the first item, bytes (items, width)) chunk by chunk; ValueError, at the end, for a wrong file."""
        with self._opened() as file:
            digest = hashlib.md5(file.read(self.header), usedforsecurity=False)
            for start in range(0, self.items, CHUNK):
                count = min(CHUNK, self.items - start)
                data = file.read(count * self.width)
                if len(data) < count * self.width:
                    raise ValueError(self._cut_off())
                digest.update(data)
                yield start, np.frombuffer(data, dtype=np.uint8).reshape(count, self.width)
            digest.update(file.read(1))  # what follows the last item does not belong there
        if digest.hexdigest() != self.md5:
            raise ValueError(
                f"{self.path} is not the original file: unpacked, its MD5 is {digest.hexdigest()} and should be "
                f"{self.md5}; {_AGAIN}"
            )

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        """The unpacked content; what goes wrong while it is read is told in one line."""
        try:
            with gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb") as file:
                yield cast(BinaryIO, file)
        except EOFError:
            raise ValueError(self._cut_off()) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{self.path} cannot be unpacked ({error}); {_AGAIN}") from None
        except OSError as error:
            raise ValueError(f"{self.path} cannot be read: {error.strerror or error}") from None

    def _cut_off(self) -> str:
        size = self.header + self.items * self.width
        return f"{self.path} is cut off: unpacked, it should have {size} bytes; {_AGAIN}"


_AGAIN = "get it again: torchvision.datasets.MNIST downloads the same files"
