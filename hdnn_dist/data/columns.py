"""Where features enter: which column of the data set each agent sees.

An assignment maps agent -> list of columns. Agent i has f_i features in the order of its block (for
H2 its p, then its q); its list fills the first of them and the rest are zero. -1 in a list means "a zero
here", so with f_i = 2 the list [-1, 0] puts column 0 into q.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

ZERO = -1  # "a zero here"


@dataclass(frozen=True)
class Columns:
    """Every column of a data set, each given to exactly one agent.

    Build one with ``spread``, ``patches`` or ``from_mapping``.

    assignment: agent -> its columns, -1 for a zero; agents that receive nothing are absent.
    total: number of columns D of the data set.
    features: number of features of each agent.
    named: how an error names an agent.

    Raises ValueError for an unknown agent, a column out of range, a column given twice or to nobody, and
    for an agent with more columns than features.
    """

    assignment: dict[int, tuple[int, ...]]
    total: int
    features: tuple[int, ...]
    named: Callable[[int], str] = field(default="agent {}".format, repr=False, compare=False)

    def __post_init__(self) -> None:
        for agent, columns in self.assignment.items():
            self._check_agent(agent)
            self._check_columns(agent, columns)
        self._check_each_given_once()

    @classmethod
    def spread(cls, total_columns: int, features_per_agent: Sequence[int]) -> Columns:
        """D columns over M >= D agents: column c becomes the first feature of agent floor(c M / D).

        Raises ValueError where there are more columns than agents.
        """
        agents = len(features_per_agent)
        if total_columns > agents:
            raise ValueError(
                f"{total_columns} columns cannot be spread over {agents} agents, one column each; "
                "say which agent gets which columns with data.columns, or, for images, give data.patch"
            )
        return cls.from_mapping(
            {c * agents // total_columns: [c] for c in range(total_columns)},
            total_columns,
            features_per_agent,
        )

    @classmethod
    def patches(
        cls, image: tuple[int, int] | None, patch: tuple[int, int], features_per_agent: Sequence[int]
    ) -> Columns:
        """Cut an image (H, W) into patches (h, w): agent r (W/w) + c gets patch (r, c), row by row.

        image: None for data that are no images, which is an error here.
        Raises ValueError where the patches do not tile the image, where their number is not that of the
        agents, and where a patch has more pixels than its agent has features.
        """
        _check_tiling(image, patch, len(features_per_agent))
        (height, width), (h, w) = image or (0, 0), patch
        pixels = np.arange(height * width).reshape(height // h, h, width // w, w)
        rows = pixels.transpose(0, 2, 1, 3).reshape(-1, h * w).tolist()
        return cls.from_mapping(dict(enumerate(rows)), height * width, features_per_agent)

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[int, Sequence[int]],
        total_columns: int,
        features_per_agent: Sequence[int],
        named: Callable[[int], str] = "agent {}".format,
    ) -> Columns:
        """The assignment as given: agent -> columns, -1 for a zero. Raises ValueError as the class does."""
        assignment = {
            _integer(agent, "agent"): tuple(_integer(c, f"a column of agent {agent}") for c in columns)
            for agent, columns in mapping.items()
        }
        return cls(assignment, total_columns, tuple(features_per_agent), named)

    def index(self, local_agents: Iterable[int]) -> npt.NDArray[np.int64]:
        """The data set's column, or -1 for a zero, of each local feature, agent after agent.

        Returns int64 (features of the local agents,). Raises ValueError for an unknown agent.
        """
        return np.array([c for agent in local_agents for c in self._row(agent)], dtype=np.int64)

    def _row(self, agent: int) -> tuple[int, ...]:
        self._check_agent(agent)
        given = self.assignment.get(agent, ())
        return given + (ZERO,) * (self.features[agent] - len(given))

    def _check_agent(self, agent: int) -> None:
        agents = len(self.features)
        if not 0 <= agent < agents:
            raise ValueError(f"agent {agent} does not exist: there are {agents} agents, 0 to {agents - 1}")

    def _check_columns(self, agent: int, columns: tuple[int, ...]) -> None:
        outside = [c for c in columns if not ZERO <= c < self.total]
        if outside:
            raise ValueError(
                f"column {outside[0]}, given to {self.named(agent)}, does not exist: "
                f"the data have {self.total} columns, 0 to {self.total - 1}, and -1 stands for a zero"
            )
        if len(columns) > self.features[agent]:
            raise ValueError(
                f"{self.named(agent)} has {self.features[agent]} features "
                f"but a list of columns of length {len(columns)}; "
                f"give it {len(columns)} features or more, or fewer columns"
            )

    def _check_each_given_once(self) -> None:
        owner: dict[int, int] = {}
        for agent, columns in self.assignment.items():
            for column in columns:
                if column in owner:
                    raise ValueError(_given_twice(column, owner[column], agent, self.named))
                if column != ZERO:
                    owner[column] = agent
        missing = [c for c in range(self.total) if c not in owner]
        if missing:
            raise ValueError(_given_to_nobody(missing))


def _integer(value: int, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{what} must be an integer, not {value!r}") from None


def _check_tiling(image: tuple[int, int] | None, patch: tuple[int, int], agents: int) -> None:
    if image is None:
        raise ValueError("a patch needs images, and these data are none; say which agent gets which columns instead")
    (height, width), (h, w) = image, patch
    if h < 1 or w < 1 or height % h or width % w:
        raise ValueError(
            f"patches of {h} x {w} do not tile an image of {height} x {width}; "
            f"give a height that divides {height} and a width that divides {width}"
        )
    count = (height // h) * (width // w)
    if count != agents:
        raise ValueError(
            f"patches of {h} x {w} cut an image of {height} x {width} into {count}, one for each agent, "
            f"but there are {agents} agents; take {count} agents or another patch"
        )


def _given_twice(column: int, first: int, second: int, named: Callable[[int], str]) -> str:
    to = f"{named(first)} twice" if first == second else f"{named(first)} and {named(second)}"
    return f"column {column} is given to {to}; give each column once"


def _given_to_nobody(missing: list[int]) -> str:
    named = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    which = f"column {named} is" if len(missing) == 1 else f"columns {named} are"
    return f"{which} given to no agent; give each column to one agent"
