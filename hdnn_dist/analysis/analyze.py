"""``hdnn-dist analyze``: a run, the counterexample, the depth sweep or the controls, in a file and as pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hdnn_dist.analysis.controls import CONTROLS, measure
from hdnn_dist.analysis.counterexample import solve
from hdnn_dist.analysis.sensitivity import spread
from hdnn_dist.analysis.table import depth_sweep, layer_residuals, sensitivity_table
from hdnn_dist.exchange.agreement import agreed
from hdnn_dist.exchange.placement import Agents, place
from hdnn_dist.exchange.sum_tree import SumTree
from hdnn_dist.exchange.world import World
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.model.network import HDNN
from hdnn_dist.plots.controls import draw_controls
from hdnn_dist.plots.sensitivity import (
    draw_counterexample,
    draw_depth,
    draw_gradient_norms,
    draw_norms,
    draw_singular_values,
)
from hdnn_dist.runs.folder import ANALYSIS, GRADIENTS, HEATMAP, NORMS, VALUES
from hdnn_dist.runs.opened import open_job, read_run
from hdnn_dist.runs.record import recorded_gradients
from hdnn_dist.support.files import write_whole
from hdnn_dist.training.job import Job

NAMED = ("counterexample", "depth", "controls", "transport")
MOST_ROWS = 12
SHOWN = ("j", "norm", "smallest_singular_value", "lower_bound", "log10_upper_bound", "symplectic_residual")
UNRECORDED = "no heat map: the run recorded no gradient norms; train with --set record_gradients=true for one"
SWEPT = ("H2", "H1-J1", "MLP")
DEPTHS = tuple(2**power for power in range(2, 13))
SWEEP_STEP = 0.1
SWEEP_SEED = 0


@dataclass(frozen=True)
class Analysis:
    """What a command shows: a table, all ``rows`` with the same columns, lines beside it, the files it wrote.

    Nothing on other ranks than the one that writes.
    """

    written: Sequence[Path] = ()
    rows: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = ()


def analyse_run(path: Path, world: World) -> Analysis:
    """Write analysis.json and the pictures into a finished run's folder; every rank calls it, the root's writes.

    Everything is computed in float64 at the first sample of the test set, behind a lift at its central pixel: the same
    layers act at every pixel. Raises ``ValueError`` for a folder that is no finished run.
    """
    job = _trained(path, world)
    with agreed(job.head.everyone):
        gradients = recorded_gradients(path / GRADIENTS) if job.is_root else []
    state = first_states(job)
    table = sensitivity_table(job.net, state, spread(job.net.layers, MOST_ROWS))
    residuals = layer_residuals(job.net, state)
    found = Analysis()
    with agreed(job.head.everyone):
        if job.is_root:
            written = _write_run(path, job, table, residuals, gradients)
            found = Analysis(written, [{name: row[name] for name in SHOWN} for row in table], _notes(path, residuals))
    return found


def analyse_counterexample(path: Path) -> Analysis:
    """The slowly varying system whose BSM diverges: its numbers and its picture."""
    eps = 0.1
    make_folder(path)
    found = solve(eps)
    every = max(len(found.t) // 200, 1)
    numbers = {"eps": eps, "t": found.t[::every], "y": found.y[::every], "bsm": found.bsm[::every]}
    return Analysis(
        [
            write_json(
                path / "counterexample.json", {name: np.asarray(part).tolist() for name, part in numbers.items()}
            ),
            draw_counterexample(found.t, found.y, found.bsm, path / "counterexample.png", eps=eps),
        ]
    )


def analyse_depth(path: Path, world: World) -> Analysis:
    """Norms of d y_N / d y_0 for 4 to 4096 layers with random weights on a ring of 8 agents: H2, H1-J1 and the MLP."""
    agents = place(CommunicationGraph.ring(8), world)
    _make_at_root(path, agents)
    norms = {}
    for architecture in SWEPT:
        net = HDNN(agents, 2, DEPTHS[-1], SWEEP_STEP, architecture, SWEEP_SEED, dtype=torch.float64)
        norms[architecture] = depth_sweep(net, _sample(net), DEPTHS)
    if world.rank:
        return Analysis()
    content = {"graph": agents.graph.name, "step": SWEEP_STEP, "seed": SWEEP_SEED, "layers": DEPTHS, "norms": norms}
    about = f"random weights of seed {SWEEP_SEED}, step {SWEEP_STEP:g}, {agents.graph.name}"
    rows = [{"layers": N, **{name: each[at] for name, each in norms.items()}} for at, N in enumerate(DEPTHS)]
    written = [write_json(path / "depth.json", content), draw_depth(norms, DEPTHS, path / "depth.png", about=about)]
    return Analysis(written, rows, ["norm of d y_N / d y_0 of the first N layers"])


def analyse_controls(path: Path, world: World) -> Analysis:
    """What smoothness, weight penalty and decay, projection and damping do to a small network, weaker and stronger."""
    _make_at_root(path, place(CommunicationGraph.ring(8), world))
    tables, networks = [measure(control, world) for control in CONTROLS], [control.network for control in CONTROLS]
    if world.rank:
        return Analysis()
    content = [
        {"key": control.key, "network": network, "settings": control.settings, "rows": rows}
        for control, network, rows in zip(CONTROLS, networks, tables, strict=True)
    ]
    notes = [f"{control.name}: {control.key}, {network}" for control, network in zip(CONTROLS, networks, strict=True)]
    written = [
        write_json(path / "controls.json", {"controls": content}),
        draw_controls(content, path / "controls.png"),
    ]
    return Analysis(written, [row for rows in tables for row in rows], notes)


def _trained(path: Path, world: World) -> Job:
    return open_job(read_run(path, ["dtype=float64"], f", or one of {', '.join(NAMED)}"), world)


def first_states(job: Job, samples: int = 1) -> torch.Tensor:
    """(samples, local features) before the first layer, of the first samples of the test set, or as many as there are.

    Behind a lift at the central pixel.
    """
    with torch.no_grad():
        state = job.state(job.test.inputs[:samples])
    return state if job.lift is None else state[:, :, state.shape[2] // 2, state.shape[3] // 2]


def _write_run(
    path: Path,
    job: Job,
    table: list[dict[str, Any]],
    residuals: list[float] | None,
    gradients: list[tuple[int, list[float]]],
) -> list[Path]:
    about = f"{job.net.architecture.name}, {job.net.layers} layers, {job.agents.graph.name}, {_where(job)}"
    written = [
        write_json(path / ANALYSIS, {**_about(job), "table": table, "layer_residuals": residuals}),
        draw_norms(table, path / NORMS, about=about),
        draw_singular_values(table, path / VALUES, about=about),
    ]
    if gradients:
        steps, norms = zip(*gradients, strict=True)
        written.append(draw_gradient_norms(steps, norms, path / HEATMAP))
    return written


def _about(job: Job) -> dict[str, Any]:
    """What was analysed, and where."""
    net = job.net
    return {
        "architecture": net.architecture.name,
        "layers": net.layers,
        "step": net.step,
        "features": int(net.features.sum()),
        "at": f"the {_where(job)}, in float64",
    }


def _where(job: Job) -> str:
    return f"{'first sample' if job.lift is None else 'central pixel of the first image'} of the test set"


def _notes(path: Path, residuals: list[float] | None) -> list[str]:
    notes = []
    if residuals is not None:
        worst = int(np.argmax(residuals))
        notes.append(f"symplectic residual of single layers: at most {residuals[worst]:.3g}, in layer {worst}")
    if not (path / GRADIENTS).is_file():
        notes.append(UNRECORDED)
    return notes


def _sample(net: HDNN) -> torch.Tensor:
    """A normal input, the same for any number of ranks."""
    whole = np.random.default_rng(SWEEP_SEED).standard_normal(int(net.features.sum()))
    starts = np.cumsum(net.features) - net.features
    own = [whole[starts[agent] : starts[agent] + net.features[agent]] for agent in net.agents.local]
    return torch.as_tensor(np.concatenate(own)).unsqueeze(0)


def make_folder(path: Path) -> None:
    """A new folder, or an empty one that is there; ``ValueError`` for any other, and for a file."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--run-dir {path} is a file: choose another")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"--run-dir {path} holds files, which could be lost: choose an empty folder, or a new one")
    path.mkdir(parents=True, exist_ok=True)


def _make_at_root(path: Path, agents: Agents) -> None:
    """Before anything is computed; what is wrong there is raised on every rank."""
    with agreed(SumTree(agents)):
        if not agents.world.rank:
            make_folder(path)


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write a whole file, or none."""
    return write_whole(path, json.dumps(content, indent=2) + "\n")
