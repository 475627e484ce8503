"""The published experiments: tables of configs, trained cell by cell."""

from hdnn_dist.experiments.catalogue import EXPERIMENTS, experiment_named

__all__ = ["EXPERIMENTS", "experiment_named"]
