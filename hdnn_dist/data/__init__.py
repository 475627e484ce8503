"""Data sets, the order of their samples, and which agent sees which column."""

from __future__ import annotations

from hdnn_dist.data.columns import Columns
from hdnn_dist.data.dataset import SOURCES, Dataset, batches, describe, load, local_features, shuffled
from hdnn_dist.data.source import Description, GraphSource, Request, Source, Split

__all__ = [
    "SOURCES",
    "Columns",
    "Dataset",
    "Description",
    "GraphSource",
    "Request",
    "Source",
    "Split",
    "batches",
    "describe",
    "load",
    "local_features",
    "shuffled",
]
