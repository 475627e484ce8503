"""A run as one file: dense matrices, or a program for one process; and back into a run folder."""

from __future__ import annotations

import io
import json
import tempfile
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from hdnn_dist.exchange.connect import ALONE, connect
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.graph.node_files import write_json
from hdnn_dist.model.identity import refuse_other_weights
from hdnn_dist.runs.checkpoint import CHECKPOINTS, save_weights
from hdnn_dist.runs.dense_file import Tensors, dense_tensors, facts, read_dense, shared_parts, write_dense
from hdnn_dist.runs.description import restored, save_description
from hdnn_dist.runs.folder import SUMMARY, RunFolder
from hdnn_dist.runs.opened import Opened
from hdnn_dist.runs.outputs import views_of
from hdnn_dist.runs.plain import Network
from hdnn_dist.runs.saved import SavedRun, bare, load_opened
from hdnn_dist.support.files import whole_file
from hdnn_dist.training.config_files import dump_config, parse_config

FORMATS = DENSE, PROGRAM = "safetensors", "torch"
EXAMPLE = 2  # samples of the batch that a program is made with


def export_run(opened: Opened, path: Path, form: str = DENSE) -> Path:
    """Write a run as one file, by this process alone; a reader finds a whole file or none.

    ``form``: "safetensors", dense matrices for ``runs.plain``, or "torch", a program of ``torch.export``.
    ``ValueError`` for a run without whole weights, and for one that dense matrices do not tell all of.
    """
    saved = load_opened(opened, connect(ALONE))
    about = {**facts(saved), **_of_run(opened, saved)}
    tensors = dense_tensors(saved)
    if form == DENSE:
        write_dense(path, tensors, about)
    else:
        write_program(path, tensors, about)
    return path


def write_program(path: Path, tensors: Tensors, about: dict[str, Any]) -> None:
    """Tensors and metadata as in ``dense_file`` -> a program (samples, columns) -> (samples, outputs), in a file."""
    network = _plain(tensors, about)
    example = tensors["mean"].new_zeros(EXAMPLE, len(tensors["mean"]))
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("samples")},))
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"about.json": json.dumps(about)})
    with whole_file(path) as partial:
        partial.write_bytes(content.getvalue())


def import_run(path: Path, folder: Path, overwrite: bool = False) -> Path:
    """Make a run folder of a file of dense matrices, its weights bit for bit those of the run that it was; in one rank.

    ``ValueError`` for a file that is damaged or does not tell of a run, and for a folder as ``RunFolder`` says; then
    nothing is written.
    """
    tensors, about = read_dense(path)
    if "config" not in about:
        raise ValueError(f"{path} has no config, it was not exported from a run folder: train a run, and export that")
    config = parse_config(tomllib.loads(about["config"]), str(path))
    graph = CommunicationGraph.from_networkx(nx.node_link_graph(about["graph"], edges="edges"))
    saved = bare(config, graph, restored(about["description"]), connect(ALONE))
    refuse_other_weights(str(path), about["weights"], saved.net.about())
    fill(saved, tensors, path)
    made = RunFolder(folder, config, overwrite, graph)
    save_description(saved.about, folder)
    statistics = {
        int(agent): {name: torch.tensor(values, dtype=torch.float64) for name, values in own.items()}
        for agent, own in about["statistics"].items()
    }
    save_weights(saved.net, saved.others, folder / CHECKPOINTS, statistics)
    made.finish(about["summary"])
    return folder


def fill(saved: SavedRun, tensors: Tensors, path: Path) -> None:
    """Set all weights from those of a file, K (layers, n, n) and so on; ``ValueError`` for other shapes."""
    _refuse_other_shapes(dense_tensors(saved), tensors, path)
    saved.net.load_dense(tensors["K"], tensors["b"])
    with torch.no_grad():
        _fill_stored(saved, tensors)
        _fill_others(saved, tensors)


def _plain(tensors: Tensors, about: dict[str, Any]) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        write_dense(file, tensors, about)
        return Network(str(file))


def _of_run(opened: Opened, saved: SavedRun) -> dict[str, Any]:
    """What a run folder is made of again."""
    summary = opened.path / SUMMARY
    return {
        "config": dump_config(opened.config),
        "graph": json.loads(write_json(opened.graph.networkx)),
        "description": asdict(saved.about),
        "columns_of": None if saved.columns is None else saved.columns.assignment,
        "statistics": {a: {k: v.tolist() for k, v in own.items()} for a, own in saved.statistics.items()},
        "summary": json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {},
    }


def _refuse_other_shapes(own: Tensors, found: Tensors, path: Path) -> None:
    for name in sorted(own.keys() | found.keys()):
        shapes = [tuple(known[name].shape) if name in known else "none" for known in (found, own)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{name} in {path} has shape {shapes[0]}, but the network of its config needs {shapes[1]}: export it "
                "again"
            )


def _fill_stored(saved: SavedRun, tensors: Tensors) -> None:
    """What a dense matrix does not give back, and the coupling."""
    net = saved.net
    for name, part in shared_parts(saved).items():
        part.copy_(tensors[name])
    if "U" in tensors and net.shared is None:
        for layer, U in enumerate(tensors["U"]):
            rows, columns, _ = net.stack.layout(layer).positions()
            net.stack.weights(net.weights, layer)[:, : len(rows)] = U[rows, columns]
    if net.coupling_spec.trained:
        rows, columns, _ = net.coupling_spec.layouts[0].positions()
        net.coupling[:, : len(rows)] = _coupling(tensors)[:, rows, columns]


def _coupling(tensors: Tensors) -> Tensor:
    """(1, rows, columns) A, or X, as it is trained."""
    if "A" in tensors:
        return tensors["A"]
    J = tensors["J"]
    return J[len(J) // 2 :, : len(J) // 2].unsqueeze(0)


def _fill_others(saved: SavedRun, tensors: Tensors) -> None:
    """The readout and the lift, agent after agent."""
    net, back = saved.net, torch.as_tensor(saved.net.architecture.dense_rows(saved.net.features).argsort())
    n = len(back)
    readout = tensors["readout"].unflatten(1, (n, -1))[:, back]
    agent = torch.arange(len(net.features)).repeat_interleave(torch.as_tensor(net.features))
    for reader, place, view in views_of(saved.head) if saved.head.shared is None else ():
        given = tensors["readout_bias"] if reader is None else readout[:, agent == reader].flatten(1)
        view.copy_(given[place])
    if saved.lift is not None and saved.lift.shared is None:
        saved.lift.weights.copy_(tensors["lift_weights"][back])
        saved.lift.bias.copy_(tensors["lift_bias"][back])
