"""What a pass stops for when it is not done, and what is done about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from hdnn_dist.exchange.links import Patience
from hdnn_dist.exchange.world import TransportError
from hdnn_dist.kernels.cpu.exchanges import DONE, MISFIT, POST
from hdnn_dist.kernels.cpu.messages import Messages
from hdnn_dist.propagation.architectures import HalfStep

DIRECTIONS = {"forward": "forward pass", "backward": "backward pass"}


class Waiting:
    """Of one pass.

    ``code``: (instructions,), ``sections``: (sections,) of its program; ``lanes``: (tiles in flight,) ``LANE``;
    ``widths``: columns of the pass, and of a tile.
    """

    def __init__(
        self, messages: Messages, code: np.ndarray, sections: np.ndarray, lanes: np.ndarray, widths: tuple[int, int]
    ) -> None:
        self._messages, self._code, self._sections, self._lanes = messages, code, sections, lanes
        self._widths, self._lane, self._at = widths, 0, (-1, -1, -1)
        self._patience = Patience(messages.links, self._failure)

    def through(self, stopped: tuple[int, int], go_on: Callable[[], tuple[int, int]]) -> None:
        """To the end of the pass; ``go_on`` goes as far as it can, and says what it stopped for."""
        while stopped[0] != DONE:
            self.serve(*stopped)
            stopped = go_on()
        self._messages.end()

    def serve(self, reason: int, message: int) -> None:
        """What the pass stopped for. Raises ``TransportError`` where it cannot go on."""
        _, self._lane, peer = self._messages.of(message)
        lane, (width, columns) = self._lanes[self._lane], self._widths
        samples = min(columns, width - int(lane["tile"]) * columns)
        if reason == POST:
            self._messages.start(message, samples)
        elif reason == MISFIT:
            raise self._failure(peer, "its message has another size than was expected")
        elif peer in self._messages.links.segments:
            self._look(peer, (int(lane["tile"]), int(lane["section"]), message))
        else:
            self._messages.finish(message, samples)

    def _look(self, peer: int, at: tuple[int, int, int]) -> None:
        if at != self._at:
            self._patience.came()
        self._at = at
        self._patience.look(peer)

    @contextmanager
    def named(self, kind: str, layer: Sequence[HalfStep]) -> Iterator[None]:
        """Errors say in which pass, layer and half-step."""
        try:
            yield
        except TransportError as error:
            lane = self._lanes[self._lane]
            number = int(self._sections[min(int(lane["section"]), len(self._sections) - 1)]["layer"])
            half = layer[int(self._code[min(int(lane["at"]), len(self._code) - 1)]["half"]) % len(layer)]
            at = f"layer {number}, half-step {half.source} -> {half.target}"
            raise TransportError(f"{DIRECTIONS[kind]}, {at}: {error}") from error

    def _failure(self, peer: int, cause: str) -> TransportError:
        known = next(e.route for e in self._messages.exchanges if peer in e.route.peers)
        sender, receiver = known.peers[peer]
        return TransportError(f"could not exchange with rank {peer} (such as {sender} -> {receiver}): {cause}")
