"""Going on from a checkpoint: which one, whether it may be used here, and back into a trainer.

The root's rank reads the index and tells it along the tree; each rank reads the files that hold its own agents.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from hdnn_dist.exchange.agreement import agreed, told_by_root
from hdnn_dist.exchange.world import TransportError
from hdnn_dist.runs.index import INDEX, CheckpointIndex, check_file, complete, read_index
from hdnn_dist.runs.remap import AgentMap, mapping_of
from hdnn_dist.runs.snapshot import STATE, WEIGHTS, trained
from hdnn_dist.training.config import Config, known_keys
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import Trainer
from hdnn_dist.training.progress import GRADIENTS, UNTIL_THE_END, make_moments, restore

FREE = ("threads", "timeout", "links", "replicas", "placement", "check_finite", "record_gradients", "data.root",
        "network.kernel", "tensorboard", "tracker", "tracker_project")  # fmt: skip
OF_THE_GRAPH = ("readout.at", "readout.root", "network.pattern", "network.features", "data.columns", "data.patch",
                "data.transfer.shown_at")  # fmt: skip
Tensors = dict[str, Tensor]


class ResumeWarning(UserWarning):
    """A checkpoint could not be used, and an older one is."""


class Found:
    """A checkpoint that may be used: ``folder``, its ``index``, and which of its agents become which here."""

    def __init__(self, folder: Path, index: CheckpointIndex, mapping: AgentMap) -> None:
        self.folder, self.index, self.mapping = folder, index, mapping


def about(job: Job) -> dict[str, Any]:
    """What every index of this run says of it."""
    graph = job.agents.graph
    return {
        "ranks": job.agents.world.size,
        "owners": job.agents.owner.tolist(),
        "about": job.net.about(),
        "config": flat(job.config),
        "root": job.head.everyone.root,
        "labels": None if graph.labels is None else list(graph.labels),
    }


def flat(config: Config) -> dict[str, Any]:
    """The dotted keys with their values as JSON has them."""
    dumped = json.loads(json.dumps(config.model_dump(mode="json")))
    return {key: reduce(lambda values, name: values[name], key.split("."), dumped) for key in known_keys()}


def find(job: Job, candidates: Sequence[Path], fall_back: bool, remap: bool = False) -> Found | None:
    """The first of ``candidates`` that is sound, on every rank the same; the root's list decides.

    ``fall_back``: whether one that is damaged, or of which something is missing, is passed over, with a warning; else
    ``ValueError``, as for one of another run: the line names the key. ``remap``: allow another graph.
    """
    tree = job.head.everyone
    texts = told_by_root(tree, json.dumps([str(path) for path in candidates]))
    for folder in map(Path, json.loads(texts)):
        with _passed_over(job.is_root, fall_back):
            index = _index(job, folder)
            with agreed(tree):
                refuse_other_run(index.config, job.config, remap)
                mapping = mapping_of(index, job, folder, remap)
            with _damage(), agreed(tree):
                _check_files(job, folder, index, mapping)
            return Found(folder, index, mapping)
    return None


def put_back(trainer: Trainer, found: Found) -> None:
    """Set weights, moments, schedule and position of a trainer that has made no step. Needs no message.

    Raises ``ValueError`` for tensors of another shape; the trainer is then of no use.
    """
    index, files = found.index, _Files(found.folder)
    known = {"schedule": index.schedule, "rows": index.rows, "extra": index.extra}
    kinds = {"": {p: p.data for p in trainer.parameters}, **make_moments(trainer, known)}
    with torch.no_grad():
        for kind, each in kinds.items():
            for part in (part for part in trained(trainer) if part.parameter in each):
                found.mapping.put(files, index, kind, part, part.view(each[part.parameter]))
    shared, gradients = _run_tensors(trainer, files, found)
    restore(trainer, index.epoch, known, shared, gradients)


def refuse_other_run(found: dict[str, Any], own: Config, remap: bool) -> None:
    """``ValueError`` that names the first key in which another run was meant."""
    free = (*FREE, *(OF_THE_GRAPH if remap else ()))
    for key, value in flat(own).items():
        if key in free or key.startswith("checkpoint.") or key == "graph" or found.get(key, value) == value:
            continue
        if key != "epochs":
            raise ValueError(
                f"{key} is {value!r}, but the run to resume has {found[key]!r}: give the same, or start another run"
            )
        _check_epochs(found, value)


def _check_epochs(found: dict[str, Any], epochs: int) -> None:
    schedule = found["optimizer.schedule"]
    if schedule in UNTIL_THE_END:
        raise ValueError(
            f"epochs is {epochs}, but the run to resume has {found['epochs']}: its learning rate follows "
            f"optimizer.schedule {schedule!r} to the last epoch, only 'constant' and 'exponential' can have another one"
        )


class Damaged(ValueError):
    """A checkpoint, or a part of it, is not there or not sound."""


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except TransportError:
        raise
    except (ValueError, OSError) as error:
        raise Damaged(str(error)) from None


@contextmanager
def _passed_over(is_root: bool, fall_back: bool) -> Iterator[None]:
    """What is damaged is left alone, with a line about it."""
    try:
        yield
    except Damaged as error:
        if not fall_back:
            raise
        if is_root:
            warnings.warn(f"{error}; trying the checkpoint before it", ResumeWarning, stacklevel=3)


def _index(job: Job, folder: Path) -> CheckpointIndex:
    """Read by the root's rank, told to all."""
    tree, text = job.head.everyone, ""
    with _damage(), agreed(tree):
        if job.is_root:
            text = json.dumps(asdict(read_index(folder)))
    index = CheckpointIndex(**json.loads(told_by_root(tree, text)))
    index.files.update({name: (size, crc) for name, (size, crc) in index.files.items()})
    return index


