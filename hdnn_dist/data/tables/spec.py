"""What a user says of a table: whose columns are in which file, what is predicted, and how samples are split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hdnn_dist.data.source import CLASSIFICATION, TASKS
from hdnn_dist.support.arguments import is_number, shown, unknown

Ids = str | Sequence[int | str]
Limit = float | str
REFUSE, DROP, MEAN = "refuse", "drop", "mean"
MEMORY = 256.0  # megabytes of samples that a rank keeps in memory


@dataclass(frozen=True)
class Splits:
    """Which samples are for validation and for test; all others are for training.

    validation, test: shares of the samples, drawn by the seed. Or ``validation_ids``, ``test_ids`` and, if not all
    others, ``train_ids``: lists of ids, or files with one a line, which the rank with the labels reads. Or ``time``: a
    column beside the labels; from ``test_from`` on samples are for test, from ``validation_from`` to there for
    validation. Raises ValueError for shares that leave nothing, and for two ways at once.
    """

    validation: float = 0.0
    test: float | None = None
    train_ids: Ids | None = None
    validation_ids: Ids | None = None
    test_ids: Ids | None = None
    time: str | None = None
    validation_from: Limit | None = None
    test_from: Limit | None = None

    def __post_init__(self) -> None:
        ways = [self.test is not None or self.validation > 0, self.by_ids, self.by_time]
        if sum(ways) > 1:
            raise ValueError("split: shares, ids and time are ways of their own, and more than one is given: keep one")
        if self.by_ids and self.test_ids is None:
            raise ValueError("split: ids are given without test_ids: say which samples are for test")
        if self.by_time and (self.time is None or self.test_from is None):
            raise ValueError("split: by time it needs both, time = a column beside the labels, and test_from = a limit")
        shares = (self.validation, self.test_share)
        if not all(is_number(share) and 0 <= share < 1 for share in shares) or sum(shares) >= 1 or not shares[1]:
            raise ValueError(
                f"split: validation = {shown(self.validation)} and test = {shown(self.test)} are to be shares, test "
                "above 0, of less than 1 together"
            )

    @property
    def by_ids(self) -> bool:
        """Whether lists of ids decide."""
        return any(given is not None for given in (self.train_ids, self.validation_ids, self.test_ids))

    @property
    def by_time(self) -> bool:
        """Whether a column with the time decides."""
        return any(given is not None for given in (self.time, self.validation_from, self.test_from))

    @property
    def test_share(self) -> float:
        """The share for test: a fifth unless given."""
        return 0.2 if self.test is None else self.test

    @property
    def validates(self) -> bool:
        """Whether there are to be samples for validation."""
        return self.validation > 0 or self.validation_ids is not None or self.validation_from is not None


@dataclass(frozen=True)
class Table:
    """Samples in files of their agents, aligned by an id.

    files: the file of each agent, CSV, Parquet or NPZ: a pattern such as "sensors/{agent}.csv" for all agents, where
    the label stands for its agent if there is one, or agent -> file for those that have one.
    columns: agent -> names of the columns that it sees, or one list for all, in which "{agent}" may stand too and
    "*" for any letters. All columns but the id, labels, targets and time unless given.
    id: the column with the sample's id, text or whole numbers, in every file.
    labels: the file at the root with what is predicted, in the columns ``label``: one of classes, or one or more of
    numbers with ``task`` "regression". targets: instead, the columns that agents predict themselves, numbers of their
    own files, in the form of ``columns``.
    classes: the values of ``label`` in the order of class numbers; those that occur, sorted, unless given.
    missing_ids: "refuse", or "drop" the samples that any file lacks. missing_values: "refuse", or the training "mean".
    standardise, standardise_targets: to the mean 0 and the standard deviation 1 of the training samples.
    split: see ``Splits``. folder: where relative paths begin. delimiter: between the columns of CSV.
    memory: megabytes of samples that a rank may keep in memory; more lie in a file below ``cache``.

    Raises ValueError for what cannot be meant.
    """

    files: str | Mapping[Any, str]
    labels: str | None = None
    label: str | Sequence[str] = "label"
    targets: Sequence[str] | Mapping[Any, Sequence[str]] | None = None
    columns: Sequence[str] | Mapping[Any, Sequence[str]] | None = None
    id: str = "id"
    task: str = CLASSIFICATION
    classes: Sequence[int | str] | None = None
    missing_ids: str = REFUSE
    missing_values: str = REFUSE
    standardise: bool = True
    standardise_targets: bool = False
    split: Splits = field(default_factory=Splits)
    delimiter: str = ","
    folder: str | Path = "."
    cache: str | Path = "runs/cache"
    memory: float = MEMORY

    def __post_init__(self) -> None:
        if (self.labels is None) == (self.targets is None):
            given = "neither" if self.labels is None else "both"
            raise ValueError(
                f"{given} of labels and targets is given: say labels = a file at the root, or targets = the columns "
                "that agents predict themselves"
            )
        _check_choice("task", self.task, TASKS)
        _check_choice("missing_ids", self.missing_ids, (REFUSE, DROP))
        _check_choice("missing_values", self.missing_values, (REFUSE, MEAN))
        self._check_classes()
        if len(self.delimiter) != 1:
            raise ValueError(f"delimiter is {shown(self.delimiter)}: expected one character, such as ';'")
        if self.split.by_time and self.labels is None:
            raise ValueError("split: by time it needs the file of labels, whose column says when: give labels")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The columns with labels."""
        return (self.label,) if isinstance(self.label, str) else tuple(self.label)

    def path(self, name: str) -> Path:
        """A file, from ``folder`` unless its path is absolute."""
        return Path(self.folder) / name

    def _check_classes(self) -> None:
        if self.labels is None or self.task != CLASSIFICATION:
            if self.classes is not None:
                raise ValueError("classes are given, but numbers are predicted: leave them out")
            if not self.label_names:
                raise ValueError("label is empty: name one column or more")
            return
        if len(self.label_names) != 1:
            raise ValueError(
                f"label is {shown(self.label)}: classes are in one column; for several numbers set task = 'regression'"
            )
        if self.standardise_targets:
            raise ValueError("standardise_targets is true, but classes are no numbers: leave it out")
        names = None if self.classes is None else [str(name) for name in self.classes]
        if names is not None and (len(names) < 2 or len(set(names)) < len(names)):
            raise ValueError(f"classes is {shown(self.classes)}: expected two values or more, each once")


def _check_choice(name: str, given: object, known: Sequence[str]) -> None:
    if given not in known:
        raise unknown(name, given, known)
