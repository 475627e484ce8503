"""Runs that go on: from any step, bit for bit; what is damaged or of another run is refused, and left as it is."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from battery import ALONE

from hdnn_dist import CommunicationGraph
from hdnn_dist.runs.checkpointing import Checkpointer, CheckpointWarning, Left
from hdnn_dist.runs.findings import find as find_what_is_left
from hdnn_dist.runs.folder import EDGES
from hdnn_dist.runs.index import complete, read_index
from hdnn_dist.runs.resume import about, find, put_back
from hdnn_dist.support.asked import Asked
from hdnn_dist.training.build import build
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.loop import Epoch, Trainer

TINY = (
    "data.samples=120", "batch_size=10", "epochs=3", "network.layers=2", "network.kernel=torch", "graph=ring:4",
    "checkpoint.keep=100", "record_gradients=true",
)  # fmt: skip
STEPS = 6  # an epoch: 60 samples of training


class Stopped(Exception):
    """As kill -9 would end it."""


def trainer(*settings: str, graph: CommunicationGraph | None = None) -> Trainer:
    config = load_config(None, [*TINY, *settings])
    return Trainer(build(config, graph or CommunicationGraph.parse(config.graph), ALONE))


def train(new: Trainer, folder: Path, until: int = 10**9, at: tuple[int, ...] = ()) -> list[Epoch]:
    """Train with checkpoints after the steps ``at`` at least, and be stopped after the step ``until``."""
    checkpoints = Checkpointer(new, folder, about(new.job), {}, Asked())

    def on_step(epoch: int, step: int) -> None:
        if new.steps in at and step + 1 < STEPS:
            checkpoints.make()
            checkpoints.finish_writing()
        checkpoints.on_step(epoch, step)
        if new.steps >= until:
            raise Stopped

    def on_epoch(row: Epoch) -> None:
        if new.steps in at:
            checkpoints.make()
            checkpoints.finish_writing()
        checkpoints.on_epoch(row)

    rows = new.run(on_step, on_epoch).epochs
    checkpoints.finish()
    return rows


def resumed(folder: Path, *settings: str, remap: bool = False, **options: Any) -> Trainer:
    new = trainer(*settings, **options)
    found = find(new.job, complete(folder), fall_back=True, remap=remap)
    assert found is not None
    put_back(new, found)
    return new


TIMES = ("seconds", "samples_per_second", "bytes_per_second", "waiting")


def comparable(rows: list[Epoch]) -> list[Epoch]:
    """Without what the clock says."""
    return [replace(row, **dict.fromkeys(TIMES, 0.0)) for row in rows]


OPTIMISERS = [
    ("optimizer.name=adam",),
    ("optimizer.name=sgd", "optimizer.schedule=cosine"),
    ("optimizer.name=sgd", "optimizer.momentum=0.0", "optimizer.schedule=constant"),
    ("optimizer.name=adamw", "optimizer.weight_decay=0.1", "optimizer.schedule=exponential", "optimizer.clip=0.1"),
]


@pytest.mark.parametrize("settings", OPTIMISERS, ids=str)
@pytest.mark.parametrize("step", [1, 5, 6, 7, 17])
def test_bit_for_bit_from_any_step(tmp_path: Path, step: int, settings: tuple[str, ...]) -> None:
    """Every weight and every line, the gradients of each step among them."""
    undisturbed = trainer(*settings)
    rows = undisturbed.run(lambda *_: None, lambda _: None).epochs
    with pytest.raises(Stopped):
        train(trainer(*settings), tmp_path, until=step + 1, at=(step,))
    again = resumed(tmp_path, *settings)
    assert again.steps == step
    assert comparable(train(again, tmp_path)) == comparable(rows)
    for own, expected in zip(again.parameters, undisturbed.parameters, strict=True):
        assert torch.equal(own, expected)


@pytest.mark.parametrize(
    "settings",
    [
        ("network.architecture=H1", "network.coupling=trained"),
        ("network.architecture=MS2", "dtype=float64"),
        ("penalties.bound=5.0",),
        ("readout.at=[1, 2]", "readout.root=1"),
    ],
    ids=str,
)
def test_whatever_is_trained(tmp_path: Path, settings: tuple[str, ...]) -> None:
    undisturbed = trainer(*settings)
    undisturbed.run(lambda *_: None, lambda _: None)
    with pytest.raises(Stopped):
        train(trainer(*settings), tmp_path, until=9, at=(8,))
    again = resumed(tmp_path, *settings)
    train(again, tmp_path)
    for own, expected in zip(again.parameters, undisturbed.parameters, strict=True):
        assert torch.equal(own, expected)


def test_bytes_of_a_step_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    """Steps of before count neither for the bytes nor for their number."""
    undisturbed = trainer()
    expected = find_what_is_left(undisturbed.job, undisturbed.run(lambda *_: None, lambda _: None))
    with pytest.raises(Stopped):
        train(trainer(), tmp_path, until=9, at=(8,))
    again = resumed(tmp_path)
    found = find_what_is_left(again.job, again.run(lambda *_: None, lambda _: None))
    assert found[EDGES]["edges"] == expected[EDGES]["edges"]


def test_when_they_are_made(tmp_path: Path) -> None:
    """Every so many steps, or as soon as the one before is on the disk; the last k and the best stay."""
    train(trainer("checkpoint.every_steps=1", "checkpoint.keep=2"), tmp_path)
    steps = [read_index(path).step for path in complete(tmp_path)]
    assert len(steps) == 2
    assert steps[0] == 3 * STEPS


def test_none_on_a_short_run(tmp_path: Path) -> None:
    train(trainer(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_best_stays(tmp_path: Path) -> None:
    rows = train(trainer("checkpoint.best=loss", "checkpoint.keep=1", "epochs=4"), tmp_path)
    best = min(rows, key=lambda row: row.test_loss)
    indices = {index.step: index for index in map(read_index, complete(tmp_path))}
    assert set(indices) == {best.epoch * STEPS, 4 * STEPS}
    assert indices[best.epoch * STEPS].rows[-1]["test_loss"] == best.test_loss


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_asked_to_leave(tmp_path: Path, number: signal.Signals) -> None:
    """At the next step boundary, with a checkpoint of it."""
    new = trainer()
    with Asked() as asked:
        checkpoints = Checkpointer(new, tmp_path, about(new.job), {}, asked)

        def on_step(epoch: int, step: int) -> None:
            if new.steps == 8:
                signal.raise_signal(number)
            checkpoints._left = 1
            checkpoints.on_step(epoch, step)

        with pytest.raises(Left) as left:
            new.run(on_step, checkpoints.on_epoch)
    assert left.value.name == number.name
    assert read_index(complete(tmp_path)[0]).step == 8


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning; training goes on, the older checkpoint stays, and of the new one nothing is left."""
    resource = pytest.importorskip("resource")
    new, before = trainer("record_gradients=false"), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpointer(new, tmp_path, about(new.job), {}, Asked())

    def on_step(epoch: int, step: int) -> None:
        if new.steps in (3, 9):
            if new.steps == 9:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
            checkpoints.make()
            checkpoints.finish_writing()
        checkpoints.on_step(epoch, step)

    try:
        with pytest.warns(
            CheckpointWarning, match="no checkpoint after step 9: .*; the newest is that of step 3"
        ) as said:
            outcome = new.run(on_step, checkpoints.on_epoch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert len(said) == 1
    assert len(outcome.epochs) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    assert resumed(tmp_path, "record_gradients=false").steps == 3


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped byte": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "a missing shard": lambda path: path.unlink(),
    "half a file": lambda path: path.write_bytes(path.read_bytes()[:100]),
}


