"""Tables of one's own: files of agents are aligned by ids, split and scaled, or refused in one line that says where."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from hdnn_dist import CommunicationGraph
from hdnn_dist.data import Splits, Table, TableData, open_table
from hdnn_dist.data.tables import filling, formats, layout, scratch
from hdnn_dist.data.tables.peers import Alone

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'hdnn-dist[tables]'")
pq = pytest.importorskip("pyarrow.parquet")

AGENTS, SAMPLES = 3, 60
RING = CommunicationGraph.ring(AGENTS)
RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, size=(SAMPLES, AGENTS, 2))
Y = (X[:, 0, 0] + X[:, 2, 1] > 6).astype(int)


def csv_text(names: list[str], rows: list[list[object]]) -> str:
    return "\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]) + "\n"


def write(folder: Path, kind: str, name: str, columns: dict[str, list[Any]]) -> None:
    """A file of columns (samples,) in any of the formats."""
    path = folder / f"{name}.{kind}"
    if kind == "csv":
        path.write_text(csv_text(list(columns), [list(row) for row in zip(*columns.values(), strict=True)]))
    elif kind == "parquet":
        pq.write_table(pa.table(columns), path, row_group_size=17)
    else:
        np.savez(path, **{key: np.array(values) for key, values in columns.items()})


def make(
    folder: Path, kind: str = "csv", shuffle: int = 0, ids: Callable[[int], object] = int, offset: int = 0
) -> Path:
    """The files of all agents, each in an order of its own."""
    folder.mkdir(exist_ok=True)
    for agent in range(AGENTS):
        order = np.random.default_rng(shuffle + agent).permutation(SAMPLES) if shuffle else np.arange(SAMPLES)
        columns = {name: X[order, agent, place].tolist() for place, name in enumerate("uv")}
        write(folder, kind, f"agent{agent}", {"id": [ids(int(one)) for one in order], **columns})
    order = np.random.default_rng(shuffle).permutation(SAMPLES) if shuffle else np.arange(SAMPLES)
    labels = {"label": Y[order].tolist(), "when": order.tolist(), "height": X[order, 1, 0].tolist()}
    write(folder, kind, "labels", {"id": [ids(int(one)) for one in order], **labels})
    return folder


def table(folder: Path, kind: str = "csv", **changed: Any) -> Table:
    about = {"files": f"agent{{agent}}.{kind}", "labels": f"labels.{kind}", "folder": folder, "cache": folder / "cache"}
    return Table(**{**about, **changed})


def read(given: Table, graph: CommunicationGraph = RING, seed: int = 0) -> TableData:
    return open_table(given, graph, range(graph.agents)).read(seed)


def everything(data: TableData) -> list[np.ndarray]:
    """Inputs and labels of all parts."""
    parts = [part for part in (data.train, data.validation, data.test) if part is not None]
    inputs = [part.inputs.read(np.arange(len(part))) for part in parts]
    return inputs + [part.labels for part in parts if part.labels is not None]


def same(first: TableData, second: TableData) -> bool:
    pairs = list(zip(everything(first), everything(second), strict=True))
    return all(np.array_equal(one, other) for one, other in pairs)


class TestAlignment:
    @pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
    def test_the_order_of_rows_and_the_format_change_nothing(self, tmp_path: Path, kind: str) -> None:
        plain = read(table(make(tmp_path / "plain"), split=Splits(validation=0.1)))
        shuffled = read(table(make(tmp_path / "other", kind, shuffle=5), kind, split=Splits(validation=0.1)))
        assert same(plain, shuffled)
        assert plain.validation is not None
        assert [len(part) for part in (plain.train, plain.validation, plain.test)] == [42, 6, 12]

    @pytest.mark.parametrize("ids", [lambda i: f"s{i}", lambda i: f"{i:03}", lambda i: f"sensor-é-{i}"])
    def test_ids_may_be_text(self, tmp_path: Path, ids: Callable[[int], str]) -> None:
        data = read(table(make(tmp_path, shuffle=3, ids=ids)))
        assert data.train.ids is not None
        where = {ids(i).encode(): i for i in range(SAMPLES)}
        assert Y[[where[one] for one in data.train.ids.tolist()]].tolist() == data.train.labels.tolist()  # type: ignore[union-attr]

    def test_one_file_may_have_numbers_where_another_has_their_text(self, tmp_path: Path) -> None:
        make(tmp_path, "parquet")
        write(tmp_path, "parquet", "agent1", {"id": [str(i) for i in range(SAMPLES)], "u": X[:, 1, 0].tolist()})
        assert len(read(table(tmp_path, "parquet")).train) == 48

    def test_values_stand_at_their_samples(self, tmp_path: Path) -> None:
        data = read(table(make(tmp_path, shuffle=1), standardise=False))
        for part in (data.train, data.test):
            assert part.ids is not None
            expected = X[part.ids].reshape(len(part), -1).astype(np.float32)
            np.testing.assert_array_equal(part.inputs.read(np.arange(len(part))), expected)

    def test_one_file_for_all_agents(self, tmp_path: Path) -> None:
        make(tmp_path)
        wide = {"id": list(range(SAMPLES)), "label": Y.tolist()}
        wide |= {f"{agent}_{name}": X[:, agent, p].tolist() for agent in range(AGENTS) for p, name in enumerate("uv")}
        write(tmp_path, "csv", "wide", wide)
        assert same(
            read(table(tmp_path)), read(table(tmp_path, files="wide.csv", labels="wide.csv", columns=["{agent}_*"]))
        )

    def test_agents_are_called_by_their_labels(self, tmp_path: Path) -> None:
        make(tmp_path)
        graph = CommunicationGraph.from_networkx(nx.path_graph(["Bern", "Graz", "Ulm"]))
        files = {"Graz": "agent1.csv", "Bern": "agent0.csv"}
        opened = open_table(table(tmp_path, files=files), graph, range(3))
        assert opened.about.assignment == {0: (0, 1), 1: (2, 3)}
        with pytest.raises(ValueError, match=r"files: no agent is called 'Wien'"):
            open_table(table(tmp_path, files={"Wien": "agent1.csv"}), graph, range(3))

    def test_samples_that_a_file_lacks_are_dropped_everywhere(self, tmp_path: Path) -> None:
        make(tmp_path)
        lines = (tmp_path / "agent1.csv").read_text().splitlines()
        (tmp_path / "agent1.csv").write_text("\n".join([lines[0], *lines[4:], "999,1.0,2.0"]))
        data = read(table(tmp_path, missing_ids="drop"))
        assert data.train.ids is not None
        assert data.test.ids is not None
        assert sorted([*data.train.ids, *data.test.ids]) == list(range(3, SAMPLES))


class TestParts:
    def test_ids_decide(self, tmp_path: Path) -> None:
        make(tmp_path)
        (tmp_path / "test.txt").write_text("id\n3\n4\n")
        data = read(table(tmp_path, split=Splits(test_ids="test.txt", validation_ids=[7])))
        assert data.validation is not None
        assert data.test.ids.tolist() == [3, 4]  # type: ignore[union-attr]
        assert data.validation.ids.tolist() == [7]  # type: ignore[union-attr]
        assert len(data.train) == SAMPLES - 3

    def test_time_decides(self, tmp_path: Path) -> None:
        split = Splits(time="when", validation_from=40, test_from=50)
        data = read(table(make(tmp_path, shuffle=2), split=split))
        assert data.train.ids.tolist() == list(range(40))  # type: ignore[union-attr]
        assert data.test.ids.tolist() == list(range(50, 60))  # type: ignore[union-attr]

    def test_dates_decide(self, tmp_path: Path) -> None:
        make(tmp_path)
        dates = [f"2024-{1 + i // 28:02}-{1 + i % 28:02}T06:00" for i in range(SAMPLES)]
        write(tmp_path, "csv", "labels", {"id": list(range(SAMPLES)), "label": Y.tolist(), "when": dates})
        data = read(table(tmp_path, split=Splits(time="when", test_from="2024-02-01")))
        assert data.test.ids.tolist() == list(range(28, 60))  # type: ignore[union-attr]

    def test_the_seed_decides_shares(self, tmp_path: Path) -> None:
        make(tmp_path)
        assert same(read(table(tmp_path), seed=1), read(table(tmp_path), seed=1))
        assert not same(read(table(tmp_path), seed=1), read(table(tmp_path), seed=2))


class TestScale:
    def test_training_samples_have_mean_0_and_deviation_1(self, tmp_path: Path) -> None:
        data = read(table(make(tmp_path)))
        train = data.train.inputs.read(np.arange(len(data.train))).astype(np.float64)
        np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(train.std(0), 1, atol=1e-6)
        np.testing.assert_allclose(data.statistics[1]["mean"], X[data.train.ids, 1].mean(0), rtol=1e-12)
        np.testing.assert_allclose(data.statistics[1]["std"], X[data.train.ids, 1].std(0), rtol=1e-12)

    @pytest.mark.parametrize("value", [0.1, 1e9, -3.3e-7])
    def test_a_constant_column_is_zeros(self, tmp_path: Path, value: float) -> None:
        write(make(tmp_path), "csv", "agent1", {"id": list(range(SAMPLES)), "u": [value] * SAMPLES})
        inputs = read(table(tmp_path)).train.inputs
        assert not inputs.read(np.arange(5))[:, 2].any()

    def test_gaps_become_the_training_mean(self, tmp_path: Path) -> None:
        gaps = [7.0 if i % 3 else "" for i in range(SAMPLES)]
        gaps[1] = 8.0
        write(make(tmp_path), "csv", "agent1", {"id": list(range(SAMPLES)), "u": gaps})
        data = read(table(tmp_path, missing_values="mean", split=Splits(test_ids=[0, 2])))
        assert data.test.inputs.read(np.array([0]))[0, 2] == 0
        plain = read(table(tmp_path, missing_values="mean", standardise=False, split=Splits(test_ids=[0, 2])))
        known = [float(one) for i, one in enumerate(gaps) if one != "" and i != 2]
        assert plain.test.inputs.read(np.array([0]))[0, 2] == np.float32(np.mean(known))
        assert plain.statistics[1]["fill"] == pytest.approx([np.mean(known)])

    def test_targets_at_the_root_and_their_unit(self, tmp_path: Path) -> None:
        make(tmp_path)
        given = table(tmp_path, task="regression", label=["height", "when"], standardise_targets=True)
        data = read(given)
        own = data.statistics[0]
        assert data.train.labels is not None
        np.testing.assert_allclose(data.train.labels.std(0), 1)
        back = data.train.labels * own["target_std"] + own["target_mean"]
        np.testing.assert_allclose(back, np.column_stack([X[data.train.ids, 1, 0], data.train.ids]))

    def test_targets_at_several_agents(self, tmp_path: Path) -> None:
        opened = open_table(table(make(tmp_path), labels=None, targets={0: ["v"], 2: ["u", "v"]}), RING, range(3))
        assert (opened.about.task, opened.about.targets, opened.about.classes) == ("regression", {0: 1, 2: 2}, 3)
        assert opened.about.assignment == {0: (0,), 1: (1, 2)}
        data = opened.read()
        assert data.train.targets is not None
        expected = np.column_stack([X[:, 0, 1], X[:, 2]])[data.train.ids].astype(np.float32)
        np.testing.assert_array_equal(data.train.targets.read(np.arange(len(data.train))), expected)


class TestDisk:
    def test_the_same_as_in_memory(self, tmp_path: Path) -> None:
        for kind in ("csv", "parquet"):
            folder = make(tmp_path / kind, kind, shuffle=4)
            split = Splits(validation=0.2)
            on_disk = read(table(folder, kind, memory=0, split=split))
            assert same(read(table(folder, kind, split=split)), on_disk)
            index = RNG.permutation(len(on_disk.train))[:20]
            np.testing.assert_array_equal(
                on_disk.train.inputs.read(index), everything(on_disk)[0][index], err_msg="random rows"
            )

    def test_it_is_used_again_until_something_changes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = make(tmp_path)
        first, reads = read(table(folder, memory=0)), []
        original = filling.Filling.fill
        monkeypatch.setattr(filling.Filling, "fill", lambda *args: reads.append(1) or original(*args))
        assert same(first, read(table(folder, memory=0)))
        assert not reads
        os.utime(folder / "agent1.csv", ns=(1, 1))
        assert same(first, read(table(folder, memory=0)))
        read(table(folder, memory=0, standardise=False))
        read(table(folder, memory=0), seed=1)
        assert len(reads) == 3

    def test_what_is_cut_off_is_made_again(self, tmp_path: Path) -> None:
        folder = make(tmp_path)
        first = read(table(folder))
        read(table(folder, memory=0))
        (rows,) = (folder / "cache").glob("*/rows.f32")
        rows.write_bytes(rows.read_bytes()[:-4])
        assert same(first, read(table(folder, memory=0)))

    def test_nothing_is_left_of_what_failed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("hdnn_dist.data.tables.reading.write_about", full)
        with pytest.raises(OSError, match="No space left"):
            read(table(make(tmp_path), memory=0))
        assert not list((tmp_path / "cache").iterdir())

    def test_pages_are_given_back_while_columns_are_filled(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Dropped after every write, the numbers are still those that were written."""
        monkeypatch.setattr(scratch, "TOUCHED", 0)
        monkeypatch.setattr(layout, "BLOCK", 7)
        monkeypatch.setattr(formats, "CHUNK", 7)
        folder = make(tmp_path, "parquet", shuffle=1)
        assert same(read(table(folder, "parquet", memory=0)), read(table(folder, "parquet")))


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: void((folder / name).write_bytes(content))


