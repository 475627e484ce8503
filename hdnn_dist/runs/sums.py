"""A checksum beside each tensor of a file, so that a flipped byte is found by whoever reads the tensor."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

SUM = "crc32 "


def sums_of(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """CRC-32 of each tensor on the processor, of any shape, as the metadata of its file."""
    return {SUM + name: _sum(part) for name, part in tensors.items()}


def refuse_damaged(part: Tensor, name: str, metadata: Mapping[str, str], path: Path) -> Tensor:
    """The tensor, of any shape; ``ValueError`` unless it has its checksum, where the file has one for it."""
    if metadata.get(SUM + name, found := _sum(part)) != found:
        raise ValueError(f"{path} is damaged: {name} in it does not have its checksum; use another checkpoint")
    return part


def _sum(part: Tensor) -> str:
    return str(zlib.crc32(part.contiguous().flatten().view(torch.uint8).numpy().data))
