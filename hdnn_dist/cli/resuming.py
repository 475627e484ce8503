"""``hdnn-dist train --resume``: which run goes on, and how a job that was asked to leave does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hdnn_dist.cli.shell import console, leave
from hdnn_dist.exchange.agreement import agreed, told_by_root
from hdnn_dist.exchange.ending import end_now, on_signal
from hdnn_dist.runs.checkpoint import CHECKPOINTS
from hdnn_dist.runs.checkpointing import Checkpointer, Left
from hdnn_dist.runs.folder import CONFIG, SUMMARY, RunFolder, holds_run
from hdnn_dist.runs.index import INDEX, complete, read_index, remove_others, set_aside
from hdnn_dist.runs.resume import Found, about, checkpoints_in, find, flat, put_back, refuse_other_run
from hdnn_dist.support.asked import Asked
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.loop import Trainer
from hdnn_dist.training.stopping import watched

AUTO = "auto"
TRY_AGAIN = 75  # EX_TEMPFAIL: the job has left, and the same command goes on
Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="auto|PATH",
        help="Go on from a run folder or one of its checkpoints; auto: from the last in --run-dir, if there is any.",
    ),
]
Remap = Annotated[
    bool, typer.Option("--remap", help="Resume on another graph: agents that still exist keep their blocks.")
]


def config_to_resume(config: Path | None, resume: str | None) -> Path | None:
    """The config file: what was given, or else that of the run to resume."""
    own = None if resume in (None, AUTO) else _run_of(Path(str(resume))) / CONFIG
    return own if config is None and own is not None and own.is_file() else config


def found_run(trainer: Trainer, resume: str | None, run_dir: Path | None, remap: bool) -> FoundRun:
    """What ``--resume`` finds, put into the trainer already; every rank calls it. ``ValueError`` for what cannot be."""
    if resume is None:
        return FoundRun(trainer)
    if resume == AUTO and run_dir is None:
        raise ValueError("--resume auto looks into the run folder: give one, --run-dir PATH")
    path = run_dir if resume == AUTO and run_dir is not None else Path(resume)
    tree, candidates = trainer.job.head.everyone, []
    with agreed(tree):
        if trainer.job.is_root:
            candidates = _candidates(trainer, path, resume == AUTO, remap)
    found = find(trainer.job, candidates, fall_back=resume == AUTO or not _is_checkpoint(path), remap=remap)
    if found is None:
        _leave_finished(trainer, path, run_dir, resume == AUTO)
        _refuse_damaged(trainer, path, candidates)
        return FoundRun(trainer, None, path)
    with agreed(tree):
        put_back(trainer, found)
    _leave_finished(trainer, _run_of(path), run_dir, resume == AUTO)
    _tell(trainer, found)
    return FoundRun(trainer, found, run_dir or _run_of(path))


class FoundRun:
    """``found``: the checkpoint; ``path``: the run folder; both None where a run starts."""

    def __init__(self, trainer: Trainer, found: Found | None = None, path: Path | None = None) -> None:
        self.trainer, self.found, self.path = trainer, found, path

    def maker(self, run_dir: Path | None, overwrite: bool) -> Callable[[], RunFolder] | None:
        """What makes the run folder, on the root's rank; None where no name was given."""
        config, path = self.trainer.job.config, run_dir or self.path
        if path is None:
            return None
        if self.found is not None:
            return partial(RunFolder.resumed, path, config, self.trainer.rows)
        return partial(RunFolder, path, config, overwrite or (self.path is not None and holds_run(path)))

    @contextmanager
    def checkpointed(self, path: Path) -> Iterator[Checkpointer]:
        """Checkpoints of a run in ``path``; the end of the command where the job is asked to leave."""
        trainer, folder = self.trainer, path / CHECKPOINTS
        done = self._tidied(folder)
        with Asked() as asked:
            on_signal(asked.wake)
            try:
                yield Checkpointer(trainer, folder, about(trainer.job), done, asked)
            except Left as left:
                _leave(trainer, left)

    def _tidied(self, folder: Path) -> dict[int, float | None]:
        """Step -> score of the checkpoints that there are, of which those that this run does not follow are away."""
        tree, text = self.trainer.job.head.everyone, ""
        with agreed(tree):
            if self.trainer.job.is_root:
                set_aside(folder, self.trainer.steps if self.found else -1)
                text = json.dumps(_scores(folder, self.trainer.job.config.checkpoint.best))
        done = {int(step): score for step, score in json.loads(told_by_root(tree, text)).items()}
        with agreed(tree):
            remove_others(folder, done)
        return done


def _candidates(trainer: Trainer, path: Path, auto: bool, remap: bool) -> list[Path]:
    """On the root's rank: checkpoints to try; none where a run may start."""
    found = checkpoints_in(path, CHECKPOINTS)
    if auto and not found and holds_run(path):
        known = flat(load_config(path / CONFIG))
        refuse_other_run(known, trainer.job.config, remap)
        if (path / SUMMARY).is_file() and known["epochs"] != trainer.job.config.epochs:
            raise ValueError(f"run folder {path} holds a finished run without a checkpoint: choose another --run-dir")
    if not auto and not found:
        raise ValueError(f"{path} holds no complete checkpoint: give a run folder that has one, or start a run")
    return found


def _leave_finished(trainer: Trainer, path: Path, run_dir: Path | None, auto: bool) -> None:
    """Where the run that goes on has no step left and is summarised: say so, and end well."""
    tree, job = trainer.job.head.everyone, trainer.job
    here = auto or run_dir is None or run_dir == path
    left = trainer.steps and trainer.steps < job.config.epochs * trainer.steps_per_epoch
    if told_by_root(tree, "yes" if here and not left and (path / SUMMARY).is_file() else ""):
        if job.is_root:
            console.print(f"run folder {path} holds this run, finished: nothing is left to do")
        end_now(0)
        raise typer.Exit(0)


def _refuse_damaged(trainer: Trainer, path: Path, candidates: list[Path]) -> None:
    """A run that has checkpoints is not started anew over them."""
    with agreed(trainer.job.head.everyone):
        if candidates:
            raise ValueError(f"{path} has no checkpoint that is whole: choose another --run-dir, or mend the files")


def _tell(trainer: Trainer, found: Found) -> None:
    """From where training goes on, and what has become of the agents."""
    if trainer.job.is_root:
        at, epoch = found.index.at, found.index.epoch
        where = f"epoch {epoch + 1}, step {at + 1}"
        console.print(f"resumed from {found.folder}, {found.index.ranks} ranks: goes on with {where}", highlight=False)
        if found.mapping.told:
            console.print(found.mapping.told, highlight=False)


def _leave(trainer: Trainer, left: Left) -> None:
    """All ranks, at the same step, with the status that tells schedulers to try again."""
    if trainer.job.is_root:
        leave(f"asked to leave by {left.name}; {left}: the same command with --resume auto goes on", TRY_AGAIN)
    sys.stdout.flush()
    end_now(TRY_AGAIN)
    raise typer.Exit(TRY_AGAIN)


def _scores(folder: Path, best: str | None) -> dict[int, float | None]:
    """Step -> score of the complete checkpoints in a folder."""
    scores = {}
    for path in complete(folder):
        index = read_index(path)
        known = best is not None and index.rows and index.at == 0
        scores[index.step] = watched(index.rows[-1], str(best)) if known else None
    return scores


def _is_checkpoint(path: Path) -> bool:
    return (path / INDEX).is_file()


def _run_of(path: Path) -> Path:
    """The run folder of a path to one, or to one of its checkpoints."""
    return path.parents[1] if _is_checkpoint(path) and len(path.parents) > 1 else path
