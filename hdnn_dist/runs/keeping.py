"""Which checkpoints stay: the last few, and the best. Every rank removes its own files, the root's the index first."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hdnn_dist.runs.index import INDEX, step_folder
from hdnn_dist.runs.snapshot import STATE, WEIGHTS
from hdnn_dist.training.stopping import sign_of


class Kept:
    """The complete checkpoints in ``folder``, the same on every rank: ``steps``, each with its score.

    ``last``: how many stay; ``best``: the name of the score of which the best stays besides.
    """

    def __init__(self, folder: Path, rank: int, is_root: bool, last: int, best: str | None) -> None:
        self.folder = folder
        self.steps: dict[int, float | None] = {}
        self._rank, self._is_root, self._last, self._best = rank, is_root, last, best
        self._old: list[int] = []

    def add(self, step: int, score: float | None) -> None:
        """One more is complete; what is to go is removed by ``remove_old``."""
        self.steps = dict(sorted({**self.steps, step: score}.items()))
        stay = {*list(self.steps)[-self._last :], self.best}
        self._old += [step for step in self.steps if step not in stay]
        self.steps = {step: score for step, score in self.steps.items() if step in stay}

    @property
    def best(self) -> int | None:
        """The step of the best, the earliest of equals."""
        scores = {step: score for step, score in self.steps.items() if score is not None and score == score}
        if self._best is None or not scores:
            return None
        sign = sign_of(self._best)
        return min(scores, key=lambda step: (sign * scores[step], step))

    def is_better(self, score: float | None) -> bool:
        """Whether a score is better than that of any which is kept."""
        if self._best is None or score is None:
            return False
        known = None if self.best is None else self.steps[self.best]
        return known is None or sign_of(self._best) * (score - known) < 0

    def told(self) -> str:
        """For people: which is the newest."""
        return f"the newest is that of step {max(self.steps)}" if self.steps else "there is none yet"

    def remove_old(self) -> None:
        """Of the checkpoints that need not stay, the files of this rank."""
        while self._old:
            self.remove_own(step_folder(self.folder, self._old.pop(0)))

    def forget_old(self) -> None:
        """Somebody else removes them."""
        self._old.clear()

    def remove_own(self, folder: Path) -> None:
        """The files of this rank in a checkpoint."""
        names = [INDEX] * self._is_root + [WEIGHTS.format(self._rank), STATE.format(self._rank)]
        for name in names:
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # until the last rank has removed its files
            folder.rmdir()
