"""Which sample is for what: 1 for training, 2 for validation, 3 for test, 0 for nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hdnn_dist.data.tables.ids import joined, positions, told
from hdnn_dist.data.tables.reference import INTEGER, Reference, date
from hdnn_dist.data.tables.spec import Ids, Limit, Table

TRAIN, VALIDATION, TEST = 1, 2, 3
NAMES = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}
Codes = npt.NDArray[np.uint8]


def codes_of(table: Table, reference: Reference, kept: npt.NDArray[np.bool_], seed: int) -> Codes:
    """(samples,) what each sample is for; ``kept``: (samples,) those that no file lacks.

    ``ValueError`` for unknown ids, ids of two lists, and parts without samples.
    """
    split = table.split
    if split.by_ids:
        codes = _by_ids(table, reference)
    elif split.by_time:
        codes = _by_time(table, reference)
    else:
        codes = _by_share(table, kept, seed)
    used: Codes = np.where(kept, codes, 0).astype(np.uint8)
    _check(table, used)
    return used


def _by_share(table: Table, kept: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.int64]:
    count = int(kept.sum())
    order = np.random.Generator(np.random.Philox(seed)).permutation(count)
    test = max(1, round(table.split.test_share * count))
    validation = max(1, round(table.split.validation * count)) if table.split.validation else 0
    drawn = np.full(count, TRAIN)
    drawn[order[:test]] = TEST
    drawn[order[test : test + validation]] = VALIDATION
    codes = np.zeros(len(kept), dtype=np.int64)
    codes[kept] = drawn
    return codes


def _by_time(table: Table, reference: Reference) -> npt.NDArray[np.int64]:
    split, times = table.split, reference.times
    assert times is not None
    assert split.test_from is not None
    codes = np.full(len(times), TRAIN)
    if split.validation_from is not None:
        codes[times >= _limit(split.validation_from, times)] = VALIDATION
    codes[times >= _limit(split.test_from, times)] = TEST
    return codes


def _limit(limit: Limit, times: np.ndarray) -> float | bytes:
    if isinstance(limit, str) != (times.dtype.kind == "S"):
        raise ValueError("split: validation_from and test_from are to be of one kind, numbers or dates as text")
    return date(limit) if isinstance(limit, str) else limit


def _by_ids(table: Table, reference: Reference) -> npt.NDArray[np.int64]:
    split = table.split
    codes = np.full(len(reference.ids), TRAIN if split.train_ids is None else 0)
    named = np.zeros(len(codes), dtype=np.int64)
    for code, key in ((TRAIN, "train_ids"), (VALIDATION, "validation_ids"), (TEST, "test_ids")):
        given: Ids | None = getattr(split, key)
        if given is None:
            continue
        at = _listed(table, reference, key, given)
        both = at[named[at] > 0]
        if len(both):
            raise ValueError(
                f"split: the id {told(reference.ids[both[0]])} is for {NAMES[int(named[both[0]])]} and for "
                f"{NAMES[code]}: list it once"
            )
        codes[at], named[at] = code, code
    return codes


def _listed(table: Table, reference: Reference, key: str, given: Ids) -> np.ndarray:
    """Where the ids of a list, or of a file with one a line, stand."""
    texts = _lines(table, key, given) if isinstance(given, str) else [str(one) for one in given]
    at = positions(reference.ids, _as_ids(texts))
    unknown = np.flatnonzero(at < 0)
    if len(unknown):
        raise ValueError(f"split: {key} has the id {texts[unknown[0]]}, which no sample has: leave it out")
    return np.unique(at)


def _lines(table: Table, key: str, given: str) -> list[str]:
    path = table.path(given)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"split: {key} is {path}, which cannot be read ({error}): give a file with an id a line"
        ) from None
    return [line for number, line in enumerate(lines) if line and not (number == 0 and line == table.id)]


def _as_ids(texts: Sequence[str]) -> np.ndarray:
    if all(re.match(INTEGER, text) for text in texts):
        return np.array([int(text) for text in texts], dtype=np.int64)
    return joined([np.array([text.encode() for text in texts])])


def _check(table: Table, codes: Codes) -> None:
    wanted = [TRAIN, TEST, *([VALIDATION] if table.split.validates else [])]
    for code in wanted:
        if not (codes == code).any():
            raise ValueError(
                f"split: no sample is left for {NAMES[code]}, of {len(codes)} that there are: change the split"
            )
