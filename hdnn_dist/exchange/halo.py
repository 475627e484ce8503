"""The halo: gather and scatter-add along a block pattern, as one linear operator and its adjoint.

Agent i reads block k where T_ik = 1. On a rank, the blocks its agents read are kept in one buffer of
``rows + halo_rows`` rows: first the rank's own blocks, agent after agent, then the halo, that is the
blocks that agents of other ranks own. Every column is one sample, so the operator is the same for all.

- gather: fill the halo rows with the owners' values.
- scatter-add: send the halo rows back to their owners, who add them to their own rows.

The index tables are computed once; the second operator is the first with the roles of its tables swapped.
"""

from __future__ import annotations

import numpy as np
import torch

from hdnn_dist.exchange.placement import Agents
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.patterns import Pattern
from hdnn_dist.support.arrays import ranges


class Halo:
    """Index tables of one pattern for one rank.

    ``sizes``: (agents,) rows of every agent's block, zero for agents that take no part. ``graph``: the one that holds
    while the halo is used, by default the agents'.
    ``offsets``: (agents,) first buffer row of each block that is present here, -1 for the others. ``send_rows``: the
    local rows that leave, peer after peer, and ``send_slices`` the places of each peer's among them; ``halo_slices``:
    the buffer rows that come from each peer.
    """

    def __init__(
        self, agents: Agents, pattern: Pattern, sizes: np.ndarray, graph: CommunicationGraph | None = None
    ) -> None:
        self.agents = agents
        self.sizes = sizes
        self.graph = graph or agents.graph
        readers, blocks = pattern.rows, pattern.columns
        self.gather_route = agents.ledger.route(np.column_stack([blocks, readers]), sizes[blocks], self.graph)
        self.scatter_route = agents.ledger.route(np.column_stack([readers, blocks]), sizes[blocks], self.graph)
        outgoing, incoming = self._crossing(readers, blocks)
        self.offsets = np.full(len(sizes), -1)
        present = np.concatenate([agents.local, incoming[:, 1]])
        self.offsets[present] = np.cumsum(sizes[present]) - sizes[present]
        self.rows = int(sizes[agents.local].sum())
        self.halo_rows = int(sizes[incoming[:, 1]].sum())
        self.send_rows = ranges(self.offsets[outgoing[:, 1]], sizes[outgoing[:, 1]])
        self.send_slices = _slices(outgoing, sizes, start=0)
        self.halo_slices = _slices(incoming, sizes, start=self.rows)

    def _crossing(self, readers: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(peer, block) pairs that leave and that enter this rank, sorted, each block once per peer."""
        owner, rank = self.agents.owner, self.agents.world.rank
        leaves = (owner[blocks] == rank) & (owner[readers] != rank)
        enters = (owner[readers] == rank) & (owner[blocks] != rank)
        outgoing = np.column_stack([owner[readers], blocks])[leaves]
        incoming = np.column_stack([owner[blocks], blocks])[enters]
        return np.unique(outgoing, axis=0), np.unique(incoming, axis=0)

    def buffer(self, width: int, dtype: torch.dtype) -> HaloBuffer:
        """A buffer for ``width`` columns, with its channels."""
        return HaloBuffer(self, width, dtype)


def _slices(pairs: np.ndarray, sizes: np.ndarray, start: int) -> dict[int, slice]:
    """Buffer rows of each peer: ``pairs`` (P, 2) peer and block, sorted by peer; nothing for peers without rows."""
    slices = {}
    for peer in np.unique(pairs[:, 0]).tolist():
        stop = start + int(sizes[pairs[pairs[:, 0] == peer, 1]].sum())
        if stop > start:
            slices[peer] = slice(start, stop)
        start = stop
    return slices


class HaloBuffer:
    """A buffer ``data`` of (rows + halo rows, width) and the two exchanges that act on it in place.

    Each can begin and end apart, so that what needs no other rank is computed while the halo travels.
    """

    @torch.inference_mode(False)  # what is made for an evaluation is written in training too
    def __init__(self, halo: Halo, width: int, dtype: torch.dtype) -> None:
        world = halo.agents.world
        self.data = torch.zeros(halo.rows + halo.halo_rows, width, dtype=dtype, device=world.device)
        self.local = self.data[: halo.rows]
        self.halo = self.data[halo.rows :]
        self._row_bytes = width * self.data.element_size()
        self._send_rows = torch.as_tensor(halo.send_rows, device=world.device)
        self._packed = self.data.new_empty(len(halo.send_rows), width)
        packed = {peer: self._packed[rows] for peer, rows in halo.send_slices.items()}
        halos = {peer: self.data[rows] for peer, rows in halo.halo_slices.items()}
        self.gathering = halo.agents.channel(halo.gather_route, sends=packed, receives=halos)
        self._scattering = halo.agents.channel(halo.scatter_route, sends=halos, receives=packed)

    def gather(self) -> None:
        """Fill the halo rows from the owners' local rows."""
        self.begin_gather()
        self.end_gather()

    def begin_gather(self) -> None:
        """Until ``end_gather`` local rows may be read, the halo may not be touched."""
        if len(self._packed):
            torch.index_select(self.local, 0, self._send_rows, out=self._packed)
        self.gathering.begin(self._row_bytes)

    def end_gather(self) -> None:
        """From here on the halo rows have the owners' values."""
        self.gathering.end()

    def scatter_add(self) -> None:
        """Add the halo rows to the owners' local rows: the adjoint of ``gather``. The halo rows keep their values."""
        self.begin_scatter_add()
        self.end_scatter_add()

    def begin_scatter_add(self) -> None:
        """Until ``end_scatter_add`` local rows may be written, the halo may not."""
        self._scattering.begin(self._row_bytes)

    def end_scatter_add(self) -> None:
        """From here on the local rows have what other ranks return."""
        self._scattering.end()
        if len(self._packed):
            self.local.index_add_(0, self._send_rows, self._packed)
