"""What a training shows while it runs: a bar on a terminal, and lines where nobody can redraw them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskProgressColumn
from rich.text import Text

from hdnn_dist.model.metrics import headline
from hdnn_dist.training.loop import Epoch, Trainer

OnStep = Callable[[int, int], None]
OnEpoch = Callable[[Epoch], None]
APART = 2.0  # seconds, at least, between two lines of epochs
PATIENT = 60.0  # seconds, at most, without any line
REDRAWN = 0.25  # seconds between two looks at the loss


@contextmanager
def progress(trainer: Trainer, console: Console) -> Iterator[tuple[OnStep, OnEpoch]]:
    """What to call after each step and each epoch; only the root's rank shows anything."""
    if not trainer.job.is_root:
        yield lambda epoch, step: None, lambda row: None
    elif console.is_terminal:
        with _bar(trainer, console) as calls:
            yield calls
    else:
        lines = _Lines(trainer, console)
        try:
            yield lines.on_step, lines.on_epoch
        finally:
            lines.end()


def told(row: Epoch) -> str:
    """An epoch in words."""
    waiting = f"  waiting {row.waiting:.0%}" if row.waiting else ""
    return (
        f"loss {row.loss:.4g}  test loss {row.test_loss:.4g}  test {headline(row.metrics)}  "
        f"{row.samples_per_second:,.0f} samples/s  {decimal(int(row.bytes_per_second))}/s{waiting}"
    )


def duration(seconds: float) -> str:
    """Such as 8 s, 3 min 20 s or 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"


@dataclass
class _Remaining:
    """How long the steps that are left will take, at the pace of those since the first, which may have compiled."""

    steps: int
    done: int = 0
    since: float = 0.0

    def step(self) -> None:
        self.done += 1
        if self.done == 1:
            self.since = time.monotonic()

    def __str__(self) -> str:
        if self.done < 2:
            return "time left unknown"
        each = (time.monotonic() - self.since) / (self.done - 1)
        return f"{duration(each * (self.steps - self.done))} left"


class _Lines:
    """A line an epoch, none sooner than ``APART`` after another but the last; in a long epoch a line now and then."""

    def __init__(self, trainer: Trainer, console: Console) -> None:
        self._trainer, self._console = trainer, console
        self._epochs = trainer.job.config.epochs
        self._left = _Remaining(self._epochs * trainer.steps_per_epoch)
        self._told = time.monotonic()
        self._untold: Epoch | None = None

    def on_step(self, epoch: int, step: int) -> None:
        self._left.step()
        if time.monotonic() - self._told > PATIENT:
            share = (step + 1) / self._trainer.steps_per_epoch
            self._say(epoch + 1, f"{share:.0%} of the epoch  loss {self._trainer.recent_loss:.4g}")

    def on_epoch(self, row: Epoch) -> None:
        self._untold = row
        if time.monotonic() - self._told > APART or row.epoch == self._epochs:
            self.end()

    def end(self) -> None:
        """The last epoch, where it has not been told."""
        if self._untold is not None:
            self._say(self._untold.epoch, told(self._untold))

    def _say(self, epoch: int, words: str) -> None:
        left = "" if epoch == self._epochs and self._untold is not None else f"  {self._left}"
        self._console.print(f"epoch {epoch}/{self._epochs}  {words}{left}", highlight=False)
        self._told, self._untold = time.monotonic(), None


class _Bar(Progress):
    """With a line of words below it."""

    words = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.words)


@contextmanager
def _bar(trainer: Trainer, console: Console) -> Iterator[tuple[OnStep, OnEpoch]]:
    """Over all steps; under it the loss of the last steps, and the last epoch."""
    columns = (
        "epoch {task.fields[epoch]}",
        BarColumn(),
        TaskProgressColumn(),
        "{task.fields[left]}",
        "loss {task.fields[loss]}",
    )
    epochs = trainer.job.config.epochs
    left = _Remaining(epochs * trainer.steps_per_epoch)
    looked = 0.0
    with _Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=left.steps, epoch=f"0/{epochs}", left="", loss="")

        def on_step(epoch: int, step: int) -> None:
            nonlocal looked
            left.step()
            bar.advance(task)
            if time.monotonic() - looked > REDRAWN:  # an accelerator would have to finish for a look
                looked = time.monotonic()
                bar.update(task, epoch=f"{epoch + 1}/{epochs}", left=str(left), loss=f"{trainer.recent_loss:.4g}")

        def on_epoch(row: Epoch) -> None:
            bar.words = f"epoch {row.epoch}: {told(row)}"
            bar.update(task, epoch=f"{row.epoch}/{epochs}", left=str(left), loss=f"{trainer.recent_loss:.4g}")

        yield on_step, on_epoch
