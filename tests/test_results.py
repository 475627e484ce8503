"""What is taken away from a run: its numbers, its predictions, its network; on any ranks, or one line of why not."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, train
from jobs import mpiexec, run
from safetensors.torch import load_file, safe_open, save_file
from test_careless import held
from test_careless import run as command
from typer.testing import CliRunner

import hdnn_dist
from hdnn_dist.cli import app
from hdnn_dist.data import load as load_data
from hdnn_dist.runs.checkpoint import CHECKPOINTS, save_weights
from hdnn_dist.runs.export import export_run, import_run
from hdnn_dist.runs.opened import read_run
from hdnn_dist.runs.plain import Network

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
SCORES = {
    "loss": ("train", "loss"),
    "train_accuracy": ("train", "accuracy"),
    "test_loss": ("test", "loss"),
    "test_accuracy": ("test", "accuracy"),
}


def said(*arguments: object) -> str:
    """What a command prints that has to succeed."""
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def rows(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV file by name."""
    with path.open(newline="") as file:
        names, *lines = csv.reader(file)
    return dict(zip(names, np.array(lines).T, strict=True))


def points(count: int = 7) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (count, 2))


def write_csv(path: Path, table: np.ndarray, header: str = "") -> Path:
    path.write_text(header + "".join(",".join(map(str, row)) + "\n" for row in table.tolist()))
    return path


def check_scores(found: dict[str, Any], summary: dict[str, Any]) -> None:
    for key, (part, name) in SCORES.items():
        assert found[part][name] == pytest.approx(summary[key], rel=1e-5), key


def test_eval_gives_the_numbers_of_the_summary(trained: Path) -> None:
    check_scores(json.loads(said("eval", trained, "--json")), json.loads((trained / "summary.json").read_text()))


def test_eval_on_other_data(trained: Path) -> None:
    found = json.loads(said("eval", trained, "--json", "--data", "samples=600", "--set", "dtype=float64"))
    assert found["train"]["samples"] + found["test"]["samples"] == 600
    assert re.search(r"test \| +300 \|", said("eval", trained, "--data", "samples=600"))


def test_predictions_of_a_part_of_its_own_data(trained: Path, tmp_path: Path) -> None:
    said("predict", trained, "test", "-o", tmp_path / "out.csv")
    found = rows(tmp_path / "out.csv")
    config = read_run(trained).config
    data = load_data("double_circles", seed=config.seed, index=np.arange(2), samples=config.data.samples)
    right = np.mean(found["class"].astype(int) == data.test.labels)
    assert right == json.loads((trained / "summary.json").read_text())["test_accuracy"]
    assert found["id"].tolist() == [str(number) for number in range(len(data.test))]
    saved = hdnn_dist.load(trained)
    expected = saved.logits(data.test.inputs).softmax(1)
    for number in (0, 1):
        given = torch.tensor(found[f"probability_{number}"].astype(np.float32))
        assert torch.allclose(given, expected[:, number], atol=1e-6)


