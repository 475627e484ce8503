"""The command line, given anything: one line and status 2 for what is wrong, and no file left behind."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hdnn_dist.cli.commands import main
from hdnn_dist.training.config import MOST, known_keys

TINY = ("epochs=1", "batch_size=20", "data.samples=40", "network.layers=2", "network.kernel=torch")
KEYS = sorted(known_keys())
VALUES = st.one_of(
    st.sampled_from(["0", "1", "-1", "2.5", "true", "nan", "inf", "-inf", "''", "[]", "{}", "[0]", "[[0, 0]]", "none"]),
    st.sampled_from(["1e10", "1e308", "1e-300", "2147483647", "2147483648", "4294967297", "9223372036854775808"]),
    st.sampled_from(["H2", "MLP", "auto", "all", "metis", "ring:3", "{0 = [0], 1 = [1]}", "[1, 1]", "cross_entropy"]),
    st.sampled_from(
        ["ring:1e9", "hypercube:80", "grid:0x0", "ring:-3", "complete:999999", "x.edges", "/", "tree:9x99"]
    ),
    st.integers(10**9, 10**40).map(str),
    st.floats().map(str),
    st.text(max_size=12).filter(lambda text: "\0" not in text),
)
WORDS = st.one_of(
    VALUES,
    st.sampled_from(["mine.edges", "mine.toml", "folder", "no.toml", ".", "..", "-", "--", "--help", "-h", "--set"]),
    st.sampled_from(["--run-dir", "--overwrite", "--transport", "--save", "--merge", "--json", "--case", "--quick"]),
    st.sampled_from(
        [
            "--seeds",
            "--jobs",
            "-o",
            "--data",
            "--format",
            "--out",
            "--data-root",
            "--threads",
            "local",
            "c10d",
            "mpi",
            "counterexample",
        ]
    ),
)
HEAVY = {"step", "loop", "memory", "agents", "depth", "threads", "ranks", "exchange", "controls"}  # minutes


def run(arguments: list[str]) -> tuple[int, str]:
    """The command in this process: its status, and what it says of errors. What it does not catch is raised."""
    output, errors = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["hdnn-dist", *arguments]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = argv
    return int(ended.value.code or 0), errors.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, with a few files of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.edges").write_text("0 1\n1 2\n")
    (tmp_path / "mine.toml").write_text("epochs = 0\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    return tmp_path


def held(folder: Path) -> dict[str, bytes]:
    """All files below a folder, with what they hold."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} | {
        f"{path.relative_to(folder)}/": b"" for path in folder.rglob("*") if path.is_dir()
    }


def check_end(folder: Path, before: dict[str, bytes], status: int, errors: str) -> None:
    """What was the user's is as it was; a refusal is one line, and leaves nothing else. A training may diverge."""
    after = held(folder)
    assert {name: after.get(name) for name in before} == before
    lines = [line for line in errors.splitlines() if not line.startswith("hdnn-dist: warning: ")]
    if status == 0:
        assert not [line for line in lines if "error" in line], errors
    elif status == 1:
        assert len(lines) == 1, errors
        assert re.match("hdnn-dist: failed: the (weights|state|gradient|loss) (are|is) ", lines[0]), errors
    else:
        assert status == 2, errors
        assert len(lines) == 1, errors
        assert lines[0].startswith("hdnn-dist: error: "), errors
        assert after == before


def remove_new(folder: Path, before: dict[str, bytes]) -> None:
    """What a command that was right has written."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if str(path.relative_to(folder)) + "/" * path.is_dir() not in before:
            path.rmdir() if path.is_dir() else path.unlink()


def lasts_for_ever(command: str, key: str, value: str) -> bool:
    """What is right, but trains for years."""
    return command == "train" and key == "epochs" and value.isdecimal() and 1 < int(value) <= MOST


SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.mark.parametrize("command", ["train", "check"])
@SETTINGS
@given(pairs=st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=3))
def test_any_value_of_any_key(command: str, folder: Path, pairs: list[tuple[str, str]]) -> None:
    assume(not any(lasts_for_ever(command, *pair) for pair in pairs))
    before = held(folder)
    given_ = [f"{key}={value}" for key, value in pairs]
    base = [pair for pair in TINY if pair.partition("=")[0] not in {key for key, _ in pairs}]
    arguments = [command, *(word for pair in (*base, *given_) for word in ("--set", pair))]
    if command == "train":
        arguments += ["--run-dir", "run"]
    status, errors = run(arguments)
    check_end(folder, before, status, errors)
    remove_new(folder, before)


@SETTINGS
@given(
    command=st.sampled_from(
        [
            "train",
            "check",
            "topology",
            "analyze",
            "reproduce",
            "bench",
            "eval",
            "predict",
            "export",
            "import",
            "tarin",
            "",
        ]
    ),
    words=st.lists(WORDS.filter(lambda word: word not in HEAVY), min_size=1, max_size=4),
)
def test_any_words_after_any_command(folder: Path, command: str, words: list[str]) -> None:
    before = held(folder)
    tail = ["--set", "epochs=0", "--set", "data.samples=40"] if command == "train" else []
    status, errors = run([command, *words, *tail])
    if status == 0:  # what it wrote, a picture or a run, is new
        after = held(folder)
        assert {name: after[name] for name in before} == before
        remove_new(folder, before)
    else:
        check_end(folder, before, status, errors)
