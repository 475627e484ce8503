"""The IEEE test cases of power grids in pandapower, as graphs: a bus is an agent, a line or transformer an edge.

https://pandapower.readthedocs.io/en/latest/networks/power_system_test_cases.html
"""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import numpy as np

from hdnn_dist.graph.communication import CommunicationGraph

CASES = {14: "case14", 30: "case_ieee30", 57: "case57", 118: "case118"}
"""Buses -> the name of the case in pandapower."""


def pandapower() -> ModuleType:
    """The library; ValueError where it is not installed."""
    try:
        import pandapower
        import pandapower.networks
    except ImportError as error:
        raise ValueError(
            f"power flows are solved by pandapower, which cannot be imported ({error}): pip install 'hdnn-dist[power]'"
        ) from None
    return pandapower


def case_of(buses: int) -> Any:
    """pandapower's net of an IEEE case, its buses numbered from 0; ValueError for a case that is not there."""
    if buses not in CASES:
        raise ValueError(f"there is no IEEE case of {buses} buses here: take one of {', '.join(map(str, CASES))}")
    return getattr(pandapower().networks, CASES[buses])()


def grid(buses: int) -> CommunicationGraph:
    """The graph of an IEEE case of 14, 30, 57 or 118 buses; labels are the numbers of the buses, from 1.

    Parallel lines are one edge. ValueError for another case, and without pandapower.
    """
    net = case_of(buses)
    ends = np.concatenate([net.line[["from_bus", "to_bus"]], net.trafo[["hv_bus", "lv_bus"]]]).astype(np.int64)
    return CommunicationGraph(
        buses,
        np.unique(np.sort(ends, axis=1), axis=0),
        name=f"IEEE {buses}",
        positions=[json.loads(point)["coordinates"] for point in net.bus.geo],
        labels=[str(bus + 1) for bus in range(buses)],
    )
