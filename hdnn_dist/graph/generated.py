"""The named graphs as constructors of ``CommunicationGraph``: what ``parse`` makes of a spec, called by name."""

from __future__ import annotations

from typing import Self

from hdnn_dist.graph import topologies


class GeneratedGraphs:
    """Constructors that its subclass makes of a ``Topology``, with ``_of``."""

    @classmethod
    def ring(cls, n: int) -> Self:
        """Each agent joined with the next one, the last with the first; n >= 3."""
        return cls._of(topologies.ring(n))

    @classmethod
    def path(cls, n: int) -> Self:
        """A line of n agents."""
        return cls._of(topologies.path(n))

    @classmethod
    def grid(cls, rows: int, columns: int) -> Self:
        """A grid, its agents numbered row by row."""
        return cls._of(topologies.grid(rows, columns))

    @classmethod
    def torus(cls, rows: int, columns: int) -> Self:
        """A grid whose opposite sides are joined; at least 3 x 3."""
        return cls._of(topologies.torus(rows, columns))

    @classmethod
    def star(cls, n: int) -> Self:
        """Agent 0 joined with n - 1 others."""
        return cls._of(topologies.star(n))

    @classmethod
    def complete(cls, n: int) -> Self:
        """Every agent joined with every other."""
        return cls._of(topologies.complete(n))

    @classmethod
    def tree(cls, branching: int, depth: int) -> Self:
        """A balanced tree with agent 0 at its root."""
        return cls._of(topologies.tree(branching, depth))

    @classmethod
    def hypercube(cls, dimension: int) -> Self:
        """2^dimension agents, joined where their binary numbers differ in one digit."""
        return cls._of(topologies.hypercube(dimension))

    @classmethod
    def exponential(cls, n: int) -> Self:
        """Agent i joined with i + 2^k modulo n, for every k with 2^k < n."""
        return cls._of(topologies.exponential(n))

    @classmethod
    def erdos_renyi(cls, n: int, p: float, seed: int = 0) -> Self:
        """Every pair joined with probability p; ValueError if the draw is not connected."""
        return cls._of(topologies.erdos_renyi(n, p, seed))

    @classmethod
    def watts_strogatz(cls, n: int, k: int, p: float, seed: int = 0) -> Self:
        """A ring of k nearest neighbours (k even), each edge moved with probability p, or ValueError."""
        return cls._of(topologies.watts_strogatz(n, k, p, seed))

    @classmethod
    def random_regular(cls, degree: int, n: int, seed: int = 0) -> Self:
        """A random graph of n agents with ``degree`` neighbours each; ValueError as above."""
        return cls._of(topologies.random_regular(degree, n, seed))

    @classmethod
    def barbell(cls, clique: int, path: int) -> Self:
        """Two cliques, joined by a path of so many agents between them."""
        return cls._of(topologies.barbell(clique, path))

    @classmethod
    def lollipop(cls, clique: int, path: int) -> Self:
        """A clique with a path of so many agents at its last one."""
        return cls._of(topologies.lollipop(clique, path))

    @classmethod
    def crossed_ring(cls, n: int) -> Self:
        """A ring whose two sides, from agent 0 to the one opposite, cross over at every step; n even."""
        return cls._of(topologies.crossed_ring(n))

    @classmethod
    def _of(cls, topology: topologies.Topology) -> Self:
        raise NotImplementedError
