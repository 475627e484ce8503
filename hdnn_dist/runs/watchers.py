"""Who else is told of every epoch, by the root's rank: TensorBoard, and trackers with wandb's interface.

Each is imported only where the config asks for it. One that fails while a run goes on is left out from then on, with a
warning: a run is worth more than its curves.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hdnn_dist.support.arguments import one_line
from hdnn_dist.training.config import Config
from hdnn_dist.training.loop import Epoch

TENSORBOARD = "tensorboard"  # the folder of its events, in that of the run
EVENTS = "events.out.tfevents.*"
MOST_STEPS = 20  # of an epoch whose gradient norms are told
Tell = Callable[[Epoch], None]


class WatcherWarning(UserWarning):
    """TensorBoard or a tracker could not be told; the run goes on without it."""


def require_watchers(config: Config) -> None:
    """``ValueError`` for what the config asks for and is not installed."""
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "tensorboard = true needs tensorboard, which is not installed: pip install 'hdnn-dist[tensorboard]'"
        )
    if config.tracker is not None and importlib.util.find_spec(config.tracker) is None:
        raise ValueError(
            f"tracker = {config.tracker!r} needs {config.tracker}, which is not installed: "
            f"pip install {config.tracker}, or leave tracker out"
        )


@contextmanager
def watchers(config: Config, path: Path) -> Iterator[list[Tell]]:
    """What to call with every epoch of the run in that folder. Raises ``ValueError`` for a tracker that does not start.

    They are closed in the end, whatever the end.
    """
    with ExitStack() as stack:
        calls = []
        if config.tensorboard:
            calls.append(_forgiving("TensorBoard", stack.enter_context(_tensorboard(path / TENSORBOARD))))
        if config.tracker is not None:
            calls.append(_forgiving(config.tracker, stack.enter_context(_tracker(config.tracker, config, path))))
        yield calls


def remove_events(folder: Path) -> None:
    """Remove those of an earlier run in this run folder."""
    for path in (folder / TENSORBOARD).glob(EVENTS):
        path.unlink(missing_ok=True)


def numbers_of(row: Epoch) -> dict[str, float]:
    """The numbers of an epoch under the names that charts are grouped by; those that there are."""
    named = {
        "loss/training": row.loss,
        "loss/test": row.test_loss,
        "accuracy/training": row.train_accuracy,
        **{f"{name}/test": value for name, value in row.metrics.items()},
        "learning_rate": row.learning_rate,
        "pace/samples_per_second": row.samples_per_second,
        "pace/bytes_per_second": row.bytes_per_second,
        "pace/share_of_waiting": row.waiting,
        "reconstruction_drift": row.drift,
    }
    return {name: value for name, value in named.items() if value is not None}


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Tell]:
    from torch.utils.tensorboard import SummaryWriter

    def tell(row: Epoch) -> None:
        for name, value in numbers_of(row).items():
            writer.add_scalar(name, value, row.epoch)
        for step in row.gradients[:: math.ceil(len(row.gradients) / MOST_STEPS) or 1]:
            for name, norm in _norms(step.norms).items():
                writer.add_scalar(name, norm, step.step)
        writer.flush()

    with SummaryWriter(str(folder)) as writer:  # type: ignore[no-untyped-call]
        yield tell


@contextmanager
def _tracker(name: str, config: Config, path: Path) -> Iterator[Tell]:
    """wandb, or what has its ``init``, ``log`` and ``finish``."""
    try:
        module: Any = importlib.import_module(name)
        module.init(project=config.tracker_project, name=path.name, config=config.model_dump(mode="json"))
    except Exception as error:  # of many kinds, none of which they promise
        raise ValueError(
            f"tracker {name!r} does not start: {one_line(error)}; mend it, or leave tracker out"
        ) from error

    def tell(row: Epoch) -> None:
        last = _norms(row.gradients[-1].norms) if row.gradients else {}
        module.log({**numbers_of(row), **last}, step=row.epoch)

    try:
        yield tell
    finally:
        _forgiving(name, lambda _: module.finish())(None)


def _norms(norms: list[float]) -> dict[str, float]:
    width = len(str(len(norms) - 1))
    return {f"gradient_norm/layer_{layer:0{width}}": norm for layer, norm in enumerate(norms)}


def _forgiving(name: str, tell: Callable[[Any], None]) -> Callable[[Any], None]:
    """The same, until it fails: a rank that raises alone would leave the others waiting."""
    silent = False

    def told(row: Any) -> None:
        nonlocal silent
        if silent:
            return
        try:
            tell(row)
        except Exception as error:
            silent = True
            warnings.warn(f"{name} is no longer told of this run: {one_line(error)}", WatcherWarning, stacklevel=2)

    return told
