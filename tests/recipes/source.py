"""Recipe: a data source. One file: what is known at once, and the columns that a rank asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hdnn_dist.data import SOURCES, Description, Request, Split


class Quadrants:
    """Points in the plane, of class 1 where both coordinates have one sign."""

    def describe(self, root: Path | None) -> Description:
        return Description("quadrants", columns=2, classes=2, samples=400)

    def read(self, request: Request) -> tuple[Split, Split]:
        table = np.random.default_rng(request.seed).uniform(-1.0, 1.0, (request.samples, 2))
        labels = (table.prod(axis=1) > 0).astype(np.int64)
        return request.split(table[::2], labels[::2]), request.split(table[1::2], labels[1::2])


SOURCES["quadrants"] = Quadrants()