def void(_: object) -> None:
    return None


def row(number: int, agent: int) -> str:
    return f"\n{number},{X[number, agent, 0]},{X[number, agent, 1]}"


def nothing(_: Path) -> None:
    """The files are right."""


PARQUET = {"files": {1: "x.parquet"}}
WRONG: dict[str, tuple[Callable[[Path], None], dict[str, Any], str]] = {
    "text in a column of numbers": (
        replaced("agent1.csv", f",{X[7, 1, 1]}", ",high"),
        {},
        r"agent1\.csv of agent 1 has 'high' in row 8 \(id 7\), column 'v': expected a number$",
    ),
    "a gap": (
        replaced("agent1.csv", f",{X[7, 1, 1]}", ","),
        {},
        r"agent1\.csv of agent 1 has no value in row 8 \(id 7\), column 'v': expected a number, or missing_values = 'm",
    ),
    "infinity": (
        replaced("agent1.csv", f",{X[7, 1, 1]}", ",inf"),
        {},
        r"agent1\.csv of agent 1 has inf in row 8 \(id 7\), column 'v': expected a finite number$",
    ),
    "a missing id": (
        replaced("agent1.csv", row(7, 1), ""),
        {},
        r"agent1\.csv of agent 1 lacks the id 7, which .*labels\.csv of the labels, at agent 0, has: add it, or set m",
    ),
    "an id without a label": (
        replaced("labels.csv", f"\n7,{Y[7]}", "\n77,1"),
        {},
        r"labels\.csv of the labels, at agent 0, lacks the id 7, which .*agent0\.csv of agent 0 has: add it",
    ),
    "an id twice": (
        replaced("agent2.csv", "\n7,", "\n8,"),
        {},
        r"agent2\.csv of agent 2 has the id 8 twice: give each sample one row$",
    ),
    "a label twice": (replaced("labels.csv", "\n7,", "\n8,"), {}, r"labels\.csv of the labels.* has the id 8 twice"),
    "a row without an id": (replaced("agent2.csv", "\n7,", "\n,"), {}, r"agent2\.csv of agent 2 has no id in row 8"),
    "no column with the id": (
        nothing,
        {"id": "key"},
        r"agent0\.csv of agent 0 has no column 'key', the sample's id; say its name with id: there are 'id', 'u', 'v'$",
    ),
    "another delimiter": (
        written("agent1.csv", b"id;u;v\n0;1;2\n"),
        {},
        r"agent1\.csv of agent 1 has one column, 'id;u;v', and ';' in its name: set delimiter = \";\"$",
    ),
    "rows of different lengths": (
        replaced("agent1.csv", "\n7,", "\n7,1,"),
        {},
        r"agent1\.csv of agent 1 cannot be read: .*Expected 3 columns, got 4",
    ),
    "an empty file": (written("agent1.csv", b""), {}, r"agent1\.csv of agent 1 is empty: expected columns"),
    "no rows": (written("agent1.csv", b"id,u,v\n"), {}, r"agent1\.csv of agent 1 has no rows: expected one for each"),
    "no labels": (written("labels.csv", b"id,label\n"), {}, r"labels\.csv of the labels, at agent 0, has no rows"),
    "a column twice": (written("agent1.csv", b"id,u,u\n"), {}, r"agent1\.csv of agent 1 has the column 'u' twice"),
    "no file": (lambda folder: (folder / "agent1.csv").unlink(), {}, r"agent1\.csv of agent 1 does not exist"),
    "no UTF-8": (written("agent1.csv", b"id,u\n\xff\xfe,1\n"), {}, r"agent1\.csv of agent 1 cannot be read: .*UTF8"),
    "a suffix": (nothing, {"files": "agent{agent}.xlsx"}, r"agent0\.xlsx of agent 0 has the suffix '\.xlsx': tables a"),
    "no archive": (
        written("x.npz", b"nothing"),
        {"files": {1: "x.npz"}},
        r"x\.npz of agent 1 cannot be read: it is no archive of arrays",
    ),
    "no Parquet": (
        written("x.parquet", b"nothing of it"),
        PARQUET,
        r"x\.parquet of agent 1 cannot be read: Parquet magic",
    ),
    "text in Parquet": (
        lambda folder: pq.write_table(pa.table({"id": [0], "u": ["high"]}), folder / "x.parquet"),
        PARQUET,
        r"x\.parquet of agent 1 has string in column 'u', such as 'high' in row 1: expected numbers$",
    ),
    "objects in an archive": (
        lambda folder: np.savez(folder / "x.npz", id=np.array([0]), u=np.array([{}], dtype=object)),
        {"files": {1: "x.npz"}},
        r"x\.npz of agent 1 cannot be read: its array u holds object of shape \(1,\): expected numbers or text",
    ),
    "a label outside the classes": (
        nothing,
        {"classes": [0, 2]},
        r"labels\.csv of the labels, at agent 0, has '1' in row \d+ \(id \d+\), column 'label': expected one of the cl",
    ),
    "no label": (
        replaced("labels.csv", f"\n7,{Y[7]}", "\n7,"),
        {},
        r"labels\.csv of the labels, at agent 0, has '' in row 8 \(id 7\), column 'label': expected one of the classes",
    ),
    "one class": (nothing, {"columns": {1: ["u"]}, "label": "same"}, r"has no column 'same', named for the labels"),
    "no such column": (nothing, {"columns": ["w"]}, r"agent0\.csv of agent 0 has no column 'w', named for it: there"),
    "one file for all": (nothing, {"files": "agent0.csv"}, r"files is 'agent0\.csv', one file for all agents: say wi"),
    "ids of nobody": (nothing, {"split": Splits(test_ids=[999])}, r"split: test_ids has the id 999, which no sample h"),
    "ids of two parts": (
        nothing,
        {"split": Splits(test_ids=[1, 2], validation_ids=[2])},
        r"split: the id 2 is for validation and for test: list it once$",
    ),
    "a part without samples": (
        nothing,
        {"split": Splits(time="when", test_from=1e6)},
        r"split: no sample is left for test, of 60 that there are: change the split$",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    change, keys, words = WRONG[name]
    change(make(tmp_path))
    with pytest.raises(ValueError, match=words) as refused:
        read(table(tmp_path, **keys))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"labels": None}, "neither of labels and targets is given"),
        ({"targets": ["u"]}, "both of labels and targets is given"),
        ({"label": ["a", "b"]}, "classes are in one column; for several numbers set task = 'regression'"),
        ({"missing_ids": "skip"}, "unknown missing_ids 'skip'"),
        ({"classes": ["a", "a"]}, "expected two values or more, each once"),
        ({"standardise_targets": True}, "classes are no numbers"),
        ({"delimiter": "::"}, "delimiter is '::': expected one character"),
        ({"task": "regression", "classes": [0, 1]}, "classes are given, but numbers are predicted"),
    ],
)
def test_what_cannot_be_meant(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Table(**{"files": "{agent}.csv", "labels": "y.csv", **keys})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"test": 0.5, "validation": 0.5}, "of less than 1 together"),
        ({"test": 0.0}, "test above 0"),
        ({"test": 0.2, "test_ids": [1]}, "more than one is given: keep one"),
        ({"validation_ids": [1]}, "without test_ids"),
        ({"time": "when"}, "test_from = a limit"),
    ],
)
def test_splits_that_cannot_be_meant(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Splits(**keys)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    folder = make(tmp_path)
    expected = read(table(folder))
    (folder / "agent1.csv").write_bytes(b"\xef\xbb\xbf" + (folder / "agent1.csv").read_bytes())
    assert same(expected, read(table(folder)))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pyarrow, which is not installed: pip install 'hdnn-dist\[tables\]'$"):
        read(table(make(tmp_path)))


def test_only_files_of_local_agents_are_opened(tmp_path: Path) -> None:
    """A rank with the agents 1 and 2 has neither the file of agent 0 nor the labels."""
    make(tmp_path)
    opened: list[str] = []
    known = np.arange(SAMPLES)

    class Far(Alone):
        """What the rank of agent 0 would tell."""

        def from_agent(self, agent: int, values: np.ndarray | None) -> np.ndarray:
            assert values is None
            opened.append("told")
            answers = [np.array([SAMPLES]), np.frombuffer(b"0\x001", np.uint8), known, np.repeat([1, 3], 30)]
            return answers[len(opened) - 1]

    (tmp_path / "agent0.csv").unlink()
    (tmp_path / "labels.csv").unlink()
    data = open_table(table(tmp_path), RING, [1, 2], root=0, peers=Far()).read()
    assert data.train.inputs.columns == 4
    assert data.train.labels is None
    gc.collect()
