"""How the blocks of K lie in memory, how they start, and how they multiply; knows no architecture."""

from hdnn_dist.weights.blocks import BlockLayout
from hdnn_dist.weights.layers import Layers, Run

__all__ = ["BlockLayout", "Layers", "Run"]
