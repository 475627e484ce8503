"""A run folder read back, without building its network."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.runs.folder import ANALYSIS, CONFIG, DECIDED, EDGES, GRADIENTS, JUDGED, METRICS, SUMMARY, graph_of
from hdnn_dist.training.config import Config
from hdnn_dist.training.config_files import load_config

Row = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """What a run folder holds. ``rows``: of metrics.jsonl; ``summary``, ``edges``, ``judged``, ``analysis``: empty
    where there is none; ``decided``: arrays (ny, nx), (points, 2) and the like by name, as written; ``gradients``:
    (step, norms) of the recorded steps.
    """

    path: Path
    config: Config
    rows: list[Row] = field(default_factory=list)
    summary: Row = field(default_factory=dict)
    edges: Row = field(default_factory=dict)
    judged: Row = field(default_factory=dict)
    analysis: Row = field(default_factory=dict)
    decided: dict[str, np.ndarray] = field(default_factory=dict)
    gradients: list[tuple[int, list[float]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.path.resolve().name

    @cached_property
    def graph(self) -> CommunicationGraph:
        """As it was when the run began."""
        return graph_of(self.path, self.config)


def read_run(path: Path) -> Record:
    """All that is known of a run, finished or not; ``ValueError`` for a folder of something else, or a damaged file."""
    for name in (CONFIG, METRICS):
        if not (path / name).is_file():
            raise ValueError(f"{path} is no run folder, it has no {name}: give the folder that 'train' has written")
    return Record(
        path,
        load_config(path / CONFIG),
        _lines(path / METRICS),
        summary=_json(path / SUMMARY),
        edges=_json(path / EDGES),
        judged=_json(path / JUDGED),
        analysis=_json(path / ANALYSIS),
        decided=_arrays(path / DECIDED),
        gradients=recorded_gradients(path / GRADIENTS),
    )


def recorded_gradients(path: Path) -> list[tuple[int, list[float]]]:
    """(step, norms) of every line, none where the run did not record them; ``ValueError`` for a damaged line."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], 1):
        try:
            row = json.loads(line)
            found.append((int(row["step"]), [float(norm) for norm in row["norms"]]))
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{path}, line {number}: {line[:40]!r} is not what a training step writes; remove it, or train again"
            ) from None
    return found


def _lines(path: Path) -> list[Row]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = _object(line)
        if row is None or "epoch" not in row:
            raise ValueError(
                f"{path}, line {number}: {line[:40]!r} is not what an epoch writes; remove it, or train again"
            )
        found.append(row)
    return found


def _json(path: Path) -> Row:
    if not path.is_file():
        return {}
    found = _object(path.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{path} is damaged: remove it, or train again")
    return found


def _object(text: str) -> Row | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, OSError, zipfile.BadZipFile):
        raise ValueError(f"{path} is damaged: remove it, or train again") from None
