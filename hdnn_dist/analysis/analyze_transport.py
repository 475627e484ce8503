"""``hdnn-dist analyze transport``: how far a change goes before training, and after it, in a file and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hdnn_dist.analysis.analyze import Analysis, first_states, make_folder, write_json
from hdnn_dist.analysis.transport import ARRIVED, Transport, transport
from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.world import World
from hdnn_dist.model.first_weights import WAVE
from hdnn_dist.plots.transport import Panel, draw_transport
from hdnn_dist.runs.folder import TRANSPORT, TRANSPORTED
from hdnn_dist.runs.opened import Opened, open_job, placed_on
from hdnn_dist.training.build import build, model, readers
from hdnn_dist.training.config import NetworkConfig
from hdnn_dist.training.job import Job
from hdnn_dist.weights.initial import INITIALS
from hdnn_dist.weights.wave import hops

Row = dict[str, Any]
SAMPLES = 4  # of the test set, at whose states a change is followed
FIXED = ("dtype=float64", "network.kernel=torch")  # of every config: tangents know the portable pass alone


def analyse_initials(opened: Opened, world: World, source: int | None = None) -> Analysis:
    """Write transport.json and transport.png into an empty folder: every initialisation of a config's network.

    ``opened``: the config, and the folder to make, in the place of a run's. ``source``: the agent whose state is
    changed; by default the one farthest from those that are read, the first of several. An initialisation that the
    architecture refuses is left out, and a note says so. Every rank has to call it; the root's writes. ``ValueError``
    for what ``train`` refuses, and for a folder with files.
    """
    job = build(placed_on(opened.config, world), opened.graph, world)
    kinds, notes = {}, []
    for initial in INITIALS:
        try:
            kinds[initial] = _with_first_weights(job, initial)
        except ValueError as error:  # the config was built, so that it is this initialisation that does not fit
            notes.append(f"{initial} is left out: {error}")
    with agreed(job.head.everyone):
        if job.is_root:
            make_folder(opened.path)
    return _analysed(kinds, opened.path, source, notes)


def analyse_trained(opened: Opened, world: World, source: int | None = None) -> Analysis:
    """The same of a run, before and after training, into its own folder; raises as ``open_job``."""
    job = open_job(opened, world)
    initial = job.config.network.initial
    kinds = {f"before training: {initial}": _with_first_weights(job, initial), "after training": job}
    return _analysed(kinds, opened.path, source, [])


def _with_first_weights(job: Job, initial: str) -> Job:
    """The same job with the weights that an initialisation draws."""
    of_waves = (
        {} if initial == WAVE else {key: NetworkConfig.model_fields[key].default for key in ("courant", "jitter")}
    )
    network = job.config.network.model_copy(update={"initial": initial, **of_waves})
    config = job.config.model_copy(update={"network": network})
    made = model(config, job.about, job.agents)
    return replace(job, config=config, net=made.net, head=made.head, project=made.project, lift=made.lift)


def _analysed(kinds: Mapping[str, Job], path: Path, given: int | None, notes: list[str]) -> Analysis:
    job = next(iter(kinds.values()))
    source = _farthest(job) if given is None else given
    found = {name: transport(each.net, first_states(each, SAMPLES), source) for name, each in kinds.items()}
    analysis = Analysis()
    with agreed(job.head.everyone):
        if job.is_root:
            rows = [_row(name, each) for name, each in found.items()]
            written = _write(path, kinds, found, rows)
            analysis = Analysis(written, list(map(_short, rows)), [_where(job, source), *notes])
    return analysis


def _farthest(job: Job) -> int:
    """From the agents that are read, the first of several; agent 0 where all are."""
    read = readers(job.config, job.about, job.agents.graph)
    return 0 if read is None else int(np.argmax(job.agents.graph.hops(read)))


def _write(path: Path, kinds: Mapping[str, Job], found: Mapping[str, Transport], rows: list[Row]) -> list[Path]:
    job, some = next(iter(kinds.values())), next(iter(found.values()))
    net, graph = job.net, job.agents.graph
    about = f"{net.architecture.name}, {net.layers} layers, step {net.step:g}, {graph.name}"
    title = f"How far a small change at {graph.named(some.source)} gets, layer by layer\n{about}"
    panels = [Panel(name, each.norms, each.cone, each.front, _own_speed(kinds[name])) for name, each in found.items()]
    content = {
        "graph": graph.name,
        "architecture": net.architecture.name,
        "layers": net.layers,
        "step": net.step,
        "from": some.source,
        "at": f"{_points(job)}, in float64",
        "arrived": ARRIVED,
        "light_cone": some.cone.tolist(),
        "weights": [
            {**row, "norms": [list(map(_number, line)) for line in each.norms]}
            for row, each in zip(rows, found.values(), strict=True)
        ],
    }
    return [
        write_json(path / TRANSPORT, content),
        draw_transport(panels, path / TRANSPORTED, title=title, arrived=ARRIVED),
    ]


def _row(name: str, found: Transport) -> Row:
    """Hops reached at a quarter, at half and at all of the layers, the speed of the front, the norm of the change."""
    layers = len(found.norms) - 1
    looks = sorted({max(1, round(layers / 4)), max(1, round(layers / 2)), layers})
    fronts = {f"hops_at_layer_{layer}": int(found.front[layer]) for layer in looks}
    return {
        "weights": name,
        **{key: None if value < 0 else value for key, value in fronts.items()},
        "hops_a_layer": found.speed,
        "norm_of_the_change": _number(found.total[-1]),
    }


def _own_speed(job: Job) -> float | None:
    """Hops a layer of the wave that the first weights carry, without their random share; None where they carry none."""
    network = job.config.network
    if network.initial != WAVE:
        return None
    operators = 2 if job.net.architecture.layer[0].field.gradient else 1  # whose product the frequency is
    return hops(network.courant * (1 - network.jitter) ** operators)


def _where(job: Job, source: int) -> str:
    return (
        f"a change of norm 1 at {job.agents.graph.named(source)}, at {_points(job)}; "
        f"hops that at least {100 * ARRIVED:g} % of it has reached"
    )


def _points(job: Job) -> str:
    return f"the first {min(SAMPLES, len(job.test))} {'samples' if job.lift is None else 'images'} of the test set"


def _short(row: Row) -> Row:
    """As it is printed: the change may be of any size."""
    norm = row["norm_of_the_change"]
    return {**row, "norm_of_the_change": None if norm is None else f"{norm:.3g}"}


def _number(value: float) -> float | None:
    """As JSON has it, which knows no infinity."""
    return float(value) if np.isfinite(value) else None