def _check_files(job: Job, folder: Path, index: CheckpointIndex, mapping: AgentMap) -> None:
    for rank in _needed(job, index, mapping):
        for name in (WEIGHTS.format(rank), STATE.format(rank)):
            check_file(folder, name, index.files)


def _needed(job: Job, index: CheckpointIndex, mapping: AgentMap) -> list[int]:
    """The ranks there whose files hold what this one goes on with; one at least, for what they all hold."""
    agents = mapping.needed(job.agents.local.tolist()) + [index.root] * job.head.everyone.is_root
    agents += [part.agent for module in (job.net, *job.others) for part in module.trained() if part.shared]
    return sorted({index.owners[agent] for agent in agents}) or [0]


class _Files:
    """Tensors of a checkpoint by name and rank."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, set[str]] = {}

    def names(self, file: str) -> set[str]:
        if file not in self._names:
            with safe_open(self.folder / file, framework="pt") as content:
                self._names[file] = set(content.keys())
        return self._names[file]

    def read(self, file: str, name: str) -> Tensor | None:
        if name not in self.names(file):
            return None
        with safe_open(self.folder / file, framework="pt") as content:
            return content.get_tensor(name)  # type: ignore[no-any-return]

    def all(self, file: str, prefix: str) -> Tensors:
        found = {name: self.read(file, name) for name in self.names(file) if name.startswith(prefix)}
        return {name: value for name, value in found.items() if value is not None}


def _run_tensors(trainer: Trainer, files: _Files, found: Found) -> tuple[Tensors, list[Tensors]]:
    """What all ranks share, from any file that this one needs; and the gradients of the ranks that it takes over."""
    job, index = trainer.job, found.index
    needed = _needed(job, index, found.mapping)
    shared = files.all(STATE.format(needed[0]), "run.results.")
    if trainer.record is None:
        return shared, []
    if job.head.everyone.is_root:
        shared |= files.all(STATE.format(index.owners[index.root]), "root.")
    size, rank = job.agents.world.size, job.agents.world.rank
    gradients = [files.all(STATE.format(past), GRADIENTS) for past in range(rank, index.ranks, size)]
    if not gradients:
        gradients = [files.all(STATE.format(needed[0]), GRADIENTS)]
        gradients[0] = {name: value if name.endswith("steps") else value * 0 for name, value in gradients[0].items()}
    return shared, [each for each in gradients if each]


def checkpoints_in(path: Path, checkpoints: str) -> list[Path]:
    """The complete checkpoints at ``path``, a run folder or one checkpoint, the newest first."""
    return [path] if (path / INDEX).is_file() else complete(path / checkpoints)
