"""Training on tables: the same on any number of ranks, in memory or from the disk, and in little memory."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import run

from hdnn_dist import CommunicationGraph, connect
from hdnn_dist.analysis.check import check_config
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import dump_config, load_config
from hdnn_dist.training.job import Job

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'hdnn-dist[tables]'")

ROOT = Path(__file__).parents[1]
AGENTS, SAMPLES = 4, 200
CONFIG = """
graph = "ring:4"
epochs = 2
batch_size = 32

[network]
layers = 3
kernel = "torch"

[readout]
root = 2

[data]
source = "table"
root = "{folder}"
cache = "{folder}/cache"

[data.table]
files = "{{agent}}.csv"
labels = "labels.csv"
split = {{ validation = 0.1, test = 0.2 }}
"""


MEMORIES = {1: 256.0, 2: 0.0, 4: 256.0}


def job_of(folder: Path, *settings: str) -> Job:
    config = load_config(folder / "mine.toml", settings)
    return build(config, CommunicationGraph.parse(config.graph), connect("local"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four agents with two columns each, every file in an order of its own, and a config that trains on them."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(SAMPLES, AGENTS, 2))
    for agent in range(AGENTS):
        rows = [f"s{i},{values[i, agent, 0]},{values[i, agent, 1]}" for i in rng.permutation(SAMPLES)]
        (tmp_path / f"{agent}.csv").write_text("\n".join(["id,u,v", *rows]))
    labels = [f"s{i},{'yes' if values[i, 0, 0] + values[i, 2, 1] > 0 else 'no'}" for i in range(SAMPLES)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *labels]))
    (tmp_path / "mine.toml").write_text(CONFIG.format(folder=tmp_path))
    return tmp_path


def train(folder: Path, ranks: int, *settings: str) -> dict:
    """summary.json of a run."""
    words = [str(folder / "mine.toml"), *(word for key in settings for word in ("--set", key))]
    words += ["--run-dir", str(folder / "run"), "--overwrite"]
    if ranks == 1:
        subprocess.run([sys.executable, "-m", "hdnn_dist", "train", *words], check=True, capture_output=True)
    else:
        process = run("torchrun", ranks, "-m", "hdnn_dist", "train", *words)
        assert process.returncode == 0, process.stderr
    return json.loads((folder / "run" / "summary.json").read_text())


def test_any_number_of_ranks_learns_the_same(folder: Path) -> None:
    """Labels are at agent 2, which is not on rank 0 of four; samples are in memory, or on the disk."""
    one, *others = (
        train(folder, ranks, "dtype=float64", f"data.table.memory={memory}") for ranks, memory in MEMORIES.items()
    )
    for other in others:
        assert other["test_accuracy"] == one["test_accuracy"]
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-9)
        assert other["test_loss"] == pytest.approx(one["test_loss"], rel=1e-9)
        assert other["off_graph_messages"] == 0


def test_ranks_refuse_together_what_one_of_them_finds(folder: Path) -> None:
    """A cell of agent 3, which one rank reads; no run folder is left."""
    text = (folder / "3.csv").read_text().replace("\ns7,", "\ns7,high", 1)
    (folder / "3.csv").write_text(text)
    process = run("torchrun", 2, "-m", "hdnn_dist", "train", str(folder / "mine.toml"), "--run-dir", str(folder / "no"))
    assert process.returncode != 0
    lines = [line for line in process.stderr.splitlines() if line.startswith("hdnn-dist: error")]
    assert len({re.sub(r"rank \d: ", "", line) for line in lines}) == 1
    assert "3.csv of agent 3 has 'high" in lines[0]
    assert not (folder / "no").exists()


def test_a_job_has_its_parts_and_statistics(folder: Path) -> None:
    job = job_of(folder)
    assert [len(part) for part in (job.train, job.validation, job.test) if part is not None] == [140, 20, 40]
    assert job.about.class_names == ("no", "yes")
    assert job.entered == [0, 1, 2, 3]
    assert {agent: own["mean"].shape for agent, own in job.statistics.items()} == dict.fromkeys(range(4), (2,))
    stored = job_of(folder, "data.table.memory=0.0", "network.features=4")
    index = torch.tensor([5, 0, 77])
    inputs, labels = stored.train.batch(index)
    expected, known = job.train.batch(index)
    assert torch.equal(inputs.reshape(3, 4, 4)[:, :, :2], expected.reshape(3, 4, 2))
    assert not inputs.reshape(3, 4, 4)[:, :, 2:].any()
    assert torch.equal(labels, known)
    assert torch.equal(stored.test.inputs[:1], stored.test.batch(torch.tensor([0]))[0])


def test_a_config_of_a_table_survives_its_file(folder: Path) -> None:
    settings = ["data.table.columns={0 = ['u']}", "data.table.split={test_ids = [1, 'a']}", "data.table.files={3='x'}"]
    config = load_config(folder / "mine.toml", settings)
    assert config.data.table.columns == {0: ["u"]}
    (folder / "again.toml").write_text(dump_config(config))
    assert load_config(folder / "again.toml") == config


def test_check_looks_at_the_files(folder: Path) -> None:
    config = load_config(folder / "mine.toml")
    checked = check_config(config, CommunicationGraph.parse(config.graph))
    assert checked.inputs.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["data.columns={0 = [0]}"],
            'data.columns is given, but data.source is "table": say data.table.columns instead',
        ),
        (["data.samples=100"], 'data.samples is given, but data.source is "table": leave it out'),
        (["data.source=named"], 'data.table is given, but data.source is "named": set data.source = "table"'),
        (["network.lift=convolution"], "network.lift 'convolution' needs images, but a table has none"),
        (["data.table.columns={0 = ['w']}"], "data.table: .*0.csv of agent 0 has no column 'w'"),
        (["data.table.targets=['u']"], "data.table: both of labels and targets is given"),
        (["data.table.split.test=1.0"], "data.table.split.test is 1.0: it should be less than 1"),
        (
            ["data.table.files=3"],
            "data.table.files is 3: it should be a pattern, such as 'sensors/{agent}.csv', or a t",
        ),
        (
            ["network.features=1", "network.architecture=MS2"],
            "agent 0 has 1 features but a list of columns of length 2",
        ),
    ],
)
def test_keys_that_do_not_fit(folder: Path, settings: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        job_of(folder, *settings)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_table_that_is_larger_than_its_memory(tmp_path: Path) -> None:
    """2 million samples x 64 columns, 512 MB of rows: the peak stays below what these alone would take on top of the
    program itself.
    """
    samples = 2_000_000
    maker = [sys.executable, str(ROOT / "launch" / "make_table.py"), str(tmp_path), str(samples), "64", "16"]
    subprocess.run(maker, check=True, capture_output=True)
    small = [*maker[:3], str(samples // 100), "64", "16"]
    subprocess.run([*small[:2], str(tmp_path / "small"), *small[3:]], check=True, capture_output=True)
    settings = ("network.kernel=torch", "network.layers=1", "batch_size=50000")
    program, large = (peak(folder, *settings) for folder in (tmp_path / "small", tmp_path))
    assert large - program < 400 * 2**20


def peak(folder: Path, *settings: str) -> int:
    """Bytes, of a whole command."""
    words = [str(folder / "table.toml"), *(word for key in settings for word in ("--set", key))]
    line = [sys.executable, "-m", "hdnn_dist", "train", *words, "--run-dir", str(folder / "run")]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    assert isinstance(usage, resource.struct_rusage)
    return usage.ru_maxrss * 1024
