"""Named communication graphs, and the one way to write them: ``ring:8``, ``grid:8x8``, ``erdos_renyi:20,0.3,0``.

Every generator returns a Topology whose name is its own spec. Grid and torus are numbered row by row.
Random draws depend on the seed and on networkx's version.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from hdnn_dist.graph.positions import circle, cliques, lattice
from hdnn_dist.support.arguments import seed_number, shown

MOST_EDGES = 2**20  # a slip such as hypercube:80 is refused before it fills the memory


class Topology(NamedTuple):
    """What a CommunicationGraph is made of; ``edges`` (E, 2), ``positions`` (agents, 2) in the plane, or None.

    ``labels``: what people call each agent, or None where that is its number.
    """

    name: str
    agents: int
    edges: NDArray[np.int64]
    positions: NDArray[np.float64] | None = None
    labels: tuple[str, ...] | None = None


def ring(n: int) -> Topology:
    """Each agent joined with the next one, the last with the first."""
    name = _name("ring", n)
    _require(name, 3, "for one or two agents use path", n=n)
    _require_size(name, n)
    return _topology(name, nx.cycle_graph(n), circle(n))


def path(n: int) -> Topology:
    """A line of agents."""
    name = _name("path", n)
    _require(name, 1, n=n)
    _require_size(name, n)
    return _topology(name, nx.path_graph(n))


def grid(rows: int, columns: int) -> Topology:
    """Agent (r, c) is number r * columns + c and has up to four neighbours; row 0 is drawn at the top."""
    name = _name("grid", rows, columns, separator="x")
    _require(name, 1, rows=rows, columns=columns)
    _require_size(name, 2 * rows * columns)
    return _topology(name, nx.grid_2d_graph(rows, columns), lattice(rows, columns))


def torus(rows: int, columns: int) -> Topology:
    """A grid whose opposite sides are joined."""
    name = _name("torus", rows, columns, separator="x")
    _require(name, 3, "with fewer the wrap-around would double an edge: use grid", rows=rows, columns=columns)
    _require_size(name, 2 * rows * columns)
    return _topology(name, nx.grid_2d_graph(rows, columns, periodic=True), lattice(rows, columns))


def star(n: int) -> Topology:
    """Agent 0 joined with all others; n counts them all."""
    name = _name("star", n)
    _require(name, 1, n=n)
    _require_size(name, n)
    return _topology(name, nx.star_graph(n - 1))


def complete(n: int) -> Topology:
    """Every agent joined with every other."""
    name = _name("complete", n)
    _require(name, 1, n=n)
    _require_size(name, n * (n - 1) // 2)
    return _topology(name, nx.complete_graph(n), circle(n))


def tree(branching: int, depth: int) -> Topology:
    """A balanced tree, agent 0 its root, numbered level by level."""
    name = _name("tree", branching, depth, separator="x")
    _require(name, 1, branching=branching)
    _require(name, 0, depth=depth)
    _require_size(name, depth if branching == 1 else branching ** min(depth, 64))
    return _topology(name, nx.balanced_tree(branching, depth))


def hypercube(dimension: int) -> Topology:
    """2^dimension agents, joined where their binary numbers differ in one digit."""
    name = _name("hypercube", dimension)
    _require(name, 0, dimension=dimension)
    _require_size(name, dimension * 2 ** min(dimension, 64) // 2)
    agents = np.arange(2**dimension)
    edges = [np.column_stack([agents, agents ^ (1 << bit)])[agents & (1 << bit) == 0] for bit in range(dimension)]
    return Topology(name, len(agents), np.concatenate([np.empty((0, 2), np.int64), *edges]))


def exponential(n: int) -> Topology:
    """Agent i joined with i + 2^k modulo n for every k with 2^k < n, in both directions."""
    name = _name("exponential", n)
    _require(name, 1, n=n)
    _require_size(name, n * int(n).bit_length())
    offsets = [2**k for k in range((n - 1).bit_length())]
    return _topology(name, nx.circulant_graph(n, offsets), circle(n))


def erdos_renyi(n: int, p: float, seed: int = 0) -> Topology:
    """Every pair of agents joined with probability p, in time n^2. ValueError if not connected."""
    name = _name("erdos_renyi", n, p, seed)
    _require(name, 1, n=n)
    seed = seed_number(seed, f"{name}: seed")
    _require_probability(name, p)
    _require_size(name, n)
    _require_size(name, int(p * n * (n - 1) / 2))
    return _drawn(name, nx.erdos_renyi_graph(n, p, seed=seed), "raise p")


def watts_strogatz(n: int, k: int, p: float, seed: int = 0) -> Topology:
    """A ring of agents joined with their k nearest, each edge moved with probability p, or ValueError."""
    name = _name("watts_strogatz", n, k, p, seed)
    _require(name, 3, n=n)
    _require(name, 2, k=k)
    seed = seed_number(seed, f"{name}: seed")
    _require_probability(name, p)
    if k % 2 or k >= n:
        raise ValueError(f"{name}: k is {k}, expected an even number below n = {n}: k / 2 neighbours on each side")
    _require_size(name, n * k // 2)
    return _drawn(name, nx.watts_strogatz_graph(n, k, p, seed=seed), "raise k")


def random_regular(degree: int, n: int, seed: int = 0) -> Topology:
    """A random graph in which every agent has ``degree`` neighbours. ValueError if it is not connected."""
    name = _name("random_regular", degree, n, seed)
    _require(name, 1, degree=degree)
    _require(name, 2, n=n)
    seed = seed_number(seed, f"{name}: seed")
    if degree >= n or degree * n % 2:
        raise ValueError(
            f"{name}: no such graph, expected degree < n and an even degree * n (now {degree * n}); change degree or n"
        )
    _require_size(name, degree * n // 2)
    return _drawn(name, nx.random_regular_graph(degree, n, seed=seed), "raise degree")


def barbell(clique: int, path: int) -> Topology:
    """Two cliques and a path of agents between them, numbered from one end to the other."""
    name = _name("barbell", clique, path)
    _require(name, 2, clique=clique)
    _require(name, 0, path=path)
    _require_size(name, clique * (clique - 1) + path + 1)
    return _topology(name, nx.barbell_graph(clique, path), cliques(clique, path, clique))


def lollipop(clique: int, path: int) -> Topology:
    """A clique and a path of agents that begins at its last one, numbered from one end to the other."""
    name = _name("lollipop", clique, path)
    _require(name, 2, clique=clique)
    _require(name, 0, path=path)
    _require_size(name, clique * (clique - 1) // 2 + path)
    return _topology(name, nx.lollipop_graph(clique, path), cliques(clique, path, 0))


def crossed_ring(n: int) -> Topology:
    """A ring in which agents are neighbours wherever their distances from agent 0 differ by one, on either side.

    Agents i and n - i are equally far from agent 0, and as far as they are on the ring. Source: Di Giovanni et al., "On
    over-squashing in message passing neural networks", 2023, the graph of their task CrossedRing.
    """
    name = _name("crossed_ring", n)
    _require(name, 4, n=n)
    if n % 2:
        raise ValueError(f"{name}: n is {n}, expected an even number: as many agents on one side as on the other")
    _require_size(name, 2 * n)
    sides = [[0], *([i, n - i] for i in range(1, n // 2)), [n // 2]]
    edges = [(i, k) for near, far in pairwise(sides) for i in near for k in far]
    return Topology(name, n, np.array(edges, dtype=np.int64), circle(n))


# Each generator with its numbers in an example; ``x`` there means that ``x`` separates them.
GENERATORS: dict[str, tuple[Callable[..., Topology], str]] = {
    "ring": (ring, "8"),
    "path": (path, "8"),
    "grid": (grid, "8x8"),
    "torus": (torus, "7x7"),
    "star": (star, "8"),
    "complete": (complete, "8"),
    "tree": (tree, "2x3"),
    "hypercube": (hypercube, "3"),
    "exponential": (exponential, "8"),
    "erdos_renyi": (erdos_renyi, "20,0.3,0"),
    "watts_strogatz": (watts_strogatz, "20,4,0.2,1"),
    "random_regular": (random_regular, "3,10,0"),
    "barbell": (barbell, "10,5"),
    "lollipop": (lollipop, "10,5"),
    "crossed_ring": (crossed_ring, "8"),
}


def parse(spec: str) -> Topology:
    """The topology of ``NAME:NUMBERS``, spaces allowed around the numbers. ValueError names the nearest."""
    name, _, numbers = spec.partition(":")
    name = name.strip()
    if name not in GENERATORS:
        raise ValueError(_unknown(spec, name))
    return GENERATORS[name][0](*_numbers(spec, name, numbers))


def _numbers(spec: str, name: str, text: str) -> list[int | float]:
    generator, example = GENERATORS[name]
    words = inspect.signature(generator).parameters
    parts = text.split("x" if "x" in example else ",")
    least = sum(word.default is inspect.Parameter.empty for word in words.values())
    try:
        numbers = [_number(part) for part in parts]
    except ValueError:
        numbers = []
    if not least <= len(numbers) <= len(words):
        raise ValueError(
            f"topology {spec!r}: {name} takes the numbers {', '.join(words)}; for example {name}:{example}"
        )
    return numbers


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _unknown(spec: str, name: str) -> str:
    near = difflib.get_close_matches(name, GENERATORS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}:{GENERATORS[near[0]][1]}? " if near else ""
    return (
        f"unknown topology {spec!r}: {hint}expected NAME:NUMBERS like ring:8, grid:8x8, erdos_renyi:20,0.3; "
        f"NAME is one of {', '.join(GENERATORS)}; or a file "
        "(.edges, .txt, .edgelist, .csv, .graphml, .json, .gml, .net, .m)"
    )


def _name(kind: str, *numbers: object, separator: str = ",") -> str:
    """The spec of a topology, on one line and not without end, whatever was given for its numbers."""
    return f"{kind}:{separator.join(' '.join(f'{number}'.split())[:40] for number in numbers)}"


def _topology(name: str, graph: nx.Graph, positions: NDArray[np.float64] | None = None) -> Topology:
    """Number the agents in the graph's own order."""
    numbered = nx.convert_node_labels_to_integers(graph)
    return Topology(name, len(numbered), np.array(numbered.edges, dtype=np.int64).reshape(-1, 2), positions)


def _drawn(name: str, graph: nx.Graph, mend: str) -> Topology:
    components = nx.number_connected_components(graph)
    if components > 1:
        raise ValueError(f"{name} drew a disconnected graph of {components} components; {mend} or change the seed")
    return _topology(name, graph)


def _require(name: str, least: int, hint: str = "", **numbers: int) -> None:
    for word, value in numbers.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            ending = f"; {hint}" if hint else ""
            raise ValueError(f"{name}: {word} is {shown(value)}, expected an integer of at least {least}{ending}")


def _require_probability(name: str, p: float) -> None:
    if not isinstance(p, int | float | np.number) or isinstance(p, bool) or not 0 <= p <= 1:
        raise ValueError(f"{name}: p is {shown(p)}, expected a probability from 0 to 1")


def _require_size(name: str, edges: int) -> None:
    if edges > MOST_EDGES:
        raise ValueError(f"{name} would have more than {MOST_EDGES} edges; use a smaller graph")
