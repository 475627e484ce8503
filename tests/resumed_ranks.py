"""A quarter of a training on some ranks, from where others have left it: started by test_survival.py.

usage: resumed_ranks.py FOLDER QUARTER. Writes the weights as they were found, FOLDER/before-QUARTER, and as they are
once they were put back, FOLDER/after-QUARTER, and in the end FOLDER/accuracy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from hdnn_dist import CommunicationGraph, connect
from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.runs.checkpoint import save_weights
from hdnn_dist.runs.checkpointing import Checkpointer
from hdnn_dist.runs.index import complete
from hdnn_dist.runs.resume import about, find, put_back
from hdnn_dist.support.asked import Asked
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.loop import Trainer

SETTINGS = (
    "data.samples=2000", "batch_size=50", "network.layers=8", "network.kernel=torch", "optimizer.schedule=constant",
    "optimizer.learning_rate=0.03", "checkpoint.every_epochs=4", "checkpoint.keep=100",
)  # fmt: skip
EPOCHS = 6


def main(folder: Path, quarter: int) -> None:
    torch.set_num_threads(1)
    config = load_config(None, [*SETTINGS, f"epochs={EPOCHS * (quarter + 1)}"])
    with connect("auto") as world:
        trainer = Trainer(build(config, CommunicationGraph.parse(config.graph), world))
        job, tree = trainer.job, trainer.job.head.everyone
        found = find(job, complete(folder / "checkpoints"), fall_back=False)
        if found is not None:
            put_back(trainer, found)
            save_weights(job.net, job.others, folder / f"after-{quarter}")
            if job.is_root:
                (folder / f"before-{quarter}").symlink_to(found.folder)
        done = {} if found is None else {found.index.step: None}
        checkpoints = Checkpointer(trainer, folder / "checkpoints", about(job), done, Asked())
        rows = trainer.run(checkpoints.on_step, checkpoints.on_epoch).epochs
        checkpoints.finish()
        with agreed(tree):
            if job.is_root:
                (folder / "accuracy").write_text(str(rows[-1].test_accuracy))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
