"""Random states of a power grid: loads and generation around those of the case, and the AC power flow of each.

All loads and generators of a state share one factor; each bus with loads, and each generator, has another of its own.
Voltage set points move a little, each by itself. Beside the AC power flow stands the linear, so-called DC, one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from hdnn_dist.data.power_cases import case_of, pandapower

COMMON = 0.4  # full width of the factor that all loads and generators share
SET_POINTS = 0.04  # full width, per unit, of what is added to a voltage set point
PATIENCE = 50  # states in a row that do not converge before we give up
KNOWN = ("active power", "reactive power", "voltage set point")
SOLVED = ("voltage magnitude", "voltage angle", "DC voltage angle")
VALUES = (*KNOWN, *SOLVED)
"""Of each bus, in this order: MW and Mvar drawn from the grid (the slack bus: by its loads), the set point in per unit
(0 where there is none), then what was solved: per unit, degrees, degrees."""

Values = npt.NDArray[np.float64]


def states(buses: int, samples: int, spread: float, seed: int) -> Iterator[Values]:
    """One state after the other, (buses, values) each, see ``VALUES``. ``spread``: width of the factors of their own.

    ValueError for a case that is not there, without pandapower, and where no state converges.
    """
    grid = _Grid(buses)
    rng = np.random.Generator(np.random.Philox(seed))
    for _ in range(samples):
        yield _converged(grid, spread, rng)


def _converged(grid: _Grid, spread: float, rng: np.random.Generator) -> Values:
    for _ in range(PATIENCE):
        grid.draw(spread, rng)
        if grid.solve():
            return grid.state()
    raise ValueError(
        f"{PATIENCE} states of IEEE {grid.buses} in a row have no power flow: the loads differ too much at "
        f"data.noise = {spread}; take less"
    )


class _Grid:
    """A case whose loads, generators and set points are moved.

    pandapower builds the admittances once, in ``runpp``, and its Newton solver finds each state from a flat start: as
    ``runpp`` does, without writing tables in between, which takes half as long again.
    """

    def __init__(self, buses: int) -> None:
        library, net = pandapower(), case_of(buses)
        self.buses = buses
        self._linear = _LinearFlow(library, net)
        library.runpp(net)
        self._solver, self._options = library.pypower.newtonpf.newtonpf, net._options
        self._case = {**net._ppc, **net._ppc["internal"]}
        self._first = _Drawn(net)
        self._held = set_points(net)
        self._slack = np.exp(1j * np.deg2rad(net.ext_grid.va_degree.to_numpy()[0]))
        self._unit = net.sn_mva

    def draw(self, spread: float, rng: np.random.Generator) -> None:
        """Move power (buses, 2), in MW and Mvar, and set points (buses,)."""
        common, buses = _factors(rng, COMMON, 1), len(self._held)
        loads, generators = common * _factors(rng, spread, buses), common * _factors(rng, spread, buses)
        self.power = self._first.power(loads, generators)
        moved = self._held + _factors(rng, SET_POINTS, buses) - 1
        self.set_points = np.where(self._held > 0, moved, 0.0)

    def solve(self) -> bool:
        """Whether Newton's method converges."""
        case = self._case
        flat = np.where(self.set_points > 0, self.set_points, 1.0) * self._slack
        injected = -(self.power[:, 0] + 1j * self.power[:, 1]) / self._unit
        self._voltage, converged, *_ = self._solver(
            case["Ybus"], injected, flat, case["ref"], case["pv"], case["pq"], case, self._options
        )
        return bool(converged)

    def state(self) -> Values:
        """(buses, values), see ``VALUES``."""
        solved = np.abs(self._voltage), np.angle(self._voltage, deg=True), self._linear.angles(self.power[:, 0])
        return np.column_stack([self.power, self.set_points, *solved])


class _Drawn:
    """What loads draw and generators give in the case itself, (buses, 2) and (buses,), MW and Mvar."""

    def __init__(self, net: Any) -> None:
        self._loads, self._generated = np.zeros((len(net.bus), 2)), np.zeros(len(net.bus))
        np.add.at(self._loads, net.load.bus.to_numpy(), net.load[["p_mw", "q_mvar"]].to_numpy())
        np.add.at(self._generated, net.gen.bus.to_numpy(), net.gen.p_mw.to_numpy())

    def power(self, loads: Values | float = 1.0, generators: Values | float = 1.0) -> Values:
        """(buses, 2) drawn from the grid, with factors (buses,); what generators do in Mvar is not known before."""
        power = (self._loads.T * loads).T
        power[:, 0] -= self._generated * generators
        return power


class _LinearFlow:
    """The DC power flow: angles are linear in active power, with the slack bus at its own angle."""

    def __init__(self, library: Any, net: Any) -> None:
        library.rundcpp(net)
        self._base, self._power = net.res_bus.va_degree.to_numpy().copy(), _Drawn(net).power()[:, 0]
        order = net._pd2ppc_lookups["bus"][net.bus.index.to_numpy()]
        susceptance = net._ppc["internal"]["Bbus"].toarray()[np.ix_(order, order)]
        self._free = np.setdiff1d(np.arange(len(net.bus)), net.ext_grid.bus)
        self._per_power = np.rad2deg(np.linalg.inv(susceptance[np.ix_(self._free, self._free)] * net.sn_mva))

    def angles(self, power: Values) -> Values:
        """(buses,) degrees, from the active power in MW that each draws."""
        angles = self._base.copy()
        angles[self._free] += self._per_power @ (self._power - power)[self._free]
        return angles


def set_points(net: Any) -> Values:
    """(buses,) the voltage that a bus with a generator is held at, per unit; 0 at the others."""
    held = np.zeros(len(net.bus))
    for table in ("gen", "ext_grid"):
        held[net[table].bus] = net[table].vm_pu
    return held


def stacked(drawn: Iterable[Values], samples: int, buses: int) -> Values:
    """(buses, samples, values): what each bus has of all states."""
    values = np.empty((buses, samples, len(VALUES)))
    for sample, state in enumerate(drawn):
        values[:, sample] = state
    return values


def _factors(rng: np.random.Generator, width: float, count: int) -> Values:
    return rng.uniform(1 - width / 2, 1 + width / 2, count)