class TestDamage:
    """One line that names the file; with the run folder or ``auto`` the checkpoint before it serves."""

    @pytest.fixture(scope="class")
    @staticmethod
    def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
        folder = tmp_path_factory.mktemp("saved")
        train(trainer(), folder, at=(4, 9))
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    @pytest.fixture
    def folder(self, saved: dict[str, bytes], tmp_path: Path) -> Path:
        for name, content in saved.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path

    @pytest.mark.parametrize("damage", DAMAGES)
    @pytest.mark.parametrize("name", ["rank-0.safetensors", "state-0.safetensors", "index.json"])
    def test_it_is_named(self, folder: Path, damage: str, name: str) -> None:
        newest = complete(folder)[0]
        DAMAGES[damage](newest / name)
        before = held(folder)
        with pytest.raises(ValueError, match=rf"{newest.name}/{name} (is|cannot)") as refused:
            find(trainer().job, [newest], fall_back=False)
        assert "\n" not in str(refused.value)
        assert held(folder) == before

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_the_one_before_it_serves(self, folder: Path, damage: str) -> None:
        newest, older = complete(folder)[:2]
        DAMAGES[damage](newest / "rank-0.safetensors")
        new = trainer()
        with pytest.warns(UserWarning, match="trying the checkpoint before it"):
            found = find(new.job, complete(folder), fall_back=True)
        assert found is not None
        assert found.folder == older

    @pytest.mark.parametrize(
        ("setting", "words"),
        [
            ("network.architecture=MS2", "network.architecture is 'MS2', but the run to resume has 'H2'"),
            ("network.features=4", "network.features is 4, but the run to resume has 2"),
            ("network.layers=3", "network.layers is 3, but"),
            ("seed=1", "seed is 1, but"),
            ("data.samples=100", "data.samples is 100, but"),
            ("batch_size=5", "batch_size is 5, but"),
            ("dtype=float64", "dtype is 'float64', but"),
            ("optimizer.name=sgd", "optimizer.name is 'sgd', but"),
            ("epochs=9", "epochs is 9, but .* follows optimizer.schedule 'one_cycle'"),
            ("graph=path:4", "is of graph ring:4 .* pass --remap"),
        ],
    )
    def test_another_run(self, folder: Path, setting: str, words: str) -> None:
        before = held(folder)
        with pytest.raises(ValueError, match=words) as refused:
            find(trainer(setting).job, complete(folder), fall_back=True)
        assert "\n" not in str(refused.value)
        assert held(folder) == before

    @pytest.mark.parametrize("setting", ["threads=1", "check_finite=true", "placement=contiguous", "timeout=20.0"])
    def test_what_may_differ(self, folder: Path, setting: str) -> None:
        assert find(trainer(setting).job, complete(folder), fall_back=False) is not None