def test_predictions_for_a_file_of_any_kind(trained: Path, tmp_path: Path) -> None:
    """The same for the same samples; ids are kept where there are any."""
    pytest.importorskip("pyarrow")
    from pyarrow import parquet, table

    named = {"id": np.array([f"s{number}" for number in range(7)]), "a": points()[:, 0], "b": points()[:, 1]}
    files = [write_csv(tmp_path / "plain.csv", points()), write_csv(tmp_path / "headed.csv", points(), "x,y\n")]
    (tmp_path / "named.csv").write_text(
        "\ufeffb_is_last,id,b\n" + "".join(f"{x!r},s{n},{y!r}\n" for n, (x, y) in enumerate(points().tolist()))
    )
    np.savez(tmp_path / "one.npz", points())
    np.savez(tmp_path / "named.npz", **named)
    parquet.write_table(table(named), tmp_path / "named.parquet")
    files += [tmp_path / name for name in ("named.csv", "one.npz", "named.npz", "named.parquet")]
    expected = hdnn_dist.load(trained).predict(points())
    for number, file in enumerate(files):
        output = tmp_path / f"out{number}.csv"
        said("predict", trained, file, "-o", output)
        found = rows(output)
        assert found["class"].astype(int).tolist() == expected.classes.tolist()
        assert np.allclose(found["probability_1"].astype(float), expected.probabilities[:, 1], atol=1e-6)
        assert found["id"][2] == ("s2" if "named" in file.name else "2")


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_predictions_are_written_in_any_kind_of_file(suffix: str, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / f"out{suffix}"
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
    said("predict", trained, write_csv(tmp_path / "in.csv", points()), "-o", output)
    if suffix == ".csv":
        found = rows(output)
    elif suffix == ".npz":
        found = dict(np.load(output, allow_pickle=False))
    else:
        found = {name: column.to_numpy() for name, column in zip(*_columns(parquet.read_table(output)), strict=True)}
    expected = hdnn_dist.load(trained).predict(points())
    assert list(found) == ["id", "class", "probability_0", "probability_1"]
    assert found["class"].astype(int).tolist() == expected.classes.tolist()
    assert np.array_equal(found["probability_0"].astype(np.float32), expected.probabilities[:, 0])


def _columns(table: Any) -> tuple[list[str], list[Any]]:
    return table.column_names, table.columns


def test_one_logit_is_the_probability_of_the_second_class(tmp_path: Path) -> None:
    saved = hdnn_dist.load(train(tmp_path / "run", "readout.loss=binary_cross_entropy"))
    found, logits = saved.predict(points()), saved.logits(points())
    assert np.allclose(found.probabilities[:, 1], logits.sigmoid()[:, 0])
    assert found.classes.tolist() == (logits[:, 0] > 0).long().tolist()


def test_a_network_is_loaded_without_the_data(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was copied to a laptop: its source may not be there, its graph is that of the folder."""
    shutil.copytree(trained, tmp_path / "copy")
    expected = hdnn_dist.load(trained)
    monkeypatch.setattr("hdnn_dist.data.dataset.SOURCES", {})
    saved = hdnn_dist.load(tmp_path / "copy")
    assert torch.equal(saved.logits(points()), expected.logits(points()))
    assert (saved.config, saved.about) == (expected.config, expected.about)
    assert saved.statistics == {}


def test_a_placement_by_hand_is_that_of_the_ranks_of_the_run(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace('placement = "auto"', "placement = [0, 1, 2, 3, 4, 5, 6, 7]"))
    assert torch.equal(hdnn_dist.load(folder).logits(points()), hdnn_dist.load(trained).logits(points()))
    said("eval", folder)


def test_many_samples_are_taken_in_parts(trained: Path) -> None:
    saved, table = hdnn_dist.load(trained), points(1201)
    assert torch.allclose(saved.logits(table)[600:603], saved.logits(table[600:603]), atol=1e-6)


def test_statistics_standardise_what_is_given(trained: Path, tmp_path: Path) -> None:
    """They travel with the weights, through an export too."""
    folder, saved = tmp_path / "run", hdnn_dist.load(trained)
    shutil.copytree(trained, folder)
    entered = {agent: column for agent, (column,) in saved.columns.assignment.items()}
    statistics = {a: {"mean": torch.tensor([0.5 + c]), "std": torch.tensor([2.0 - c])} for a, c in entered.items()}
    save_weights(saved.net, saved.others, folder / CHECKPOINTS, statistics)
    scaled = hdnn_dist.load(folder)
    raw = points() * [2.0, 1.0] + [0.5, 1.5]
    assert torch.allclose(scaled.logits(raw), saved.logits(points()), atol=1e-6)
    export_run(read_run(folder), tmp_path / "model.safetensors")
    import_run(tmp_path / "model.safetensors", tmp_path / "again")
    again = hdnn_dist.load(tmp_path / "again")
    assert torch.equal(again.logits(raw), scaled.logits(raw))


def write_table(folder: Path, **settings: str) -> Path:
    """A run on files of four agents, each with two columns of its own, some in another order of the ids."""
    random = np.random.default_rng(0)
    ids, table = np.arange(100, 160), random.normal(3, 5, (60, 8))
    (folder / "data").mkdir(parents=True)
    for agent in range(4):
        own = [
            f"s{i},{a!r},{b!r}\n" for i, (a, b) in zip(ids, table[:, 2 * agent : 2 * agent + 2].tolist(), strict=True)
        ]
        (folder / "data" / f"{agent}.csv").write_text("id,a,b\n" + "".join(own[:: -1 if agent % 2 else 1]))
    sums = table.sum(1)
    answers = sums if settings.get("data.table.task") == "regression" else np.where(sums > 24, "high", "low")
    lines = [f"s{i},{answer}\n" for i, answer in zip(ids, answers.tolist(), strict=True)]
    (folder / "data" / "labels.csv").write_text("id,label\n" + "".join(lines))
    keys = {
        "graph": "path:4", "data.source": "table", "data.table.files": "{agent}.csv", "data.table.labels": "labels.csv",
        "data.root": str(folder / "data"), "data.table.split": "{validation = 0.2, test = 0.3}", **settings,
    }  # fmt: skip
    given = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    base = [word for key in TINY if "samples" not in key for word in ("--set", key)]
    said("train", *base, *given, "--set", "network.features=4", "--run-dir", folder / "run")
    write_csv(folder / "plain.csv", table)
    return folder / "run"


@pytest.mark.parametrize("numbers", [False, True], ids=["classes", "numbers"])
def test_a_table_of_ones_own(numbers: bool, tmp_path: Path) -> None:
    """Raw samples in a file get what the run says of its own, by id; the units and the names are those of the data."""
    pytest.importorskip("pyarrow")
    settings = {"data.table.task": "regression", "data.table.standardise_targets": "true",
                "readout.loss": "mean_squared_error"} if numbers else {}  # fmt: skip
    folder = write_table(tmp_path, **settings)
    found = json.loads(said("eval", folder, "--json"))
    assert [found[part]["samples"] for part in ("train", "validation", "test")] == [30, 12, 18]
    summary = json.loads((folder / "summary.json").read_text())
    assert found["test"]["loss"] == pytest.approx(summary["test_loss"], rel=1e-5)
    said("predict", folder, "test", "-o", tmp_path / "own.csv")
    said("predict", folder, tmp_path / "plain.csv", "-o", tmp_path / "all-out.csv")
    own, every = rows(tmp_path / "own.csv"), rows(tmp_path / "all-out.csv")
    assert list(own) == (["id", "value_0"] if numbers else ["id", "class", "probability_high", "probability_low"])
    at = [int(name.removeprefix("s")) - 100 for name in own["id"]]
    last = list(own)[-1]
    assert np.allclose(every[last][at].astype(float), own[last].astype(float), atol=1e-4)
    shutil.move(tmp_path / "data", tmp_path / "gone")
    saved = hdnn_dist.load(folder)
    table = np.loadtxt(tmp_path / "plain.csv", delimiter=",")
    predicted = saved.predict(table).columns()[last]
    assert np.allclose(every[last].astype(float), predicted, atol=1e-5)
    said("export", folder, tmp_path / "model.safetensors")
    given = Network(str(tmp_path / "model.safetensors"))(torch.as_tensor(table, dtype=torch.float32))
    expected = saved.values(saved.logits(table))
    assert torch.allclose(given, expected, atol=1e-5 * float(expected.abs().max()))
    said("import", tmp_path / "model.safetensors", "--run-dir", tmp_path / "again")
    assert torch.equal(hdnn_dist.load(tmp_path / "again").logits(table), saved.logits(table))


def test_agents_that_predict_for_themselves(tmp_path: Path) -> None:
    """On any ranks a column for each agent, by its name; the exported matrix is block-diagonal."""
    keys = ("data.name=diffusing_field", "graph=ring:6", "readout.at=each", "readout.loss=mean_squared_error")
    folder = train(tmp_path / "run", *keys)
    summary = json.loads((folder / "summary.json").read_text())
    found = json.loads(said("eval", folder, "--json"))
    assert found["test"]["loss"] == pytest.approx(summary["test_loss"], rel=1e-5)
    table = np.random.default_rng(2).uniform(size=(5, 6))
    write_csv(tmp_path / "in.csv", table)
    expected = hdnn_dist.load(folder).logits(table)
    arguments = ("predict", str(folder), str(tmp_path / "in.csv"), "-o")
    said(*arguments, tmp_path / "one.csv")
    done = run("torchrun", 2, "-m", "hdnn_dist", *arguments, str(tmp_path / "two.csv"))
    assert done.returncode == 0, done.stderr
    for name in ("one.csv", "two.csv"):
        found = rows(tmp_path / name)
        assert list(found) == ["id", *(f"value_{agent}" for agent in range(6))]
        given = np.column_stack([found[f"value_{agent}"].astype(float) for agent in range(6)])
        assert np.allclose(given, expected, atol=1e-6)
    said("export", folder, tmp_path / "model.safetensors")
    network = Network(str(tmp_path / "model.safetensors"))
    assert torch.allclose(network(torch.as_tensor(table, dtype=torch.float32)), expected, atol=1e-6)


def test_a_run_that_was_killed_is_used_from_its_newest_checkpoint(tmp_path: Path) -> None:
    """And a flipped byte in that is found, by the checksum of its index."""
    folder = train(tmp_path / "run", "checkpoint.every_epochs=1")
    for path in [*(folder / "checkpoints").glob("rank-*"), folder / "summary.json"]:
        path.unlink()
    assert json.loads(said("eval", folder, "--json"))["test"]["loss"] > 0
    (shard,) = sorted((folder / "checkpoints").glob("step-*"))[-1].glob("rank-*")
    flip(shard)
    check_refused(["eval", str(folder)], r"rank-0\.safetensors is damaged: its checksum", tmp_path)


@pytest.fixture(scope="module", params=[2, pytest.param(8, marks=pytest.mark.slow)])
def on_ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of several ranks under torchrun."""
    folder = tmp_path_factory.mktemp("ranks") / "run"
    settings = ("epochs=2", "data.samples=200", "network.layers=4", "network.kernel=torch")
    arguments = [word for key in settings for word in ("--set", key)]
    done = run("torchrun", request.param, "-m", "hdnn_dist", "train", *arguments, "--run-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_of_ranks_is_used_on_any_number(on_ranks: Path, tmp_path: Path) -> None:
    """Its numbers and predictions in one process, over MPI and under torchrun; and its export, from one process."""
    mpiexec()
    summary = json.loads((on_ranks / "summary.json").read_text())
    check_scores(json.loads(said("eval", on_ranks, "--json")), summary)
    done = run("mpiexec", 2, "-m", "hdnn_dist", "eval", str(on_ranks), "--json")
    assert done.returncode == 0, done.stderr
    check_scores(json.loads(done.stdout), summary)
    samples = str(write_csv(tmp_path / "in.csv", points()))
    done = run("torchrun", 2, "-m", "hdnn_dist", "predict", str(on_ranks), samples, "-o", str(tmp_path / "two.csv"))
    assert done.returncode == 0, done.stderr
    said("predict", on_ranks, samples, "-o", tmp_path / "one.csv")
    one, two = rows(tmp_path / "one.csv"), rows(tmp_path / "two.csv")
    for name in one:
        assert np.allclose(one[name].astype(float), two[name].astype(float), atol=1e-6)
    said("export", on_ranks, tmp_path / "model.safetensors")
    said("import", tmp_path / "model.safetensors", "--run-dir", tmp_path / "again")
    expected = hdnn_dist.load(on_ranks).logits(points())
    assert torch.equal(hdnn_dist.load(tmp_path / "again").logits(points()), expected)


def test_what_one_rank_cannot_read_all_refuse(on_ranks: Path, tmp_path: Path) -> None:
    """One line of each rank, and no file."""
    broken = write_csv(tmp_path / "in.csv", np.where(points() == points()[2, 0], np.nan, points()))
    done = run("torchrun", 2, "-m", "hdnn_dist", "predict", str(on_ranks), str(broken), "-o", str(tmp_path / "o.csv"))
    assert done.returncode != 0
    assert re.search(r"error: .*in\.csv, sample 2, column 0: nan, expected a finite number", done.stderr)
    assert not (tmp_path / "o.csv").exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)


def forget(path: Path) -> None:
    """Say that another rank has been there."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata={**metadata, "ranks": "2"})


SHARD = "checkpoints/rank-0.safetensors"
DAMAGE = {
    "a folder that is no run": (lambda folder: (folder / "config.toml").unlink(), "is no run folder, it has no config"),
    "a run that was not finished": (lambda folder: (folder / SHARD).unlink(), "holds no weights"),
    "a flipped byte": (lambda folder: flip(folder / SHARD), r"rank-0\.safetensors is damaged: .* its checksum"),
    "a missing shard": (
        lambda folder: forget(folder / SHARD),
        r"holds 1 files, but rank-0\.safetensors was",
    ),
    "half a shard": (
        lambda folder: (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-9]),
        "cannot be read as safetensors",
    ),
    "a description that is none": (lambda folder: (folder / "data.json").write_text("[]"), "does not describe data"),
    "another architecture": ("network.architecture=MS3", "architecture H2, but this network has architecture MS3"),
    "another number of features": ("network.features=4", r"agent\.\d\.\w+ in .* has shape"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_run_that_cannot_be_used_is_one_line(case: str, trained: Path, tmp_path: Path) -> None:
    """Of every command alike, with the file and what is wrong, status 2, and nothing is written."""
    damage, words = DAMAGE[case]
    folder, setting = tmp_path / "run", []
    shutil.copytree(trained, folder)
    if isinstance(damage, str):
        setting = ["--set", damage]
    else:
        damage(folder)
    samples, before = write_csv(tmp_path / "in.csv", points()), held(tmp_path)
    commands = [["predict", str(folder), str(samples), "-o", str(tmp_path / "out.csv"), *setting]]
    if case != "a description that is none":
        commands.append(["eval", str(folder), *setting])
    if not setting:
        commands.append(["export", str(folder), str(tmp_path / "model.safetensors")])
    for arguments in commands:
        status, errors = command(arguments)
        assert status == 2, arguments
        assert errors.count("\n") == 1, errors
        assert re.search(words, errors), errors
    assert held(tmp_path) == before


SAMPLES = {
    "another number of columns": (
        "0.1,0.2,0.3\n",
        r"in\.csv has 3 columns of numbers, .* has 2",
    ),
    "NaN": ("0.1,0.2\n0.3,nan\n", r"in\.csv, sample 1, column 1: nan, expected a finite number"),
    "an empty cell": ("x,y\n0.1,0.2\n0.3,\n", r"in\.csv, row 3, column 'y': nothing, expected a number"),
    "text": ("x,y\n0.1,cold\n", r"in\.csv, row 2, column 'y': 'cold', expected a number"),
    "another delimiter": ("0.1;0.2\n0.3;0.4\n", r"in\.csv, row 2, column '0\.1;0\.2': '0\.3;0\.4', .*commas separate"),
    "rows of different lengths": ("0.1,0.2\n0.3\n", r"in\.csv, row 2: 1 columns, but the first row has 2"),
    "no samples": ("x,y\n", r"in\.csv has no samples"),
    "nothing": ("", r"in\.csv is empty"),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_samples_that_cannot_be_used_are_one_line(case: str, trained: Path, tmp_path: Path) -> None:
    text, words = SAMPLES[case]
    (tmp_path / "in.csv").write_text(text)
    check_refused(["predict", str(trained), str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv")], words, tmp_path)


def check_refused(arguments: list[str], words: str, folder: Path) -> None:
    before = held(folder)
    status, errors = command(arguments)
    assert (status, errors.count("\n")) == (2, 1), errors
    assert re.search(words, errors), errors
    assert held(folder) == before


ARRAYS = {
    "text": ({"a": np.array(["x", "y"])}, r"in\.npz: 'a' holds <U1, expected numbers"),
    "two tables": ({"a": np.zeros((2, 2)), "b": np.zeros((2, 2))}, r"in\.npz holds a \(2, 2\), b \(2, 2\): expected"),
    "columns of different lengths": ({"a": np.zeros(2), "b": np.zeros(3)}, r"in\.npz holds a \(2,\), b \(3,\)"),
    "objects": ({"a": np.array([{}], dtype=object)}, r"in\.npz cannot be read as npz"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_no_samples_are_one_line(case: str, trained: Path, tmp_path: Path) -> None:
    arrays, words = ARRAYS[case]
    np.savez(tmp_path / "in.npz", **arrays)
    check_refused(["predict", str(trained), str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.csv")], words, tmp_path)


PLACES = {
    "an output that exists": ("test", "in.csv", r"in\.csv exists: choose another file, or pass --overwrite"),
    "an output of another kind": ("test", "out.xlsx", r"out\.xlsx has suffix '\.xlsx': predictions are written as"),
    "an output in no folder": (
        "test",
        "no/out.csv",
        r"out\.csv cannot be written: name a file in a folder",
    ),
    "samples that are not there": ("no.csv", "out.csv", r"no\.csv does not exist: give 'test', 'train', or a file"),
    "samples of another kind": ("in.txt", "out.csv", r"in\.txt has suffix '\.txt': samples are read from"),
}


@pytest.mark.parametrize("case", PLACES)
def test_places_that_cannot_be_used_are_one_line(case: str, trained: Path, tmp_path: Path) -> None:
    data, output, words = PLACES[case]
    write_csv(tmp_path / "in.csv", points())
    given = data if data == "test" else str(tmp_path / data)
    check_refused(["predict", str(trained), given, "-o", str(tmp_path / output)], words, tmp_path)


@pytest.mark.parametrize("form", ["safetensors", "torch", "onnx"])
def test_an_export_keeps_what_is_there(form: str, trained: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "mine.pt2", points())
    words = "unknown format 'onnx'" if form == "onnx" else r"mine\.pt2 exists: choose another file, or pass --overwrite"
    check_refused(["export", str(trained), str(tmp_path / "mine.pt2"), "--format", form], words, tmp_path)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (np.zeros((3, 5)), r"samples have shape \(3, 5\): expected \(samples, 2\)"),
        (np.zeros(2), r"samples have shape \(2,\)"),
        ([["a", "b"]], "samples are <U1: expected numbers"),
        ([[0.0, 1.0], [np.inf, 0.0]], "samples have inf in row 1, column 0"),
        (np.zeros((0, 2)), "there are no samples"),
    ],
    ids=["columns", "a row", "text", "infinity", "none"],
)
def test_samples_in_python_are_checked(table: Any, words: str, trained: Path) -> None:
    with pytest.raises(ValueError, match=words):
        hdnn_dist.load(trained).logits(table)
