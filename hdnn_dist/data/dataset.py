"""Load a data set by name, this rank's columns only, and draw its batches in an order all ranks share.

about = describe("double_circles")
columns = Columns.spread(about.columns, features_per_agent)
data = load("double_circles", seed=0, index=columns.index(local_agents), labels=is_root)
for batch in batches(len(data.train), 125, seed=0, epoch=0):
    x = data.train.inputs[batch]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hdnn_dist.data.checks import check_description, check_splits
from hdnn_dist.data.class_transfer import ClassTransfer
from hdnn_dist.data.columns import ZERO
from hdnn_dist.data.digits import NAME as DIGITS
from hdnn_dist.data.digits import Digits
from hdnn_dist.data.graph_transfer import NAME as GRAPH_TRANSFER
from hdnn_dist.data.graph_transfer import GraphTransfer
from hdnn_dist.data.mnist import NAME as MNIST
from hdnn_dist.data.mnist import Mnist
from hdnn_dist.data.power_grid import NAME as POWER_GRID
from hdnn_dist.data.power_grid import PowerGrid
from hdnn_dist.data.regression import REGRESSIONS
from hdnn_dist.data.source import CLASSIFICATION, Description, GraphSource, Request, Source, Split, Values
from hdnn_dist.data.synthetic import SYNTHETIC
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import named, require_memory, seed_number

SOURCES: dict[str, Source | GraphSource] = {
    **{source.name: source for source in SYNTHETIC},
    DIGITS: Digits(),
    MNIST: Mnist(),
    **{source.name: source for source in REGRESSIONS},
    POWER_GRID: PowerGrid(),
    ClassTransfer.name: ClassTransfer(),
    GRAPH_TRANSFER: GraphTransfer(),
}
"""Every known source by name; add one to make it loadable."""

ROOM = 64  # bytes a sample, at least: its number, its label, and what shuffling and a column take

Index = npt.NDArray[np.int64]
Known = str | Source | GraphSource


@dataclass(frozen=True)
class Dataset:
    """A data set as one rank holds it: ``inputs`` of both splits are (samples, features of the local agents).

    columns: number of columns D of the whole data set; the other fields are as in Description.
    """

    name: str
    train: Split
    test: Split
    classes: int
    image: tuple[int, int] | None
    columns: int
    task: str = CLASSIFICATION
    targets: Mapping[int, int] | None = None


def describe(name: Known, *, root: str | Path | None = None, graph: CommunicationGraph | None = None) -> Description:
    """The shape of a data set, known before it is read.

    name: of a known data set, or a source. graph: for data that live on one.

    Raises ValueError for an unknown name, for a graph that is missing or does not
    fit, and for targets at an agent that it has not.
    """
    return _described(_source(name, graph), root, graph)


def load(
    name: Known,
    *,
    seed: int,
    index: Index,
    samples: int | None = None,
    noise: float | None = None,
    root: str | Path | None = None,
    labels: bool = True,
    targets: Iterable[int] = (),
    graph: CommunicationGraph | None = None,
) -> Dataset:
    """Read or make this rank's columns of a data set.

    name: of a known data set, or a source.
    seed: decides the samples, their order and which are for test, so ranks must agree on it.
    index: (features of the local agents,), the column or -1 for a zero of each, from ``Columns.index``.
    samples, noise: None for the data set's own, see ``describe``.
    root: folder of the files, for data sets that are read from files.
    labels: False on ranks that do not need them.
    targets: the local agents whose own targets are needed, of those that ``Description.targets`` names.
    graph: for data that live on one.

    Raises ValueError for an unknown name, for an index, a seed or samples that the data set has not, for noise where it
    takes none, and for samples that are not as ``Split`` says.
    """
    source = _source(name, graph)
    about = _described(source, root, graph)
    _check_index(index, about)
    if noise is not None and about.noise is None:
        raise ValueError(f"the data set {about.name} takes no noise, but noise = {noise} is given; leave it out")
    request = Request(
        samples=about.samples if samples is None else samples,
        noise=about.noise if noise is None else noise,
        seed=seed_number(seed),
        root=_folder(root),
        columns=index[index != ZERO],
        labels=labels and about.targets is None,
        targets=_wanted(targets, about),
    )
    require_memory(f"{request.samples} samples", ROOM * request.samples)
    splits = source.read(request)
    check_splits(splits, about, request)
    train, test = (_with_zeros(split, index) for split in splits)
    return Dataset(about.name, train, test, about.classes, about.image, about.columns, about.task, about.targets)


def local_features(table: Values, index: Index) -> Values:
    """This rank's features of samples given in full, such as the grid of a picture of decision regions.

    table: (samples, D). index: as in ``load``. Returns (samples, features of the local agents).
    """
    return _fill(table[:, index[index != ZERO]], index)


def shuffled(samples: int, seed: int, epoch: int) -> Index:
    """(samples,): the order of all samples in one epoch, of which ``batches`` are consecutive pieces."""
    _at_least(1, samples, "the number of samples")
    _at_least(0, epoch, "the epoch")
    key = np.array([seed_number(seed), epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(samples)


def batches(samples: int, batch_size: int, seed: int, epoch: int) -> Iterator[Index]:
    """Shuffled sample indices of one epoch, the same on every rank: (batch_size,) each, the last may be short.

    Raises ValueError, when called, for a batch size, number of samples, seed or epoch out of range.
    """
    _at_least(1, batch_size, "the batch size")
    order = shuffled(samples, seed, epoch)
    return (order[start : start + batch_size] for start in range(0, samples, batch_size))


def _source(name: Known, graph: CommunicationGraph | None) -> Source:
    source = name if isinstance(name, Source | GraphSource) else named("data set", name, SOURCES)
    if not isinstance(source, GraphSource):
        return source
    if graph is None:
        called = name if isinstance(name, str) else type(name).__name__
        raise ValueError(f"the data set {called} lives on a graph: pass graph=, the CommunicationGraph of the agents")
    return source.on(graph)


def _described(source: Source, root: str | Path | None, graph: CommunicationGraph | None) -> Description:
    about = source.describe(_folder(root))
    check_description(about, graph)
    return about


def _wanted(agents: Iterable[int], about: Description) -> tuple[int, ...]:
    wanted = sorted(agents)
    for agent in wanted:
        if agent not in (about.targets or {}):
            raise ValueError(f"targets of agent {agent} are asked for, but the data set {about.name} has none there")
    return tuple(wanted)


def _folder(root: str | Path | None) -> Path | None:
    return None if root is None else Path(root)


def _with_zeros(split: Split, index: Index) -> Split:
    return replace(split, inputs=_fill(split.inputs, index))


def _fill(values: Values, index: Index) -> Values:
    """Put the columns that were read where ``index`` wants them, zeros elsewhere."""
    inputs = np.zeros((len(values), len(index)), dtype=values.dtype)
    inputs[:, index != ZERO] = values
    return inputs


def _check_index(index: Index, about: Description) -> None:
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"index must be one row of integers, not {index.dtype} of shape {index.shape}")
    outside = index[(index < ZERO) | (index >= about.columns)]
    if outside.size:
        raise ValueError(
            f"column {outside[0]} does not exist: the data set {about.name} has {about.columns} columns, "
            f"0 to {about.columns - 1}, and -1 stands for a zero"
        )


def _at_least(least: int, value: int, what: str) -> None:
    if value < least:
        raise ValueError(f"{what} must be {least} or more, not {value}")
