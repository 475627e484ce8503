"""Where the results go: a page for each experiment, and its headline between the markers of a README."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from hdnn_dist.experiments.cells import Experiment, Findings
from hdnn_dist.experiments.records import is_record
from hdnn_dist.plots.style import is_ours
from hdnn_dist.support.files import write_whole
from hdnn_dist.support.version import VERSION

README = Path("README.md")
MADE = "never by hand, with hdnn-dist"


@dataclass(frozen=True)
class Output:
    """The files of an experiment in the folder ``out``."""

    name: str
    out: Path

    @property
    def records(self) -> Path:
        return self.out / f"{self.name}.jsonl"

    @property
    def page(self) -> Path:
        return self.out / f"{self.name}.md"

    @property
    def picture(self) -> Path:
        return self.out / f"{self.name}.png"

    def check(self) -> None:
        """``ValueError`` for a folder that is a file, and for files of these names that no experiment has written."""
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out {self.out} is a file: give a folder")
        for path, is_its_own in ((self.records, is_record), (self.page, _is_page), (self.picture, is_ours)):
            if path.exists() and not (path.is_file() and is_its_own(path)):
                raise ValueError(f"{path} is not of an experiment: give another folder with --out")


def _is_page(path: Path) -> bool:
    return MADE.encode() in path.read_bytes()


def write_page(experiment: Experiment, found: Findings, command: str, output: Output) -> list[Path]:
    """Write the page and its picture; what was written. ``command``: the one that makes them."""
    pictures = [] if experiment.draw is None else [experiment.draw(found, output.picture)]
    parts = [
        f"# {experiment.title}",
        experiment.compares,
        experiment.table(found),
        *(f"![{experiment.title}]({path.name})" for path in pictures),
        f"Made by `{command}`, {MADE} {VERSION} and torch {torch.__version__}. "
        f"{experiment.judged_by}, {_shown(found)}; seconds are of one training. Every result, with its "
        f"whole config, is a line of `{output.records.name}`.{_first_alone(experiment)}",
    ]
    write_whole(output.page, "\n\n".join(parts) + "\n")
    return [output.page, *pictures]


def _first_alone(experiment: Experiment) -> str:
    """Where ``hdnn-dist train`` trains a cell too."""
    return "" if experiment.train else f" The first cell alone is `{experiment.cells[0].command}`."


def write_readme(experiment: Experiment, found: Findings, readme: Path = README) -> list[Path]:
    """Replace what stands between the experiment's markers by its headline, nothing else; the file, if it has them.

    One line, so that the markers may stand in a cell of a table.
    """
    text = _read(readme)
    if (place := _place(text, experiment.name, readme)) is None:
        return []
    headline = f"{experiment.headline(found)}; {_seeds(found)}"
    write_whole(readme, text[: place.start] + headline + text[place.stop :])
    return [readme]


def check_readme(name: str, readme: Path = README) -> None:
    """``ValueError`` for a README with markers between which nothing can be written."""
    _place(_read(readme), name, readme)


def _read(readme: Path) -> str:
    """The text with the ends of its lines as they are."""
    return readme.read_bytes().decode() if readme.is_file() else ""


def _place(text: str, name: str, readme: Path) -> slice | None:
    """Where the headline of an experiment stands; None where there are no markers."""
    begin, end = f"<!-- reproduce {name} -->", f"<!-- end {name} -->"
    counts = text.count(begin), text.count(end)
    if counts == (0, 0):
        return None
    found = re.search(f"{re.escape(begin)}(.*?){re.escape(end)}", text, re.DOTALL)
    if counts != (1, 1) or found is None:
        raise ValueError(f"{readme}: expected one {begin!r} and behind it one {end!r}; mend it, or remove both")
    return slice(*found.span(1))


def _shown(found: Findings) -> str:
    """What of the seeds the tables show."""
    return f"{'median and worst of ' if len(found[0].results) > 1 else ''}{_seeds(found)}"


def _seeds(found: Findings) -> str:
    count = len(found[0].results)
    return "seed 0" if count == 1 else f"seeds 0 to {count - 1}"
