"""A safetensors file written piece by piece, with its checksum.

The library's own ``save_file`` takes all tensors as bytes objects, a second copy that is made while no other thread of
Python runs: training would stand still for it. Here a thread beside training writes each tensor from where it lies.

Format: 8 bytes, the length of a header; the header, JSON; the numbers. https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdnn_dist.support.files import durable_file

NAMES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.bool: "BOOL", torch.uint8: "U8"}
AT_ONCE = 1 << 22  # bytes that are handed on together


def write_shard(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[int, int]:
    """Write tensors of any shape, on the CPU, views or not; bytes and CRC-32 of the file, which is whole or absent."""
    size = crc = 0
    with durable_file(path) as file:
        for piece in _pieces(tensors, metadata):
            file.write(piece)
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return size, crc


def _pieces(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[memoryview]:
    yield memoryview(_header(tensors, metadata))
    for tensor in tensors.values():
        content = tensor.contiguous().view(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")
        for start in range(0, len(content), AT_ONCE):
            yield content[start : start + AT_ONCE]


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    about: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        about[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    header = json.dumps(about).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header
