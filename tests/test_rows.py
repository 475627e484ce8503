"""Rows that come batch by batch."""

from __future__ import annotations

import pytest
import torch

from hdnn_dist.support.rows import Rows, joined


@pytest.mark.parametrize("sizes", [(1,), (3, 1, 4), (2,) * 9, (0, 2), (5, 0)])
def test_as_concatenated(sizes: tuple[int, ...]) -> None:
    parts = [torch.randn(size, 2, dtype=torch.float64) for size in sizes]
    assert torch.equal(joined(iter(parts)), torch.cat(parts))
    assert torch.equal(joined(part[:, 0] for part in parts), torch.cat(parts)[:, 0])


def test_no_part_is_kept_or_changed() -> None:
    rows, part = Rows(), torch.zeros(2, 1)
    for number in range(3):
        rows.append(part.fill_(number))
    assert rows.all().flatten().tolist() == [0, 0, 1, 1, 2, 2]
    assert len(rows) == 6
    with pytest.raises(ValueError, match="no rows"):
        Rows().all()
