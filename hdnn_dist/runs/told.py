"""A text of any length, told by the root's rank to all along the tree."""

from __future__ import annotations

import torch

from hdnn_dist.exchange.sum_tree import SumTree


def told_text(tree: SumTree, text: str) -> str:
    """The text of the root's rank, on every rank, which all have to call it. Its length goes first."""
    if tree.agents.world.size == 1:
        return text
    device = tree.agents.world.device
    codes = torch.tensor(list(text.encode() if tree.is_root else b""), dtype=torch.float64, device=device)
    length = int(tree.sum(torch.tensor([float(len(codes))], dtype=torch.float64, device=device)))
    told = torch.zeros(length, dtype=torch.float64, device=device)
    told[: len(codes)] = codes
    return bytes(tree.sum(told).to(torch.uint8).cpu().tolist()).decode() if length else ""
