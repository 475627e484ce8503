"""The theory as tools: conditions on graph and patterns, sensitivity matrices, their bounds, the counterexample."""

from hdnn_dist.analysis.bounds import Bounds
from hdnn_dist.analysis.conditions import Conditions
from hdnn_dist.analysis.cost import layer_cost
from hdnn_dist.analysis.lanczos import extremes
from hdnn_dist.analysis.sensitivity import Sensitivity, exact
from hdnn_dist.analysis.table import sensitivity_table

__all__ = ["Bounds", "Conditions", "Sensitivity", "exact", "extremes", "layer_cost", "sensitivity_table"]
