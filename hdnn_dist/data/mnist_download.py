"""Fetch the four files of MNIST. Nothing calls this unless its user asks for a download."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hdnn_dist.data.mnist import Mnist
from hdnn_dist.support.files import whole_files

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"  # torchvision's first
TIMEOUT = 30.0  # seconds without an answer
LARGEST = 1 << 26  # bytes; the largest file has 47 MB, unpacked
PUBLISHED = Mnist()


def download(root: Path, source: Mnist = PUBLISHED, mirror: str = MIRROR) -> None:
    """Put the four files into ``root``, packed as they are published (``.gz``, 11 MB). For one rank, not for all.

    All are fetched and compared with their MD5 before the first is written: a failure leaves ``root`` as it was.
    Raises ``ValueError`` for a ``root`` that is no folder and a file that is not the original, ``OSError`` where there
    is no network or no room.
    """
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root} is a file: give a folder for the files of MNIST")
    files = {f"{name}.gz": _fetch(f"{mirror}{name}.gz", md5) for name, md5 in source.checksums.items()}
    with _new_folder(root):
        _write(root, files)


def _fetch(url: str, md5: str) -> bytes:
    """The packed file at a URL, if its content has this MD5."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            packed: bytes = answer.read(LARGEST)
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"{url} cannot be downloaded ({_reason(error)}): is there a network? Then {_BY_HAND}") from None
    found = hashlib.md5(_unpacked(url, packed), usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(
            f"{url} is not the original file: unpacked, its MD5 is {found} and should be {md5}; {_BY_HAND}"
        )
    return packed


def _unpacked(url: str, packed: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            return file.read(LARGEST)
    except EOFError:
        raise ValueError(f"{url} was cut off after {len(packed)} bytes; {_BY_HAND}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{url} cannot be unpacked ({error}); {_BY_HAND}") from None


def _reason(error: Exception) -> object:
    """What went wrong, without the name of the exception."""
    return getattr(error, "reason", None) or str(error) or type(error).__name__


@contextmanager
def _new_folder(path: Path) -> Iterator[None]:
    """Make a folder with its parents, and take away again what was made when the block fails."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except OSError:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _write(root: Path, files: dict[str, bytes]) -> None:
    """All files or none."""
    with whole_files([root / name for name in files]) as partial:
        for path, content in zip(partial, files.values(), strict=True):
            path.write_bytes(content)


_BY_HAND = "try again, or put the four files there yourself, from any copy of the MNIST database of handwritten digits"
