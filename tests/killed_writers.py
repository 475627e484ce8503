"""Processes that do nothing but train and write checkpoints, each killed while it does: started by test_survival.py.

usage: killed_writers.py FOLDER MOMENTS. They are forked, as starting Python and torch anew takes seconds. Prints, for
each moment, how many checkpoints are complete, and whether one was being written.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from test_resume import trainer

from hdnn_dist.runs.checkpointing import Checkpointer
from hdnn_dist.runs.index import INDEX, STEP, check_file, complete, read_index
from hdnn_dist.runs.resume import about
from hdnn_dist.support.asked import Asked

FOR_EVER = ("epochs=1000000", "optimizer.schedule=constant", "record_gradients=false", "checkpoint.every_steps=1")


def write(folder: Path) -> None:
    new = trainer(*FOR_EVER, "checkpoint.keep=2")
    checkpoints = Checkpointer(new, folder, about(new.job), {}, Asked())
    new.run(checkpoints.on_step, checkpoints.on_epoch)


def killed(folder: Path, seconds: float, writing: float) -> None:
    """Fork, wait for a checkpoint and then so long, until one more is being written, and ``writing``; then kill -9."""
    child = os.fork()
    if child == 0:
        write(folder)
    while not complete(folder):
        time.sleep(0.002)
    time.sleep(seconds)
    while not half_written(folder):
        pass
    time.sleep(writing)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def half_written(folder: Path) -> bool:
    """Whether there is a checkpoint without its index."""
    return any(not (path / INDEX).exists() for path in folder.glob(STEP))


def main(folder: Path, moments: int) -> None:
    torch.set_num_threads(1)
    draw = random.Random(3)
    for moment in range(moments):
        own = folder / str(moment)
        killed(own, draw.random() / 5, draw.random() / 500)
        newest = complete(own)[0]
        index = read_index(newest)
        for name in index.files:
            check_file(newest, name, index.files)
        print(len(complete(own)), int(half_written(own)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