def flipped(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def held(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_more_epochs_where_the_schedule_permits(tmp_path: Path) -> None:
    constant = "optimizer.schedule=constant"
    undisturbed = trainer(constant, "epochs=5")
    undisturbed.run(lambda *_: None, lambda _: None)
    train(trainer(constant), tmp_path, at=(4,))
    again = resumed(tmp_path, constant, "epochs=5")
    assert again.steps == 3 * STEPS
    train(again, tmp_path)
    for own, expected in zip(again.parameters, undisturbed.parameters, strict=True):
        assert torch.equal(own, expected)


class TestAnotherGraph:
    """Agents are known by what the file calls them, whatever their number."""

    OLD = CommunicationGraph(4, [(0, 1), (1, 2), (2, 3)], labels=["a", "b", "c", "d"])
    NEW = CommunicationGraph(5, [(0, 1), (1, 2), (2, 3), (3, 4), (1, 4)], labels=["e", "d", "c", "b", "a"])

    @pytest.fixture
    def both(self, tmp_path: Path) -> tuple[Trainer, Trainer]:
        old = trainer("record_gradients=false", graph=self.OLD)
        train(old, tmp_path, at=(8,))
        return old, resumed(tmp_path, "record_gradients=false", graph=self.NEW, remap=True)

    def blocks(self, trained: Trainer, operator: torch.Tensor) -> dict[tuple[str, str], torch.Tensor]:
        """(reader, read) -> (layers, operators, rows, columns)."""
        graph, found = trained.job.agents.graph, {}
        for part in trained.job.net.trained():
            if not part.name.endswith(".K"):
                continue
            view, at = part.view(operator), 0
            for read in trained.job.net.stack.layout(0).pattern.reads(part.agent).tolist():
                width = int(trained.job.net.stack.layout(0).halo.sizes[read])
                found[graph.labels[part.agent], graph.labels[read]] = view[..., at : at + width]
                at += width
        return found

    @pytest.mark.parametrize("kind", ["", "exp_avg", "exp_avg_sq"])
    def test_blocks_stay_and_new_ones_are_zero(self, both: tuple[Trainer, Trainer], kind: str) -> None:
        there, here = (
            self.blocks(one, one.job.net.weights if not kind else one.optimizer.state[one.job.net.weights][kind])
            for one in both
        )
        for pair, block in here.items():
            if pair in there:
                assert torch.equal(block, there[pair]), pair
            elif pair != ("e", "e"):
                assert not block.any(), pair
        assert ("a", "d") in here.keys() - there.keys()
        assert kind or here["e", "e"].any()

    def test_it_trains_on(self, both: tuple[Trainer, Trainer], tmp_path: Path) -> None:
        assert both[1].steps == 3 * STEPS
        assert math.isfinite(both[1].evaluate(both[1].job.test).loss)

    def test_the_readout_stays_with_its_agents(self, both: tuple[Trainer, Trainer]) -> None:
        old, new = (
            {(part.name[:7] == "readout" or one.job.agents.graph.labels[part.agent]): part.view(part.parameter)
             for part in one.job.head.trained()}
            for one in both
        )  # fmt: skip
        assert old.keys() == {"a", "b", "c", "d", True}
        for name, value in old.items():
            assert torch.equal(new[name], value)

    def test_a_graph_with_none_of_them(self, both: tuple[Trainer, Trainer], tmp_path: Path) -> None:
        other = CommunicationGraph(4, [(0, 1), (1, 2), (2, 3)], labels=["p", "q", "r", "s"])
        with pytest.raises(ValueError, match="has none of the agents of"):
            resumed(tmp_path, "record_gradients=false", graph=other, remap=True)


def test_an_index_is_json(tmp_path: Path) -> None:
    """People can read it."""
    train(trainer(), tmp_path, at=(4,))
    about_it = json.loads((complete(tmp_path)[0] / "index.json").read_text())["checkpoint"]
    assert about_it["step"] == 3 * STEPS
    assert about_it["config"]["graph"] == "ring:4"
