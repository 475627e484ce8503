"""The architectures as half-steps, and the portable pass through them: what every kernel is checked against."""

from hdnn_dist.propagation.architectures import ARCHITECTURES, Architecture, HalfStep, Operator
from hdnn_dist.propagation.linear_map import Coefficients
from hdnn_dist.propagation.vector_fields import Direct, Gradient, Pointwise, Skew, Transposed, VectorField

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Coefficients",
    "Direct",
    "Gradient",
    "HalfStep",
    "Operator",
    "Pointwise",
    "Skew",
    "Transposed",
    "VectorField",
]
