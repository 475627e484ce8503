"""Make a large table: a Parquet file for each agent, and one with the labels.

usage: python launch/make_table.py FOLDER [SAMPLES] [COLUMNS] [AGENTS]

Columns are standard normal numbers (float32), as many for each agent; the class of a sample says whether the sum of its
first four columns is positive. Rows of every eighth agent are in an order of their own. FOLDER/table.toml trains on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CONFIG = """graph = "ring:{agents}"
epochs = 1
batch_size = 4096

[network]
features = {features}
layers = 2

[data]
source = "table"
root = "{folder}"
cache = "{folder}/cache"

[data.table]
files = "agent{{agent}}.parquet"
labels = "labels.parquet"
split = {{ test = 0.01 }}
"""


def column(number: int, samples: int) -> np.ndarray:
    """(samples,) the values of one column of all."""
    return np.random.Generator(np.random.Philox(key=number)).standard_normal(samples, dtype=np.float32)


def write(path: Path, ids: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """One file; ``ids``: (samples,), and (samples,) of each column."""
    table = pa.table({"id": ids, **columns})
    pq.write_table(
        table, path, row_group_size=1 << 18, use_dictionary=False, column_encoding={"id": "DELTA_BINARY_PACKED"}
    )


def make(folder: Path, samples: int, columns: int, agents: int) -> Path:
    """All files; the path of the config."""
    folder.mkdir(parents=True, exist_ok=True)
    each, ids = columns // agents, np.arange(samples)
    for agent in range(agents):
        own = {f"x{c}": column(c, samples) for c in range(agent * each, (agent + 1) * each)}
        order = np.random.default_rng(agent).permutation(samples) if agent % 8 == 5 else slice(None)
        write(folder / f"agent{agent}.parquet", ids[order], {name: values[order] for name, values in own.items()})
    total = sum(column(c, samples) for c in range(min(4, columns)))
    write(folder / "labels.parquet", ids, {"label": (total > 0).astype(np.int8)})
    path = folder / "table.toml"
    features = max(2, each + each % 2)
    path.write_text(CONFIG.format(agents=agents, features=features, folder=folder), encoding="utf-8")
    return path


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    samples, columns, agents = [*map(int, sys.argv[2:]), *(10_000_000, 64, 64)[len(sys.argv) - 2 :]]
    print(make(Path(sys.argv[1]), samples, columns, agents))
