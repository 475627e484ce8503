"""How functions are compiled: what all of them have in common, and the names that they are cached under.

Fast-math may reorder sums, but has to keep NaN and infinity.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

from numba import njit

from hdnn_dist.support.compiled.cache import shared

FAST: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "nogil": True,
    "_nrt": False,  # no memory is allocated: numba refuses code that would, and has no references to count
    "error_model": "numpy",
    "no_cpython_wrapper": True,  # called by compiled code only
    "no_cfunc_wrapper": True,
}
CALLED = {**FAST, "no_cpython_wrapper": False, "cache": True}  # from Python
INLINE = {**FAST, "inline": "always"}  # LLVM goes through a function again for each of those around it
ROOT = Path(__file__).parents[2]
FOLDERS = ("support/compiled", "exchange/shared_memory", "kernels/cpu")  # of files whose functions are compiled


def sources() -> list[Path]:
    """The files of these folders, and those of the package that they take names from.

    Whatever becomes a constant of compiled code stands in one of them; numba's cache watches the file of a function
    only.
    """
    own = {file for folder in FOLDERS for file in (ROOT / folder).glob("*.py")}
    return sorted(own.union(*(_imported(file) for file in own)))


def _imported(file: Path) -> set[Path]:
    """The files of the package that a file imports names from."""
    nodes = ast.walk(ast.parse(file.read_bytes()))
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    files = {ROOT.parent.joinpath(*module.split(".")).with_suffix(".py") for module in modules}
    return {known for known in files if known.exists()}


def _digest() -> str:
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources())).hexdigest()[:12]


DIGEST = _digest()  # in the names that functions are cached under


def called(function):
    """A function that Python calls, compiled and cached."""
    function.__qualname__ = f"{function.__name__}_{DIGEST}"
    return shared(njit(**CALLED)(function))
