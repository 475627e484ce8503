"""Which columns of which file every agent of a rank sees, and which it predicts, from the names in the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hdnn_dist.data.tables.formats import TableFile
from hdnn_dist.data.tables.spec import Table
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import concerning, shown

AGENT = "{agent}"
Given = Sequence[str] | Mapping[int, Sequence[str]] | None


@dataclass(frozen=True)
class Seen:
    """The file of an agent, and the columns in it: ``inputs``, that it sees, and ``targets``, that it predicts."""

    agent: int
    file: TableFile
    inputs: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Names:
    """A table whose agents are numbers."""

    table: Table
    graph: CommunicationGraph
    files: str | Mapping[int, str]
    columns: Given
    targets: Given

    @classmethod
    def of(cls, table: Table, graph: CommunicationGraph) -> Names:
        """The table on a graph; ``ValueError`` for agents that it has not, and for one file that says of nobody."""
        files = table.files if isinstance(table.files, str) else _by_agent(graph, "files", table.files)
        columns = _by_agent(graph, "columns", table.columns)
        targets = _by_agent(graph, "targets", table.targets)
        if isinstance(files, str) and AGENT not in files and not (_tells_apart(columns) or _tells_apart(targets)):
            raise ValueError(
                f"files is {shown(files)}, one file for all agents: say with columns who sees which, such as "
                f'{{0 = ["a", "b"]}} or ["{AGENT}_*"], or give a pattern such as "sensors/{AGENT}.csv"'
            )
        return cls(table, graph, files, columns, targets)  # type: ignore[arg-type]

    @property
    def agents(self) -> list[int]:
        """Those with a file, ascending: known on every rank without opening one."""
        if not isinstance(self.files, str):
            return sorted(self.files)
        if isinstance(self.columns, Mapping):
            more = self.targets if isinstance(self.targets, Mapping) else ()
            return sorted({*self.columns, *more})
        return list(range(self.graph.agents))

    def file(self, agent: int) -> TableFile:
        """The file of an agent."""
        given = self.files if isinstance(self.files, str) else self.files[agent]
        path = given.replace(AGENT, self._label(agent))
        return TableFile(self.table.path(path), self.graph.named(agent), self.table.delimiter)

    def seen(self, local: Iterable[int]) -> list[Seen]:
        """Of the local agents with a file, which are opened; ``ValueError`` for what is not in them."""
        names: dict[Path, list[str]] = {}
        return [self._seen(agent, names) for agent in self.agents if agent in set(local)]

    def _label(self, agent: int) -> str:
        return str(agent) if self.graph.labels is None else self.graph.labels[agent]

    def _seen(self, agent: int, known: dict[Path, list[str]]) -> Seen:
        file = self.file(agent)
        if file.path not in known:
            known[file.path] = file.names()
        names = known[file.path]
        if self.table.id not in names:
            raise missing_column(file, self.table.id, names, "the sample's id; say its name with id")
        targets = self._chosen(agent, file, names, self.targets, ())
        own = {self.table.id, *targets, *self._answers(file)}
        inputs = self._chosen(agent, file, names, self.columns, tuple(name for name in names if name not in own))
        both = next((name for name in inputs if name in own), None)
        if both is not None:
            raise file.error(
                f"has {shown(both)}, which is the id or is predicted, and is no column to see: leave it out"
            )
        return Seen(agent, file, inputs, targets)

    def _answers(self, file: TableFile) -> tuple[str, ...]:
        """The columns of the file of labels, where an agent's is the same."""
        table = self.table
        if table.labels is None or table.path(table.labels) != file.path:
            return ()
        return (*table.label_names, *([table.split.time] if table.split.time else []))

    def _chosen(
        self, agent: int, file: TableFile, names: Sequence[str], given: Given, default: tuple[str, ...]
    ) -> tuple[str, ...]:
        if given is None:
            return default
        patterns = given.get(agent, ()) if isinstance(given, Mapping) else given
        chosen: list[str] = []
        for pattern in (pattern.replace(AGENT, self._label(agent)) for pattern in patterns):
            found = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
            if not found:
                raise missing_column(file, pattern, names, "named for it")
            chosen += [name for name in found if name not in chosen and name != self.table.id]
        return tuple(chosen)


def missing_column(file: TableFile, name: str, names: Sequence[str], what: str) -> ValueError:
    """The error for a column that is not there; says which other delimiter the first row seems to have."""
    other = next((mark for mark in (";", "\t", "|", ",") if len(names) == 1 and mark in names[0]), None)
    if other is not None:
        return file.error(
            f"has one column, {shown(names[0])}, and {other!r} in its name: set delimiter = {_toml(other)}"
        )
    listed = ", ".join(map(shown, names[:8])) + (", ..." if len(names) > 8 else "")
    return file.error(f"has no column {shown(name)}, {what}: there are {listed}")


def _toml(mark: str) -> str:
    return '"\\t"' if mark == "\t" else f'"{mark}"'


def _tells_apart(given: Any) -> bool:
    return isinstance(given, Mapping) or any(AGENT in name for name in given or ())


def _by_agent(graph: CommunicationGraph, key: str, given: Any) -> Any:
    with concerning(key):
        return graph.by_agent(given) if isinstance(given, Mapping) else given
