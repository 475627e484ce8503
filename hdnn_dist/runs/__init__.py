"""What stays on the disk of a training."""

from hdnn_dist.runs.checkpoint import load_weights, save_weights
from hdnn_dist.runs.folder import RunFolder
from hdnn_dist.runs.summary import summarise

__all__ = ["RunFolder", "load_weights", "save_weights", "summarise"]
