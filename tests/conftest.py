"""What holds for every test: one thread, since the matrices are small and other processes share the machine, and an
interrupt that is heard, since whoever runs the tests in the background may have it ignored by all that they start. Runs
that several tests need.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hdnn_dist.cli import app

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
TINY = ("epochs=2", "data.samples=80", "network.layers=2", "network.kernel=torch", "batch_size=20")


def train(folder: Path, *settings: str) -> Path:
    """A run of a moment, in this process."""
    arguments = [word for key in (*TINY, *settings) for word in ("--set", key)]
    done = CliRunner().invoke(app, ["train", *arguments, "--run-dir", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, which tests leave as it is."""
    return train(tmp_path_factory.mktemp("runs") / "circles")


@pytest.fixture(scope="session")
def trained_on_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on a graph whose file is gone."""
    folder = tmp_path_factory.mktemp("runs")
    file = folder / "winds.csv"
    file.write_text("north,east\neast,south\nsouth,west\n")
    train(folder / "winds", f"graph={file}")
    file.unlink()
    return folder / "winds"
