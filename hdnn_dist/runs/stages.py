"""A checkpoint on its way to the disk: memory is made, files are written, the index is; by a thread beside training.

Ranks go from stage to stage together, when all of them have said along the tree that theirs is done.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from hdnn_dist.exchange.agreement import agreed, collected
from hdnn_dist.exchange.world import TransportError
from hdnn_dist.runs.index import CheckpointIndex, step_folder, write_index
from hdnn_dist.runs.keeping import Kept
from hdnn_dist.runs.snapshot import STATE, WEIGHTS, Snapshot
from hdnn_dist.training.loop import Trainer
from hdnn_dist.training.progress import counts

IDLE, PREPARING, FILES, INDEXING, REMOVING = "idle", "preparing", "files", "index", "removing"
Facts = dict[str, Any]


class Writing:
    """One checkpoint at a time of this rank and all others.

    Of several replicas the first writes. ``about``: what the index says of the run; ``kept``: those that are on the
    disk; ``warn``: says in a line, on the root's rank, what went wrong. ``stage`` is the same on every rank.
    """

    def __init__(self, trainer: Trainer, snapshot: Snapshot, about: Facts, kept: Kept, warn: Callable[[str], None]):
        self.stage = IDLE
        self.kept = kept
        self._trainer, self._snapshot, self._about, self._warn = trainer, snapshot, about, warn
        self._tree, self._is_root = trainer.job.head.everyone, trainer.job.is_root
        self._writes = trainer.job.agents.world.replica == 0
        self._thread = ThreadPoolExecutor(1, "hdnn-dist checkpoint")
        self._work: Future[Any] | None = None
        self._facts: Facts = {}
        self._score: float | None = None

    @property
    def busy(self) -> bool:
        """Whether this rank is at work for the stage."""
        return self._work is not None and not self._work.done()

    @property
    def failed(self) -> bool:
        """Whether this rank has failed in it."""
        return self._work is not None and self._work.done() and self._work.exception() is not None

    def finish(self) -> None:
        """Wait for the work of this rank."""
        if self._work is not None:
            wait([self._work])

    def begin(self, score: float | None) -> bool:
        """Start a checkpoint of this moment, or make room for it first; whether it was started. Every rank calls it."""
        if not self._snapshot.ready:
            self._go(PREPARING, self._snapshot.prepare)
            return False
        trainer, self._score = self._trainer, score
        self._snapshot.take()
        self._facts = {
            "step": trainer.steps,
            "epoch": len(trainer.rows),
            "at": len(trainer.results),
            **(counts(trainer) if self._is_root else {}),
        }
        self._go(FILES, self._write)
        return True

    def advance(self, failed: bool) -> None:
        """All ranks have done their work for the stage, or some have ``failed``: go on to the next."""
        if failed:
            self._give_up()
        elif self.stage == FILES:
            self._write_index()
        elif self.stage == INDEXING:
            self.kept.add(self._facts["step"], self._score)
            self._go(REMOVING, self.kept.remove_old if self._writes else self.kept.forget_old)
        else:
            self.stage, self._work = IDLE, None

    @property
    def _folder(self) -> Path:
        return step_folder(self.kept.folder, self._facts["step"])

    def _write(self) -> dict[str, Any]:
        """The files of this rank; their sizes and checksums."""
        return self._snapshot.write(self._folder) if self._writes else dict.fromkeys(self._names, (0, 0))

    @property
    def _names(self) -> list[str]:
        """Of the files of this rank."""
        return [name.format(self._tree.agents.world.rank) for name in (WEIGHTS, STATE)]

    def _go(self, stage: str, work: Callable[[], Any]) -> None:
        self.stage, self._work = stage, self._thread.submit(work)

    def _write_index(self) -> None:
        """The root's rank does, with the sizes and checksums of all files."""
        assert self._work is not None
        own = [number for name in self._names for number in self._work.result()[name]]
        table = collected(self._tree, own).long().reshape(-1, 2, 2).tolist()
        files = {
            name.format(rank): tuple(numbers)
            for rank, each in enumerate(table)
            for name, numbers in zip((WEIGHTS, STATE), each, strict=True)
        }
        self._go(INDEXING, lambda: self._index(files) if self._is_root else None)

    def _index(self, files: dict[str, Any]) -> None:
        write_index(self._folder, CheckpointIndex(**self._about, **self._facts, files=files))

    def _give_up(self) -> None:
        """Of this checkpoint; the older ones stay."""
        if self._is_root:
            self._warn(f"{self._cause()}; {self.kept.told()}; training goes on")
        else:
            self._cause()
        left = self._folder if self._writes and self.stage in (FILES, INDEXING) else None
        self._go(REMOVING, lambda: None if left is None else self.kept.remove_own(left))

    def _cause(self) -> str:
        """What the first rank that has failed says of it. Every rank has to call it."""
        what = {REMOVING: "an old checkpoint is still there", PREPARING: "no checkpoint"}
        what_of_it = what.get(self.stage, f"no checkpoint after step {self._facts.get('step')}")
        try:
            with agreed(self._tree):
                if self._work is not None:
                    self._work.result()
        except TransportError:
            raise
        except Exception as error:
            return f"{what_of_it}: {error}"
        return what_of_it
