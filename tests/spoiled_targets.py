"""A rank whose agent has targets that are not finite: started by test_objective.py.

usage: spoiled_targets.py FOLDER. Writes FOLDER/RANK.txt, the error.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from hdnn_dist import CommunicationGraph, connect
from hdnn_dist.data import SOURCES, Description, Request, Split
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config


class Spoiled:
    def describe(self, root: Path | None) -> Description:
        return Description("spoiled", 8, 2, samples=20, task="regression", targets={0: 1, 7: 1})

    def read(self, request: Request) -> tuple[Split, Split]:
        broken = np.zeros((10, 1))
        broken[3] = np.nan
        part = request.split(np.zeros((10, 8)), None, {0: np.zeros((10, 1)), 7: broken})
        return part, part


if __name__ == "__main__":
    SOURCES["spoiled"] = Spoiled()
    keys = ("data.name=spoiled", "readout.at=each", "readout.loss=huber", "placement=contiguous", "network.layers=2")
    with connect(timeout=60.0) as world:
        try:
            build(load_config(None, keys), CommunicationGraph.ring(8), world)
        except ValueError as error:
            (Path(sys.argv[1]) / f"{world.rank}.txt").write_text(str(error))
