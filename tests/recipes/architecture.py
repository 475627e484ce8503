"""Recipe: an architecture. One file: its half-steps, under a name. Leapfrog: half a step of p, one of q, half of p."""

from dataclasses import replace

from hdnn_dist.propagation.architectures import ARCHITECTURES, H2

towards_p, towards_q = H2.layer
half_of_p = replace(towards_p, factor=0.5 * towards_p.factor)
ARCHITECTURES["leapfrog"] = replace(H2, name="leapfrog", layer=(half_of_p, towards_q, half_of_p))
