"""Pictures for a web page: SVG in the colours of the page, as wide as a phone shows them, with their titles apart.

Colours become CSS variables, so that one picture suits a light and a dark page:

    --ink --edge --grid --paper --card --c0 ... --c7
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

PAGE_WIDTH = 4.6  # inches
WHITE = (1.0, 1.0, 1.0, 1.0)
LOOK: Any = {"svg.fonttype": "none", "svg.hashsalt": "hdnn-dist", "font.size": 9}
FONT = re.compile(r"font-family: [^;\"]*")
SIZE = re.compile(r'<svg([^>]*?) width="[^"]*" height="[^"]*"')
NAMES = re.compile(r'(\bid="|url\(#|href="#)(?=\w)')
NUMBERS = count()


@dataclass
class PagePicture:
    """``title``: plain text, of a line or two; ``svg``: an element, ready to stand in a page."""

    title: str = ""
    svg: str = ""

    def take_title(self, text: str) -> None:
        """The first title of a figure; the page shows it, not the picture."""
        self.title = self.title or text


DRAWN: ContextVar[PagePicture | None] = ContextVar("DRAWN", default=None)


def page_picture(draw: Callable[[Path], object]) -> PagePicture:
    """What one of the functions of this room draws, for a page instead of a file."""
    with _drawing() as picture, matplotlib.rc_context(LOOK):
        draw(Path("page.svg"))
    return picture


@contextmanager
def _drawing() -> Iterator[PagePicture]:
    picture = PagePicture()
    token = DRAWN.set(picture)
    try:
        yield picture
    finally:
        DRAWN.reset(token)


def page_size(size: tuple[float, float]) -> tuple[float, float]:
    """Inches of a figure: as given, or, for a page, as wide as all are there."""
    return size if DRAWN.get() is None else (PAGE_WIDTH, PAGE_WIDTH * size[1] / size[0])


def page_svg(figure: Figure, colours: dict[str, str]) -> str:
    """A figure as an SVG element. ``colours``: hexadecimal -> the CSS variable that stands for it."""
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(axes.get_facecolor() != WHITE)
    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return _themed(file.getvalue(), colours)


def _themed(text: str, colours: dict[str, str]) -> str:
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = FONT.sub("font-family: inherit", SIZE.sub(r'<svg class="drawn"\1', svg))
    svg = NAMES.sub(rf"\g<1>p{next(NUMBERS)}-", svg).replace('<text style="', '<text style="fill: #222222; ')
    for known, name in colours.items():
        svg = re.sub(rf"{known}\b", f"var({name})", svg, flags=re.IGNORECASE)
    return svg
