"""A page of cards in sections: one HTML file without anything from elsewhere, for a phone and in the dark too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hdnn_dist.plots.pages import page_picture
from hdnn_dist.support.version import VERSION


@dataclass(frozen=True)
class Card:
    """``body``: HTML; ``note``: plain text below the title; ``kind``: "wide" over all columns of the page, or
    "regions" of a picture whose areas are dimmed in the dark, "pattern" of one whose are brighter.
    """

    title: str
    body: Markup
    note: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Section:
    """Cards under a heading; one without cards is left out."""

    title: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Tile:
    """A figure that one looks for first."""

    name: str
    value: str


def page(title: str, about: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    """The whole page."""
    shown = [section for section in sections if section.cards]
    return rendered("page.html", title=title, about=about, tiles=tiles, sections=shown, version=VERSION)


def picture(draw: Callable[[Path], object], kind: str = "") -> Card:
    """A card of what a function of ``plots`` draws, under the title that it gives."""
    drawn = page_picture(draw)
    title, _, rest = drawn.title.partition("\n")
    return Card(title, Markup(drawn.svg), rest.replace("\n", ", "), kind)


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]], note: str = "", kind: str = "") -> Card:
    """A card of a table whose first column names the row."""
    return Card(title, rendered("table.html", head=head, rows=list(rows)), note, kind)


def rendered(name: str, **values: object) -> Markup:
    """One of the templates, filled in."""
    return Markup(_templates().get_template(name).render(**values))


@cache
def _templates() -> Environment:
    loader = PackageLoader("hdnn_dist.runs.report")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
