"""What all pictures share: colours, the look of the axes, and how a file is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from hdnn_dist.plots.pages import DRAWN, page_size, page_svg
from hdnn_dist.support.files import whole_file

Array = NDArray[Any]

# Okabe and Ito, "Color Universal Design" (2008), which colour-blind readers can tell apart; grey and indigo instead of
# their yellow and black
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F", "#332288")
INK, EDGE, PAPER = "#222222", "#8A8F98", "#F3F4F6"
MARKERS = "o^sDvP*X"
DPI = 150
TITLE, LEGEND = 11, 9  # points
BESIDE = 0.7  # inches of a picture that a title leaves free
MADE_BY, HEAD_BYTES = "hdnn-dist", 1024  # what is written into the head of a PNG
SIDE = 6.4  # inches
GRID = "#E3E5E8"
# what stands for each colour in a page
THEME = {
    INK: "--ink",
    "#000000": "--ink",
    EDGE: "--edge",
    GRID: "--grid",
    PAPER: "--paper",
    "#FFFFFF": "--card",
    **{colour: f"--c{number}" for number, colour in enumerate(PALETTE)},
}


def square_figure(title: str) -> tuple[Figure, Axes]:
    """A figure of one square picture."""
    figure = new_figure((SIDE, SIDE))
    axes = figure.subplots()
    dress(axes, title)
    return figure, axes


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure so many inches wide and high; for a page, of its width."""
    return Figure(figsize=page_size(size), layout="constrained")


def dress(axes: Axes, title: str) -> None:
    """Title and axes in the look of all pictures; the title goes to the page where there is one."""
    shown = _title(title, _width(axes) - BESIDE)
    axes.set_title(shown, fontsize=TITLE, color=INK, parse_math=False)  # a name may have dollar signs
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(EDGE)
    axes.tick_params(which="both", colors=INK, labelsize=9)


def head(figure: Figure, title: str) -> None:
    """A title above all axes of a figure; it goes to the page where there is one."""
    figure.suptitle(_title(title, figure.get_figwidth() - BESIDE), fontsize=TITLE, color=INK, parse_math=False)


def _title(title: str, room: float) -> str:
    """What is drawn of a title that has so many inches."""
    if (page := DRAWN.get()) is not None:
        page.take_title(title)
        return ""
    return "\n".join(_shortened(line, room) for line in title.splitlines())


def _width(axes: Axes) -> float:
    """Inches that a title has."""
    figure, place = axes.get_figure(root=True), axes.get_subplotspec()
    assert figure is not None
    return float(figure.get_figwidth()) / (1 if place is None else place.get_gridspec().ncols)


def _shortened(line: str, room: float) -> str:
    """As much of a title as fits into ``room`` inches."""
    shown, kept = line, len(line)
    while kept and _inches(shown, TITLE) > room:
        kept -= 1 + kept // 20
        shown = f"{line[:kept]} \u2026"
    return shown


def _inches(text: str, size: float) -> float:
    """Width of a text that is drawn plainly, ``size`` in points."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)
    return float(width) / 72


def short_name(name: str, longest: int) -> str:
    """A name of an agent without its middle, where it is too long: names of one place differ at their ends."""
    if len(name) <= longest:
        return name
    tail = (longest - 1) // 2
    return f"{name[: longest - 1 - tail]}\u2026{name[-tail:]}"


def plain_numbers(axes: Axes) -> None:
    """On a logarithmic axis upwards that spans few decades: 0.2 and 0.5 instead of powers of 10 alone."""
    low, high = axes.get_ylim()
    if low > 1e-4 and high < min(1e3 * low, 1e5):
        axes.yaxis.set_major_locator(MaxNLocator(5) if high < 5 * low else LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure) -> None:
    """One legend of all axes, each label once, under them, where it cannot cover anything; its labels are plain text.

    Nothing where nothing has a label.
    """
    entries = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
    known = {label: handle for entry in entries for handle, label in entry}
    if not known:
        return
    look: dict[str, Any] = {"ncols": _columns(figure.get_figwidth(), list(known)), "frameon": False, "fontsize": LEGEND}
    legend = figure.legend(known.values(), known.keys(), loc="outside lower center", **look)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _columns(width: float, labels: list[str]) -> int:
    """Of a legend in a figure so many inches wide: one row if that fits."""
    widths = [0.55 + _inches(label, LEGEND) for label in labels]
    return len(labels) if sum(widths) < width - 0.5 else max(1, int((width - 0.5) / max(widths)))


def marker(index: int) -> str:
    """The marker of a class or a line; colour and marker together tell 64 of them apart."""
    return MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]


def colour(index: int) -> str:
    """The colour of a class."""
    return PALETTE[index % len(PALETTE)]


def save(figure: Figure, path: str | Path) -> Path:
    """Write a PNG so that a reader finds the old or the new picture, never a part; for a page, keep it as SVG."""
    path = Path(path)
    if (page := DRAWN.get()) is not None:
        page.svg = page_svg(figure, THEME)
        return path
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI, metadata={"Software": MADE_BY})
    return path


def is_ours(path: Path) -> bool:
    """Whether a file is a picture that ``save`` has written."""
    with path.open("rb") as file:
        return MADE_BY.encode() in file.read(HEAD_BYTES)
