"""How many tiles are in flight: the choice by what an exchange and a tile cost."""

from __future__ import annotations

import pytest

from hdnn_dist import HDNN, CommunicationGraph, connect, place

flight = pytest.importorskip("hdnn_dist.kernels.cpu.flight", reason="numba is not installed")
US = 1e-6


@pytest.mark.parametrize(
    ("tiles", "latency", "message", "compute", "expected"),
    [
        (1, 1000, 1, 100, 1),  # there is no other tile
        (4, 0, 1, 100, 1),  # nothing to hide
        (4, 1, 0, 100, 1),  # nothing that is worth it
        (4, 1000, 1, 100, 4),  # all are too few
        (15, 1000, 1, 500, 3),  # two others fill the time
        (16, 10_000, 1, 1, 8),  # as many as may be
        (2, 100, 100, 1, 2),
    ],
)
def test_as_many_as_hide_the_latency(tiles: int, latency: float, message: float, compute: float, expected: int) -> None:
    costs = flight.Costs(latency * US, message * US, compute * US)
    assert flight.chosen(tiles, costs) == expected


@pytest.mark.parametrize(("width", "columns"), [(1, 32), (32, 32), (33, 64), (125, 128), (129, 128), (300, 128)])
def test_the_width_of_a_tile_depends_on_that_of_the_pass_alone(width: int, columns: int) -> None:
    assert flight.tile_of(width) == columns


@pytest.mark.parametrize("given", [(128,), (100, 2), (16, 1), (128, 0), "128x2", (128.0, 2), [128, 2]])
def test_a_flight_that_is_none(given: object) -> None:
    agents = place(CommunicationGraph.ring(4), connect("local"))
    with pytest.raises(ValueError, match=r"flight is .*: expected the columns of a tile, 32 to 1024"):
        HDNN(agents, 2, 2, flight=given)
