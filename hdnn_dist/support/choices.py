"""One sentence for every name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, given: object, known: Iterable[str]) -> ValueError:
    """The error for a name that is not among the known ones; names the nearest and lists all."""
    names = list(known)
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(f"unknown {kind} {given!r}: {hint}there are {', '.join(names)}")
