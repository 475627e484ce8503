"""Data sets, the order of their samples, and which agent sees which column."""

from __future__ import annotations

from hdnn_dist.data.class_transfer import ClassTransfer
from hdnn_dist.data.columns import Columns
from hdnn_dist.data.dataset import SOURCES, Dataset, batches, describe, load, local_features, shuffled
from hdnn_dist.data.source import Description, GraphSource, Request, Source, Split
from hdnn_dist.data.tables.parts import Part, TableData
from hdnn_dist.data.tables.reading import OpenedTable, open_table
from hdnn_dist.data.tables.spec import Splits, Table

__all__ = [
    "SOURCES",
    "ClassTransfer",
    "Columns",
    "Dataset",
    "Description",
    "GraphSource",
    "OpenedTable",
    "Part",
    "Request",
    "Source",
    "Split",
    "Splits",
    "Table",
    "TableData",
    "batches",
    "describe",
    "load",
    "local_features",
    "open_table",
    "shuffled",
]
