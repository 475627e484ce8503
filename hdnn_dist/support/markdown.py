"""Tables as text that is Markdown too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Value = int | float | str | None
Row = dict[str, Value]


def plain_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as it is, without a line end behind its last line."""
    return "\n".join(_line(cells) for cells in (header, ["---"] * len(header), *rows))


def aligned_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same, its columns as wide as their longest cell."""
    every = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    head, *body = ([cell.ljust(width) for cell, width in zip(cells, widths, strict=True)] for cells in every)
    return "\n".join([_line(head), _line(["-" * width for width in widths]), *map(_line, body)])


def padded_table(rows: Sequence[Mapping[str, Value]]) -> str:
    """Numbers by the names of their columns, the same in all rows; padded, so that it reads as plain text.

    Columns without any value are left out.
    """
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    cells = [[*map(_heading, names)], *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *body = [_padded(line, widths) for line in cells]
    return "\n".join([head, _line(["-" * (width - 1) + ":" for width in widths]), *body])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _line(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _heading(name: str) -> str:
    return name.replace("milliseconds", "ms").replace("_", " ")


def _cell(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".removesuffix(".")
    return "-" if value is None else str(value)
