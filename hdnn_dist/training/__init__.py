"""From a config file to a trained network."""

from hdnn_dist.training.config import Config, ConfigError
from hdnn_dist.training.config_files import load_config
from hdnn_dist.training.divergence import DivergenceError
from hdnn_dist.training.job import Job
from hdnn_dist.training.loop import Trainer
from hdnn_dist.training.peers import TreePeers
from hdnn_dist.training.regularization import SpectralProjection, smoothness, weight_penalty

__all__ = [
    "Config",
    "ConfigError",
    "DivergenceError",
    "Job",
    "SpectralProjection",
    "Trainer",
    "TreePeers",
    "load_config",
    "smoothness",
    "weight_penalty",
]
