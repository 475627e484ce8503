"""AC power flow on an IEEE case: each bus knows what it injects and predicts its own voltage.

Solving takes a while, so what was solved is kept in a file of ``data.root``, with the values of each bus apart: a rank
reads those of its own agents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hdnn_dist.data.power_cases import CASES, pandapower
from hdnn_dist.data.power_flow import KNOWN, VALUES, stacked, states
from hdnn_dist.data.source import REGRESSION, Description, Request, Source, Split
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import require_memory
from hdnn_dist.support.files import whole_file
from hdnn_dist.support.locks import one_at_a_time

NAME = "power_grid"
SAMPLES, FEWEST = 8000, 8
SPREAD = 0.6  # full width of the factors of single loads and generators
WIDEST = 2.0  # where a load could be nothing
FOLDER = Path("data/power")
TARGETS = 2  # of a bus: voltage magnitude and angle
ANSWERS = slice(len(KNOWN), len(KNOWN) + TARGETS)  # where they are among ``VALUES``

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PowerGrid:
    """Data on any graph with as many agents as an IEEE case has buses: agent i is the bus that comes i-th there."""

    name: str = NAME

    def on(self, graph: CommunicationGraph) -> Source:
        """The source for this graph; ValueError where no case has as many buses."""
        if graph.agents not in CASES:
            raise ValueError(
                f"the data set {NAME} has an agent for each bus of an IEEE case, {', '.join(map(str, CASES))} of "
                f"them, but {graph.name} has {graph.agents} agents: take graph = 'topologies/ieee118.json', or that "
                "of another case"
            )
        return PowerFlows(graph.agents)


@dataclass(frozen=True)
class PowerFlows:
    """A source of power flows: of each bus three columns, as in ``KNOWN``, and two targets, voltage and angle.

    All are standardised with mean and deviation of the training samples, bus by bus; a constant column is 0.
    """

    buses: int

    def describe(self, root: Path | None) -> Description:
        each = len(KNOWN)
        return Description(
            NAME,
            columns=each * self.buses,
            classes=TARGETS * self.buses,
            samples=SAMPLES,
            noise=SPREAD,
            task=REGRESSION,
            targets=dict.fromkeys(range(self.buses), TARGETS),
            assignment={bus: tuple(range(each * bus, each * (bus + 1))) for bus in range(self.buses)},
        )

    def read(self, request: Request) -> tuple[Split, Split]:
        """Solve what no file holds yet, then read the buses that are asked for.

        Raises ValueError for too few samples, a width of factors that is none, a file that is not ours, and without
        pandapower where something is to be solved.
        """
        flows = solved(self.buses, request)
        asked, values = np.divmod(request.columns, len(KNOWN))
        own = {bus: standardised(flows.bus(bus), flows.train) for bus in {*asked.tolist(), *request.targets}}
        known = [own[bus][:, value] for bus, value in zip(asked.tolist(), values.tolist(), strict=True)]
        table = np.column_stack([np.empty((request.samples, 0)), *known])
        targets = {bus: own[bus][:, ANSWERS] for bus in request.targets}
        train, test = slice(flows.train), slice(flows.train, None)
        return _part(table, targets, train), _part(table, targets, test)


@dataclass(frozen=True)
class Flows:
    """The file of solved states; the first ``train`` of them are for training, a quarter is for test."""

    path: Path
    samples: int

    @property
    def train(self) -> int:
        """How many are for training."""
        return self.samples - self.samples // 4

    def bus(self, bus: int) -> Values:
        """(samples, values) of one bus, in the units of ``VALUES``; ValueError for a file that is broken."""
        try:
            with safe_open(self.path, framework="numpy") as file:
                values: Values = file.get_tensor(str(bus))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.path} cannot be read ({error}): remove it, and it is made again") from None
        if values.shape != (self.samples, len(VALUES)) or not np.isfinite(values).all():
            raise ValueError(
                f"{self.path} does not hold {self.samples} states of bus {bus}: remove it, and it is made again"
            )
        return values


def solved(buses: int, request: Request) -> Flows:
    """The solved states that a request asks for, from their file, which is made first where it is missing.

    Of the ranks of a host one solves, and the others wait for it. ValueError as ``PowerFlows.read``.
    """
    _check(request)
    spread = request.noise or 0.0
    flows = kept(buses, request.samples, spread, request.seed, request.root)
    folder = flows.path.parent
    if not flows.path.exists():
        pandapower()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with one_at_a_time(flows.path.with_suffix(".lock")), _whole_file_once(flows.path) as partial:
                if partial is not None:
                    _solve(buses, request.samples, spread, request.seed, partial)
        except OSError as error:
            raise ValueError(
                f"{error.filename or folder} cannot be written ({error.strerror}): set data.root"
            ) from None
    return flows


def kept(buses: int, samples: int, spread: float, seed: int, root: Path | None) -> Flows:
    """Where these states are, or shall be."""
    name = f"ieee{buses}_{samples}_{spread:g}_{seed}.safetensors"
    return Flows((FOLDER if root is None else root) / name, samples)


def standardised(values: Values, train: int) -> Values:
    """(samples, columns) with mean 0 and deviation 1 over the first ``train``; constant columns become 0."""
    mean, deviation = scale(values, train)
    return (values - mean) / deviation


def scale(values: Values, train: int) -> tuple[Values, Values]:
    """Mean and deviation (columns,) of the first ``train`` samples; a constant has the deviation 1."""
    mean, deviation = values[:train].mean(0), values[:train].std(0)
    return mean, np.where(deviation > 1e-9 * (1 + abs(mean)), deviation, 1.0)


def _part(table: Values, targets: dict[int, Values], rows: slice) -> Split:
    return Split(table[rows], None, {bus: values[rows] for bus, values in targets.items()})


def _solve(buses: int, samples: int, spread: float, seed: int, path: Path) -> None:
    """Solve, with a bar on the standard error, and write."""
    require_memory(f"{samples} states", 16 * samples * buses * len(VALUES))
    drawn = states(buses, samples, spread, seed)
    shown = track(
        drawn, f"{samples} power flows of IEEE {buses}", total=samples, console=Console(stderr=True), transient=True
    )
    values = stacked(shown, samples, buses)
    save_file({str(bus): np.ascontiguousarray(one) for bus, one in enumerate(values)}, path)


@contextmanager
def _whole_file_once(path: Path) -> Iterator[Path | None]:
    """As ``whole_file``, or None where another process has made it meanwhile."""
    if path.exists():
        yield None
        return
    with whole_file(path) as partial:
        yield partial


def _check(request: Request) -> None:
    if request.samples < FEWEST:
        raise ValueError(f"{NAME} makes {FEWEST} samples or more, a quarter of them for test, not {request.samples}")
    if not 0 <= (request.noise or 0.0) < WIDEST:
        raise ValueError(
            f"data.noise of {NAME} is the width of the factors of loads, 0 to below 2, not {request.noise}"
        )
