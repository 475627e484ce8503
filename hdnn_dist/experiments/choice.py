"""Which cells of an experiment are meant by ``label=values``."""

from __future__ import annotations

from collections.abc import Sequence

from hdnn_dist.experiments.cells import Cell, Experiment
from hdnn_dist.support.arguments import named


def chosen_cells(experiment: Experiment, only: Sequence[str]) -> list[Cell]:
    """The cells with one of the values of every label that is named; all of them without any.

    Raises ``ValueError`` for a label or a value that no cell has, and where the table needs all of its cells.
    """
    if only and not experiment.parts:
        raise ValueError(f"--only {only[0]}: the table of {experiment.name} needs all of its cells; leave it out")
    cells = list(experiment.cells)
    for text in only:
        label, values = _parsed(text, experiment)
        cells = [cell for cell in cells if str(cell.labels[label]) in values]
    if not cells:
        raise ValueError(f"--only {' --only '.join(only)}: no cell of {experiment.name} has all of it; ask for less")
    return cells


def _parsed(text: str, experiment: Experiment) -> tuple[str, list[str]]:
    """A label and its values, each of which some cell has."""
    label, separator, given = text.partition("=")
    if not separator:
        raise ValueError(f"--only is {text!r}: expected label=values, such as {_example(experiment)}")
    known = {name: {str(cell.labels[name]): True for cell in experiment.cells} for name in experiment.cells[0].labels}
    there = named("label", label, known)
    values = [given] if given in there else given.split(",")  # some graphs have commas in their names
    for value in values:
        named(label, value, there)
    return label, values


def _example(experiment: Experiment) -> str:
    label, value = next(iter(experiment.cells[0].labels.items()))
    return f"{label}={value}"
