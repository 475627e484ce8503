"""The run folder: config.toml, metrics.jsonl, summary.json and the pictures. Written by the root's rank only.

With ``record_gradients`` also gradients.jsonl, a line for every step that was recorded: {"step": 1, "norms": [...]}.

The weights, in checkpoints/, are written by every rank for its own agents.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hdnn_dist.runs.checkpoint import CHECKPOINTS, remove_weights
from hdnn_dist.runs.pictures import PICTURES
from hdnn_dist.support.files import write_whole
from hdnn_dist.training.config import Config, dump_config
from hdnn_dist.training.loop import Epoch

CONFIG, METRICS, GRADIENTS, SUMMARY = "config.toml", "metrics.jsonl", "gradients.jsonl", "summary.json"
ANALYSES = ANALYSIS, NORMS, VALUES, HEATMAP = (
    "analysis.json",
    "bsm_norm.png",
    "singular_values.png",
    "gradient_norms.png",
)


class RunFolder:
    """A folder for one run. Raises ``ValueError`` for one that holds a finished run, unless ``overwrite``."""

    def __init__(self, path: Path, config: Config, overwrite: bool = False) -> None:
        if (path / SUMMARY).exists() and not overwrite:
            raise ValueError(f"run folder {path} holds a finished run: choose another --run-dir, or pass --overwrite")
        if path.exists() and not path.is_dir():
            raise ValueError(f"run folder {path} is a file: choose another --run-dir")
        path.mkdir(parents=True, exist_ok=True)
        for name in (SUMMARY, GRADIENTS, *PICTURES, *ANALYSES):  # of an earlier run
            (path / name).unlink(missing_ok=True)
        remove_weights(path / CHECKPOINTS)
        self.path = path
        self._texts = {METRICS: "", GRADIENTS: ""}
        write_whole(path / CONFIG, dump_config(config))
        write_whole(path / METRICS, "")

    def add(self, row: Epoch) -> None:
        """Add a line to metrics.jsonl, and those of its gradients to theirs."""
        self._add_lines(METRICS, [{name: value for name, value in vars(row).items() if name != "gradients"}])
        if row.gradients:
            self._add_lines(GRADIENTS, [vars(step) for step in row.gradients])

    def _add_lines(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """The file is replaced, so that a full disk leaves no part of a line."""
        self._texts[name] += "".join(json.dumps(row) + "\n" for row in rows)
        write_whole(self.path / name, self._texts[name])

    def finish(self, summary: dict[str, Any]) -> None:
        """Write summary.json, the last file of a run."""
        write_whole(self.path / SUMMARY, json.dumps(summary, indent=2) + "\n")
