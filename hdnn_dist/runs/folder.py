"""The run folder: config.toml, metrics.jsonl, summary.json and the pictures. Written by the root's rank only.

Beside them data.json, what is known of the data (``description``).

With ``record_gradients`` also gradients.jsonl, a line for every step that was recorded: {"step": 1, "norms": [...]}.

Where the graph comes from a file, graph.json holds the graph as it was.

The weights, in checkpoints/, are written by every rank for its own agents.
"""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.files import is_file
from hdnn_dist.runs.checkpoint import CHECKPOINTS, remove_weights
from hdnn_dist.runs.index import remove_checkpoints
from hdnn_dist.runs.pictures import PICTURES
from hdnn_dist.runs.watchers import remove_events
from hdnn_dist.support.files import write_whole
from hdnn_dist.training.config import Config
from hdnn_dist.training.config_files import dump_config
from hdnn_dist.training.loop import Epoch

try:
    import fcntl
except ImportError:  # a system without it: two runs that are given one folder are not told apart
    fcntl = None  # type: ignore[assignment]

HEADER = "# The config of this run, resolved by hdnn-dist; to run it again, give it to 'hdnn-dist train'.\n"
CONFIG, METRICS, GRADIENTS, SUMMARY = "config.toml", "metrics.jsonl", "gradients.jsonl", "summary.json"
GRAPH = "graph.json"
FINDINGS = EDGES, JUDGED, DECIDED = "edges.json", "judged.json", "decision.npz"
ANALYSES = ANALYSIS, NORMS, VALUES, HEATMAP, TRANSPORT, TRANSPORTED = (
    "analysis.json",
    "bsm_norm.png",
    "singular_values.png",
    "gradient_norms.png",
    "transport.json",
    "transport.png",
)


class RunFolder:
    """A folder for one run, held by this process until it ends.

    ``graph``: of the run, where the file that the config names may be gone; it is kept in the folder.
    Raises ``ValueError`` for one that holds anything but a run of ours, whatever ``overwrite`` says, for a run without
    ``overwrite``, and for a run that is in progress.
    """

    def __init__(
        self, path: Path, config: Config, overwrite: bool = False, graph: CommunicationGraph | None = None
    ) -> None:
        _check_folder(path, overwrite)
        self._open(path, config, _hold, graph)
        remove_weights(path / CHECKPOINTS)
        remove_checkpoints(path / CHECKPOINTS)
        remove_events(path)
        write_whole(path / METRICS, "")

    @classmethod
    def resumed(cls, path: Path, config: Config, rows: Sequence[Epoch]) -> RunFolder:
        """Go on in the folder of a run, or in a new one, with the ``rows`` that it has so far."""
        self = cls.__new__(cls)
        if any(path.glob("*")):
            _check_folder(path, overwrite=True)
        self._open(path, config, _hold_soon)
        remove_weights(path / CHECKPOINTS)
        write_whole(path / METRICS, "")
        for row in rows:
            self._add_texts(row)
        for name in (METRICS, *[GRADIENTS] * bool(self._texts[GRADIENTS])):
            write_whole(path / name, self._texts[name])
        return self

    def _open(
        self,
        path: Path,
        config: Config,
        hold: Callable[[Path], Callable[[], object]],
        graph: CommunicationGraph | None = None,
    ) -> None:
        if graph is None and is_file(config.graph):
            graph = CommunicationGraph.parse(config.graph)
        path.mkdir(parents=True, exist_ok=True)
        self._release = hold(path)
        for name in (SUMMARY, GRADIENTS, GRAPH, *FINDINGS, *PICTURES, *ANALYSES):  # of an earlier run
            (path / name).unlink(missing_ok=True)
        self.path = path
        self._texts = {METRICS: "", GRADIENTS: ""}
        write_whole(path / CONFIG, HEADER + dump_config(config))
        if graph is not None:
            graph.save(path / GRAPH)

    @classmethod
    def new(cls, path: Path, config: Config) -> RunFolder:
        """A folder that no other run has: ``path``, or with a number behind its name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            own = path if number == 1 else path.with_name(f"{path.name}-{number}")
            with suppress(FileExistsError):
                own.mkdir()
                return cls(own, config)
        raise AssertionError("there is always another number")

    def add(self, row: Epoch) -> None:
        """Add a line to metrics.jsonl, and those of its gradients to theirs."""
        for name in self._add_texts(row):
            write_whole(self.path / name, self._texts[name])

    def _add_texts(self, row: Epoch) -> list[str]:
        """The files that have more lines; they are replaced, so that a full disk leaves no part of a line."""
        rows = {
            METRICS: [{name: value for name, value in vars(row).items() if name != "gradients"}],
            GRADIENTS: [vars(step) for step in row.gradients],
        }
        for name, lines in rows.items():
            self._texts[name] += "".join(json.dumps(line) + "\n" for line in lines)
        return [name for name, lines in rows.items() if lines]

    def finish(self, summary: dict[str, Any]) -> None:
        """Write summary.json, the last file of a run."""
        write_whole(self.path / SUMMARY, json.dumps(summary, indent=2) + "\n")
        self._release()


def graph_of(path: Path, config: Config) -> CommunicationGraph:
    """The graph of the run in a folder, whatever has become of the file that it was read from."""
    own = path / GRAPH
    return CommunicationGraph.load(own) if own.is_file() else CommunicationGraph.parse(config.graph)


def _check_folder(path: Path, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"run folder {path} is a file: choose another --run-dir")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not _is_ours(path):
        raise ValueError(f"run folder {path} holds files that are not of a run of ours: choose another --run-dir")
    if not overwrite:
        state = "a finished run" if (path / SUMMARY).exists() else "a run that was not finished"
        raise ValueError(f"run folder {path} holds {state}: choose another --run-dir, or pass --overwrite")


def holds_run(path: Path) -> bool:
    """Whether there is a run of ours in that folder."""
    return path.is_dir() and _is_ours(path)


def _is_ours(path: Path) -> bool:
    """Whether the config there is one that we have resolved, beside its metrics."""
    config = path / CONFIG
    return config.is_file() and (path / METRICS).is_file() and config.read_bytes().startswith(HEADER.encode())


def _hold(path: Path) -> Callable[[], object]:
    """Lock the folder; what lets it go, as the end of the process does. ``ValueError`` where a run holds it."""
    if fcntl is None:
        return lambda: None
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(folder)
        raise ValueError(f"run folder {path} is held by a run in progress: choose another --run-dir") from None
    return _Closing(folder)


def _hold_soon(path: Path) -> Callable[[], object]:
    """As ``_hold``, once the killed process that held it has ended."""
    for _ in range(100):
        with suppress(ValueError):
            return _hold(path)
        time.sleep(0.1)
    return _hold(path)


class _Closing:
    """Closes a file once: when it is called, or when nobody can call it any more."""

    def __init__(self, folder: int) -> None:
        self._close = weakref.finalize(self, os.close, folder)

    def __call__(self) -> None:
        self._close()
