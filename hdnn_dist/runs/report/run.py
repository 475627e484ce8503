"""The report of one run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from markupsafe import Markup
from rich.filesize import decimal

from hdnn_dist.runs.pictures import PictureWarning
from hdnn_dist.runs.record import Record
from hdnn_dist.runs.report.charts import curves, gradients, results, sparsity
from hdnn_dist.runs.report.graph import graph_card
from hdnn_dist.runs.report.pages import Card, Section, Tile, page, rendered, table
from hdnn_dist.support.arguments import one_line
from hdnn_dist.training.config import Config, known_keys, value_of
from hdnn_dist.training.config_files import dump_config


def report(run: Record) -> str:
    """One HTML page of all that the run folder holds. What cannot be drawn is a warning, and left out."""
    sections = [
        Section("Training", _cards(partial(curves, run))),
        Section("What it learned", _cards(partial(results, run))),
        Section("Graph", _cards(lambda: filter(None, [graph_card(run)]), lambda: [sparsity(run)])),
        Section("Gradients", _cards(partial(gradients, run))),
        Section("Ranks and links", _cards(partial(_ranks, run.summary, run.edges))),
        Section("Config and versions", _cards(partial(_config, run))),
    ]
    return page(run.name, _about(run), _tiles(run), sections)


def _cards(*makes: Callable[[], Iterable[Card]]) -> list[Card]:
    found: list[Card] = []
    for make in makes:
        try:
            found += make()
        except Exception as error:  # matplotlib raises errors of many kinds; none is worth the page
            warnings.warn(f"a part of the report is left out: {one_line(error)}", PictureWarning, stacklevel=2)
    return found


def _about(run: Record) -> str:
    chosen, graph = run.config, run.graph
    state = "" if run.summary else ", not finished"
    return f"{chosen.network.architecture} of {chosen.network.layers} layers, {graph.name}, {chosen.data.name}{state}"


def _tiles(run: Record) -> list[Tile]:
    summary = run.summary
    if not summary:
        return [Tile("epochs", f"{len(run.rows)} of {run.config.epochs}")]
    return [
        *(Tile(f"test {name}", f"{value:.4g}") for name, value in summary["test_metrics"].items()),
        Tile("test loss", f"{summary['test_loss']:.4g}"),
        Tile("epochs", f"{summary['epochs']} of {run.config.epochs}"),
        Tile("seconds a step", f"{summary['seconds_per_step']:.4g}"),
        Tile("bytes a step", decimal(int(summary["bytes_per_step"]))),
        Tile("messages a step", f"{summary['messages_per_step']:,.0f}"),
        Tile("messages off the graph", str(summary["off_graph_messages"])),
        Tile("ranks", str(summary["ranks"])),
    ]


def _ranks(summary: dict[str, Any], edges: dict[str, Any]) -> Iterator[Card]:
    if not summary:
        return
    waited, seconds = summary["seconds_waited_per_rank"], max(summary["seconds"], 1e-9)
    owner = edges.get("owner", [])
    rows = [
        {
            "number": rank,
            "agents": owner.count(rank) if owner else "",
            "parameters": f"{summary['parameters_per_rank'][rank]:,}",
            "waited": f"{value:.3g} s, {value / seconds:.0%}",
            "share": round(100 * min(value / seconds, 1)),
        }
        for rank, value in enumerate(waited)
    ]
    note = f"Training steps took {seconds:.4g} s; the bar is the share that a rank waited for others."
    yield Card("Time by rank", rendered("ranks.html", ranks=rows), note)
    links = [(link, pairs) for link, pairs in summary["links"].items()] or [("within one process", "all edges")]
    lines = [
        ("transport", summary["transport"]),
        *((f"pairs of ranks, {link}", pairs) for link, pairs in links),
        ("messages between ranks, a step", f"{summary['wire_messages_per_step']:,.0f}"),
        ("bytes between ranks, a step", decimal(int(summary["wire_bytes_per_step"]))),
        ("bytes along the busiest edge, a step", decimal(int(summary["bytes_per_edge"]))),
    ]
    yield _pairs("Links", lines)


def _config(run: Record) -> Iterator[Card]:
    changed = changed_keys(run.config)
    note = "" if changed else "All keys have their defaults."
    yield _pairs("Keys that are not the default", changed.items(), note)
    if run.summary:
        keys = ("version", "torch", "dtype", "seed", "reconstruction_drift")
        words = {"version": "hdnn-dist", "reconstruction_drift": "drift of rebuilt states"}
        yield _pairs("Versions and numbers", [(words.get(key, key), _short(run.summary[key])) for key in keys])
    yield Card("config.toml", Markup("<pre>{}</pre>").format(dump_config(run.config).strip()), kind="wide")


def changed_keys(config: Config) -> dict[str, str]:
    """Dotted key -> its value, of those that differ from the defaults."""
    default = Config()
    values = {key: (value_of(config, key), value_of(default, key)) for key in known_keys()}
    return {key: str(given) for key, (given, usual) in values.items() if given != usual}


def _pairs(title: str, rows: Iterable[tuple[object, object]], note: str = "") -> Card:
    body = table(title, (), rows).body
    return Card(title, Markup('<div class="pairs">{}</div>').format(body), note)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "none" if value is None else str(value)
