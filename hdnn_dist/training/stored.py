"""Samples that stay on the disk, as ``training.job.Samples`` takes them in the place of a tensor."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.data.tables.rows import Rows


class StoredRows:
    """(samples, width): rows of a file, whose columns (columns,) go to the places ``at``; elsewhere are zeros."""

    def __init__(self, rows: Rows, at: np.ndarray, width: int, like: Tensor) -> None:
        self._rows, self._like = rows, like
        self._at = torch.as_tensor(at, device=like.device)
        self.shape = torch.Size([len(rows), width])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, some: slice) -> Tensor:
        """(some samples, width), read at once."""
        return self.index_select(0, torch.arange(len(self))[some])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """(batch, width) the samples of an index (batch,), as ``Tensor.index_select``; ``dim`` is 0."""
        assert dim == 0
        read = torch.as_tensor(self._rows.read(index.cpu().numpy())).to(self._like)
        if len(self._at) == self.shape[1]:
            return read[:, self._at] if (self._at.diff() != 1).any() else read
        batch = read.new_zeros(len(index), self.shape[1])
        batch[:, self._at] = read
        return batch
