"""What people call the agents: the names of nodes in the file that a graph comes from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from numbers import Integral
from typing import Any, TypeVar

from hdnn_dist.support.arguments import shown

LONGEST = 40  # characters of a label in a message
LISTED = 8  # agents that an error lists
Labels = tuple[str, ...] | None
Given = TypeVar("Given")


def clean(given: object) -> str:
    """A label as one line of printable text."""
    return "".join(letter for letter in " ".join(str(given).split()) if letter.isprintable())


def is_whole(label: str) -> bool:
    """Whether a label is a whole number as it is usually written, without leading zeros."""
    return label.isascii() and label.isdecimal() and (label == "0" or label[0] != "0")


def usable(labels: Sequence[str]) -> bool:
    """Whether labels tell agents apart: none is empty, and none is there twice."""
    return all(labels) and len(set(labels)) == len(labels)


def checked_labels(agents: int, given: Iterable[object] | None) -> Labels:
    """A label for each agent, or None where they are the numbers 0..agents-1 themselves; ValueError otherwise."""
    if given is None:
        return None
    labels = tuple(map(clean, given)) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else ()
    if len(labels) != agents or not usable(labels):
        raise ValueError(
            f"labels are {shown(given)}: expected a different text, not empty, for each of {agents} agents, or None"
        )
    return None if labels == tuple(map(str, range(agents))) else labels


def label(labels: Labels, agent: int) -> str:
    """How people name an agent: its label, not all of a long one, or its number."""
    return str(agent) if labels is None else shortened(labels[agent])


def named(labels: Labels, agent: int) -> str:
    """``agent 3 (Frankfurt)``, or ``agent 3`` without labels, or for one that does not exist."""
    known = labels is not None and 0 <= agent < len(labels)
    return f"agent {agent} ({label(labels, agent)})" if known else f"agent {agent}"


def shortened(text: str) -> str:
    """The beginning and the end of a long text."""
    half = (LONGEST - 3) // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


def _find(agent_of: Mapping[str, int], agents: int, given: object) -> int:
    """The agent that is meant; ``agent_of``: of each label, empty without labels. ValueError for none.

    A whole number that is no label is the number of an agent where no label is a whole number.
    """
    if isinstance(given, bool) or not isinstance(given, Integral | str):
        raise ValueError(f"{shown(given)} is no agent: expected {'a label' if agent_of else 'a whole number'}")
    text = clean(given)
    if text in agent_of:
        return agent_of[text]
    by_number = is_whole(text) and not any(map(is_whole, agent_of))
    if by_number and int(text) < agents:
        return int(text)
    raise ValueError(_nobody(agent_of, agents, text))


def _nobody(agent_of: Mapping[str, int], agents: int, text: str) -> str:
    if not agent_of:
        return f"agent {shortened(text)} does not exist: there are {agents} agents, 0 to {agents - 1}"
    near = difflib.get_close_matches(text, agent_of, n=1, cutoff=0.6)
    hint = f"did you mean {shortened(near[0])!r}? " if near else ""
    some = ", ".join(map(shortened, list(agent_of)[:LISTED])) + (", ..." if len(agent_of) > LISTED else "")
    return f"no agent is called {shortened(text)!r}: {hint}there are {some}"


class NamedAgents:
    """A number of agents, and what people call each, ``labels``: None where that is its number."""

    agents: int
    labels: Labels

    def label(self, agent: int) -> str:
        """How people name an agent: its label, not all of a long one, or its number."""
        return label(self.labels, agent)

    def named(self, agent: int) -> str:
        """An agent in a message: ``agent 3``, with its label ``agent 3 (Frankfurt)``."""
        return named(self.labels, int(agent))

    def agent(self, given: int | str) -> int:
        """The agent that a user means by a label, or by a number where no label is one; ValueError for none."""
        return _find(self._agent_of, self.agents, given)

    def by_agent(self, table: Mapping[Any, Given]) -> dict[int, Given]:
        """A table from what a user calls agents as one from agents; ValueError as in ``agent``, and for one twice."""
        found: dict[int, Given] = {}
        for name, value in table.items():
            agent = self.agent(name)
            if agent in found:
                raise ValueError(f"{shown(name)} is agent {agent}, which is there under another name too: keep one")
            found[agent] = value
        return found

    @cached_property
    def _agent_of(self) -> dict[str, int]:
        return {text: agent for agent, text in enumerate(self.labels or ())}
