"""A table on a graph: looked at by every rank, aligned by ids along the tree, and laid out in rows.

opened = open_table(table, graph, local=range(graph.agents))
data = opened.read(seed=0)
x = data.train.inputs.read(np.arange(32))
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hdnn_dist.data.source import CLASSIFICATION, REGRESSION, Description
from hdnn_dist.data.tables.filling import Column, Filling, columns_of, dtype_of
from hdnn_dist.data.tables.formats import TableFile, arrow
from hdnn_dist.data.tables.layout import blocks, in_memory, moments, scale_of, statistics_of, write_rows
from hdnn_dist.data.tables.parts import Part, TableData
from hdnn_dist.data.tables.peers import Alone, Peers
from hdnn_dist.data.tables.plan import Names
from hdnn_dist.data.tables.reference import Reference, read_reference
from hdnn_dist.data.tables.rows import FileRows, MemoryRows, Rows
from hdnn_dist.data.tables.scaling import Scale, measured
from hdnn_dist.data.tables.scratch import Scratch
from hdnn_dist.data.tables.spec import Table
from hdnn_dist.data.tables.splitting import TEST, TRAIN, VALIDATION, codes_of
from hdnn_dist.data.tables.store import Stored, find, key_of, stamp, whole_folder, write_about
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import seed_number

MEGABYTE = 10**6
NAME = "table"
PLACES = ("folder", "cache", "memory")  # of a table, which do not change what is read
Counts = tuple[int, int, int]


def open_table(
    table: Table, graph: CommunicationGraph, local: Iterable[int], root: int = 0, peers: Peers | None = None
) -> OpenedTable:
    """Look at the files of the local agents and, on the rank of the root, read the labels.

    root: the agent with the labels. peers: the ranks, which all have to call it; without, all agents are here. Raises
    ValueError, on every rank, for what cannot be opened.
    """
    return OpenedTable(table, graph, list(local), root, Alone() if peers is None else peers)


class OpenedTable:
    """A table whose columns and classes every rank knows: ``about``, where columns are those of all agents, one after
    another.
    """

    def __init__(self, table: Table, graph: CommunicationGraph, local: list[int], root: int, peers: Peers) -> None:
        self.table, self.graph, self._local, self._peers = table, graph, local, peers
        with peers.agreed():
            arrow()
            self._names = Names.of(table, graph)
            if not self._names.agents:
                raise ValueError("files: no agent has one: give a pattern, or agent -> file")
            self._seen = self._names.seen(local)
        self._owner = root if table.labels is not None else self._names.agents[0]
        self._here = self._owner in set(local)
        self._file = self._reference_file()
        self._reference = Reference(np.empty(0, dtype=np.int64))
        seen, predicted = self._count()
        with peers.agreed():
            self._refuse_nothing(seen, predicted)
            if self._here:
                self._reference = read_reference(self._file, table)
        self._samples = int(self._told(np.array([len(self._reference.ids)]))[0])
        self.about = self._describe(seen, predicted, self._told_classes())

    def read(self, seed: int = 0) -> TableData:
        """Align all samples, split them, and lay them out; every rank has to call it.

        seed: of shares. Raises ValueError, on every rank, for what is missing, twice there, or no number.
        """
        columns = columns_of(self._seen)
        folder = self._folder(len(columns), seed_number(seed))
        stored = None if folder is None else find(folder, len(columns))
        found = int(self._peers.total(np.array([stored is not None], dtype=np.int64))[0])
        if stored is None or found < self._peers.ranks:
            return self._align(columns, folder, seed)
        return self._data(stored.order, stored.counts, stored.scales, self._file_parts(columns, stored))

    def _align(self, columns: list[Column], folder: Path | None, seed: int) -> TableData:
        known = self._told(self._reference.ids)
        with ExitStack() as stack:
            with self._peers.agreed():
                beside = _made(folder)
                scratch = Scratch(len(columns), len(known), dtype_of(self.table, columns), beside)
                stack.callback(scratch.close)
                filling = Filling(self.table, known, self._file, scratch)
                lacking = filling.fill(columns, [own.file for own in self._seen])
            order, counts = self._order(lacking, seed)
            with self._peers.agreed():
                train = order[: counts[0]]
                scales = [scale_of(self.table, scratch, column, train) for column in columns]
                parts = blocks(scratch, order, columns, scales)
                if folder is None:
                    rows = self._memory_parts(columns, in_memory(parts, len(order), len(columns)), counts)
                else:
                    with whole_folder(folder, lambda: find(folder, len(columns)) is not None) as partial:
                        write_rows(partial, parts)
                        write_about(partial, order, counts, scales)
                    rows = self._file_parts(columns, Stored(folder, order, counts, scales))
        return self._data(order, counts, scales, rows)

    def _order(self, lacking: np.ndarray, seed: int) -> tuple[np.ndarray, Counts]:
        """(samples,) which sample each row is, training, validation, test, and how many of each."""
        kept = self._peers.total(lacking) == 0
        codes = np.empty(0, dtype=np.uint8)
        with self._peers.agreed():
            if self._here:
                codes = codes_of(self.table, self._reference, kept, seed)
        codes = self._told(codes)
        parts = [np.flatnonzero(codes == code) for code in (TRAIN, VALIDATION, TEST)]
        return np.concatenate(parts), (len(parts[0]), len(parts[1]), len(parts[2]))

    def _memory_parts(self, columns: list[Column], table: np.ndarray, counts: Counts) -> list[tuple[Rows, Rows]]:
        inputs = sum(not column.target for column in columns)
        pieces = np.split(table, np.cumsum(counts)[:2])
        return [(MemoryRows(piece[:, :inputs]), MemoryRows(piece[:, inputs:])) for piece in pieces]

    def _file_parts(self, columns: list[Column], stored: Stored) -> list[tuple[Rows, Rows]]:
        inputs, width = sum(not column.target for column in columns), len(columns)
        starts = np.cumsum([0, *stored.counts])[:3].tolist()
        return [
            (
                FileRows(stored.rows, width, first, count, 0, inputs),
                FileRows(stored.rows, width, first, count, inputs, width),
            )
            for first, count in zip(starts, stored.counts, strict=True)
        ]

    def _data(self, order: np.ndarray, counts: Counts, scales: list[Scale], rows: list[tuple[Rows, Rows]]) -> TableData:
        places = np.split(order, np.cumsum(counts)[:2])
        statistics = statistics_of(self.table, self._seen, columns_of(self._seen), scales)
        labels = [None if self._reference.labels is None else self._reference.labels[at] for at in places]
        if self.table.standardise_targets and labels[0] is not None:
            labels = self._scaled(labels, statistics)
        own = self.about.targets is not None
        train, validation, test = (
            Part(inputs, known, targets if own else None, self._reference.ids[at] if self._here else None)
            for (inputs, targets), known, at in zip(rows, labels, places, strict=True)
        )
        return TableData(train, validation if len(validation) else None, test, statistics)

    def _scaled(
        self, labels: list[np.ndarray | None], statistics: dict[int, dict[str, np.ndarray]]
    ) -> list[np.ndarray | None]:
        """Labels of regression with the mean 0 and the standard deviation 1 of the training samples."""
        assert labels[0] is not None
        scales = [measured(lambda values=values: [values]) or Scale() for values in labels[0].T]  # type: ignore[misc]
        told = moments(scales, "target_")
        statistics.setdefault(self._owner, {}).update(told)
        return [None if part is None else (part - told["target_mean"]) / told["target_std"] for part in labels]

    def _reference_file(self) -> TableFile:
        if self.table.labels is None:
            return self._names.file(self._owner)
        path = self.table.path(self.table.labels)
        return TableFile(path, f"the labels, at {self.graph.named(self._owner)},", self.table.delimiter)

    def _count(self) -> tuple[np.ndarray, np.ndarray]:
        """(agents,) each: how many columns an agent sees, and how many it predicts."""
        counts = np.zeros((2, self.graph.agents), dtype=np.int64)
        for own in self._seen:
            counts[:, own.agent] = len(own.inputs), len(own.targets)
        seen, predicted = self._peers.total(counts)
        return seen, predicted

    def _refuse_nothing(self, seen: np.ndarray, predicted: np.ndarray) -> None:
        if not seen.any():
            raise ValueError("no agent sees any column of its file: give columns, or files with more than ids")
        if self.table.targets is not None and not predicted.any():
            raise ValueError("targets: no agent predicts any column: name them")

    def _told(self, values: np.ndarray) -> np.ndarray:
        """The array of the rank with the reference, on every rank."""
        return self._peers.from_agent(self._owner, values if self._here else None)

    def _told_classes(self) -> tuple[str, ...]:
        text = "\0".join(self._reference.classes).encode()
        told = self._told(np.frombuffer(text, dtype=np.uint8)).tobytes().decode()
        return tuple(told.split("\0")) if told else ()

    def _describe(self, seen: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...]) -> Description:
        ends, own = np.cumsum(seen).tolist(), self.table.targets is not None
        outputs = int(predicted.sum()) if own else len(self.table.label_names)
        return Description(
            NAME,
            columns=ends[-1],
            classes=len(classes) or outputs,
            samples=self._samples,
            task=CLASSIFICATION if classes else REGRESSION,
            targets={i: int(predicted[i]) for i in np.flatnonzero(predicted).tolist()} if own else None,
            assignment={i: tuple(range(ends[i] - int(seen[i]), ends[i])) for i in np.flatnonzero(seen).tolist()},
            class_names=classes or None,
        )

    def _folder(self, width: int, seed: int) -> Path | None:
        """Where the rows of this rank lie on the disk; None where they fit into its memory."""
        with self._peers.agreed():
            stamps = self._stamps()
        stamps = self._peers.total(stamps)
        if 4 * width * self._samples <= MEGABYTE * self.table.memory:
            return None
        facts = {name: value for name, value in asdict(self.table).items() if name not in PLACES}
        return Path(self.table.cache) / key_of([facts, seed, sorted(self._local), stamps.tolist()])

    def _stamps(self) -> np.ndarray:
        """(agents + 1,) of this rank's files, an agent each, and of those that say which samples there are."""
        stamps = np.zeros(self.graph.agents + 1, dtype=np.int64)
        for own in self._seen:
            stamps[own.agent] = stamp(own.file.path)
        if self._here:
            lists = (self.table.split.train_ids, self.table.split.validation_ids, self.table.split.test_ids)
            paths = [self._file.path, *(self.table.path(given) for given in lists if isinstance(given, str))]
            stamps[-1] = sum(stamp(path) // len(paths) for path in paths)
        return stamps


def _made(folder: Path | None) -> Path | None:
    if folder is not None:
        folder.parent.mkdir(parents=True, exist_ok=True)
    return None if folder is None else folder.parent
