"""Predictions of a saved run: for samples of its own data, or of a file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.world import World
from hdnn_dist.runs.evaluation import parts_of
from hdnn_dist.runs.opened import Opened, open_job
from hdnn_dist.runs.prediction_files import check_output, write_predictions
from hdnn_dist.runs.sample_files import read_samples
from hdnn_dist.runs.saved import SavedRun, load_opened, saved_of
from hdnn_dist.training.job import Samples

PARTS = ("train", "validation", "test")


class Asked(NamedTuple):
    """Whose predictions are wanted: the network, the samples as it takes them, and their names (samples,) if any."""

    saved: SavedRun
    samples: Samples
    ids: np.ndarray | None


def predict_run(opened: Opened, world: World, data: str, output: Path, overwrite: bool) -> int:
    """Write what a run says of a part of its data or of a file; how many samples. Every rank has to call it.

    ``data``: "train", "validation", "test", or a file as in ``sample_files``. The root's rank alone writes.
    ``ValueError``, on every rank, for what cannot be read or written; then nothing is.
    """
    check_output(output, overwrite)
    saved, samples, ids = _of_part(opened, world, data) if data in PARTS else _of_file(opened, world, Path(data))
    outputs = saved.outputs(samples, torch.arange(len(samples), device=saved.net.trained_weights.device))
    values = saved.values(outputs)
    with agreed(saved.head.everyone):
        if saved.head.everyone.is_root:
            write_predictions(output, ids, saved.told(values))
    return len(samples)


def _of_part(opened: Opened, world: World, name: str) -> Asked:
    job = open_job(opened, world)
    parts = parts_of(job)
    if name not in parts:
        raise ValueError(f"the data of {opened.path} have no samples for {name}: give {', '.join(parts)}, or a file")
    return Asked(saved_of(job), parts[name], parts[name].ids)


def _of_file(opened: Opened, world: World, path: Path) -> Asked:
    """Every rank reads the file, and keeps the columns of its own agents."""
    saved = load_opened(opened, world)
    with agreed(saved.head.everyone):
        found = read_samples(path, saved.about.columns)
    return Asked(saved, saved.samples(found.table), found.ids)
