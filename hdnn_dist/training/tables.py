"""From the config of a table to the samples of a job."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.data.columns import Columns
from hdnn_dist.data.tables.parts import Part, Statistics
from hdnn_dist.data.tables.reading import OpenedTable, open_table
from hdnn_dist.data.tables.rows import MemoryRows, Rows
from hdnn_dist.data.tables.spec import Splits, Table
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.model.network import HDNN
from hdnn_dist.support.arguments import concerning
from hdnn_dist.training.config import Config
from hdnn_dist.training.job import Samples
from hdnn_dist.training.peers import TreePeers
from hdnn_dist.training.stored import StoredRows
from hdnn_dist.training.table_config import TableConfig

TABLE = "table"
NOT_BESIDE = ("name", "transfer", "samples", "noise", "columns", "patch")  # keys of data for named data sets


class TableSamples(NamedTuple):
    """What a job takes of a table; statistics (columns,) each."""

    train: Samples
    validation: Samples | None
    test: Samples
    statistics: Statistics


def check_source(config: Config) -> None:
    """``ValueError`` for keys of tables without ``source = "table"``, and for those of named data sets with it."""
    chosen = config.data
    if chosen.source != TABLE:
        if chosen.table != TableConfig():
            raise ValueError('data.table is given, but data.source is "named": set data.source = "table"')
        return
    default = type(chosen)()
    wrong = next((key for key in NOT_BESIDE if getattr(chosen, key) != getattr(default, key)), None)
    if wrong is not None:
        hint = "say data.table.columns instead" if wrong == "columns" else "leave it out"
        raise ValueError(f'data.{wrong} is given, but data.source is "table": {hint}')
    if config.network.lift is not None:
        raise ValueError(f"network.lift {config.network.lift!r} needs images, but a table has none: leave it out")


def table_of(config: Config) -> Table:
    """The table that a config describes; ``ValueError`` for what cannot be meant."""
    chosen = config.data.table
    with concerning("data.table"):
        if chosen.files is None:
            raise ValueError('files is missing: give a pattern such as "sensors/{agent}.csv", or agent -> file')
        given = {key: getattr(chosen, key) for key in TableConfig.model_fields if key not in ("files", "split")}
        split = Splits(**chosen.split.model_dump())
        return Table(
            files=chosen.files, split=split, folder=Path(config.data.root or "."), cache=config.data.cache, **given
        )


def opened_table(config: Config, agents: Agents) -> OpenedTable | None:
    """The table of a config, if it has one, on the ranks of its agents, which all have to call it."""
    check_source(config)
    if config.data.source != TABLE:
        return None
    root = label_root(config, agents.graph)
    peers = TreePeers(agents)
    with peers.agreed():
        table = table_of(config)
    with concerning("data.table"):
        return open_table(table, agents.graph, agents.local.tolist(), root, peers)


def label_root(config: Config, graph: CommunicationGraph) -> int:
    """The agent that has the labels: where the readout's root is."""
    chosen = config.readout
    if chosen.root is not None:
        with concerning("readout.root"):
            return graph.agent(chosen.root)
    if chosen.at == "centre":
        return graph.centre
    with concerning("readout.at"):
        return graph.agent(chosen.at[0]) if isinstance(chosen.at, list) and chosen.at else 0


def table_samples(opened: OpenedTable, config: Config, net: HDNN, columns: Columns | None) -> TableSamples:
    """Read all of it; every rank has to call it. Raises ``ValueError`` on every rank for what is wrong on any."""
    with concerning("data.table"):
        data = opened.read(config.seed)
    assert columns is not None
    index, unit = columns.index(net.agents.local), _unit(data.statistics, net)

    def samples(part: Part) -> Samples:
        return Samples(_inputs(part.inputs, index, net), _labels(part, net), unit, part.ids)

    validation = None if data.validation is None else samples(data.validation)
    return TableSamples(samples(data.train), validation, samples(data.test), data.statistics)


def _inputs(rows: Rows, index: np.ndarray, net: HDNN) -> Tensor | StoredRows:
    stored = StoredRows(rows, np.flatnonzero(index >= 0), len(index), net.trained_weights.detach())
    return _in_memory(stored) if isinstance(rows, MemoryRows) else stored


def _labels(part: Part, net: HDNN) -> Tensor | StoredRows | None:
    """What the head's loss takes on this rank."""
    if part.targets is not None:
        if not part.targets.columns:
            return None
        stored = StoredRows(
            part.targets, np.arange(part.targets.columns), part.targets.columns, net.trained_weights.detach()
        )
        return _in_memory(stored) if isinstance(part.targets, MemoryRows) else stored
    if part.labels is None:
        return None
    dtype = net.trained_weights.dtype if part.labels.dtype.kind == "f" else torch.int64
    return torch.as_tensor(part.labels, dtype=dtype, device=net.trained_weights.device)


def _unit(statistics: Statistics, net: HDNN) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of what is predicted on this rank, in the order of its agents."""
    scaled = [statistics[agent] for agent in sorted(statistics) if "target_mean" in statistics[agent]]
    if not scaled:
        return None
    mean, std = (np.concatenate([own[name] for own in scaled]) for name in ("target_mean", "target_std"))
    return torch.as_tensor(mean).to(net.trained_weights.detach()), torch.as_tensor(std).to(net.trained_weights.detach())


def _in_memory(stored: StoredRows) -> Tensor:
    return stored[:]
