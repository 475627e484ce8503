"""Pictures of a run: the graph, the sparsity of K, the learning curves, the decision regions or, where numbers are
learned, what is predicted.

Every function draws on a figure of its own (no pyplot, no global state), writes a whole PNG or none, and returns its
path.
"""

from hdnn_dist.plots.curves import draw_curves
from hdnn_dist.plots.decision import draw_decision
from hdnn_dist.plots.graph import draw_graph
from hdnn_dist.plots.sparsity import draw_sparsity
from hdnn_dist.plots.surface import draw_surface

__all__ = ["draw_curves", "draw_decision", "draw_graph", "draw_sparsity", "draw_surface"]
