"""Breast cancer over ten agents, beside a logistic regression that sees all measurements at one place.

usage: python launch/examples/breast_cancer.py FOLDER [SPLITS]

Writes the measurements that scikit-learn ships into FOLDER, a CSV file for each agent and one with the diagnoses; then
trains the config beside this script on some splits (5), and fits the baseline to the same training samples.
"""

from __future__ import annotations

import csv
import statistics
import sys
from pathlib import Path

import numpy as np

from hdnn_dist.data import TableData, open_table
from hdnn_dist.exchange.connect import connect
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.training.build import build
from hdnn_dist.training.config import Config
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.loop import Trainer
from hdnn_dist.training.tables import table_of

CONFIG = Path(__file__).with_suffix(".toml")
AGENTS = 10


def write_files(folder: Path) -> None:
    """Measurements 3 i to 3 i + 2 go to agent i; every file has its own order of patients."""
    from sklearn.datasets import load_breast_cancer

    known = load_breast_cancer()
    folder.mkdir(parents=True, exist_ok=True)
    for agent, columns in enumerate(np.split(np.arange(known.data.shape[1]), AGENTS)):
        order = np.random.default_rng(agent).permutation(len(known.data))
        header = ["id", *(known.feature_names[column].replace(" ", "_") for column in columns)]
        write(folder / f"agent{agent}.csv", header, [[f"P{row:03}", *known.data[row, columns]] for row in order])
    diagnoses = [[f"P{row:03}", known.target_names[label]] for row, label in enumerate(known.target)]
    write(folder / "labels.csv", ["id", "diagnosis"], diagnoses)


def write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    """One file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def trained(config: Config, graph: CommunicationGraph) -> float:
    """Test accuracy of the network."""
    trainer = Trainer(build(config, graph, connect("local")))
    trainer.run(lambda epoch, step: None, lambda row: None)
    return float(trainer.evaluate(trainer.job.test).accuracy)


def baseline(data: TableData) -> float:
    """Test accuracy of logistic regression on the same samples."""
    from sklearn.linear_model import LogisticRegression

    train, test = (part.inputs.read(np.arange(len(part))) for part in (data.train, data.test))
    return float(LogisticRegression(max_iter=1000).fit(train, data.train.labels).score(test, data.test.labels))


def main(folder: Path, splits: int) -> None:
    """Print the accuracies of every split, and their means."""
    write_files(folder)
    rows = []
    for seed in range(splits):
        config = load_config(CONFIG, [f"data.root={folder}", f"seed={seed}"])
        graph = CommunicationGraph.parse(config.graph)
        table = open_table(table_of(config), graph, range(graph.agents))
        rows.append((trained(config, graph), baseline(table.read(seed))))
        print(f"split {seed}: ten agents {rows[-1][0]:.4f}, logistic regression {rows[-1][1]:.4f}", flush=True)
    network, central = (statistics.mean(column) for column in zip(*rows, strict=True))
    print(f"mean of {splits}: ten agents {network:.4f}, logistic regression {central:.4f}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 5)
