"""A network as one file of dense matrices, for readers that know nothing of agents and ranks (``runs.plain``).

The tensors, n the features of all agents, in the order of the formulas: all agents' first halves, then all second
halves, inside them agent after agent; or agent after agent where the architecture has no halves:

    K (layers, n, n)    b (layers, n)    J (n, n), or (layers, n, n) where layers differ
    readout (outputs, n times positions)         readout_bias (outputs,)
    columns (n,)        the column of the data set that enters there, -1 for a zero; without a lift
    lift_weights (n, channels, 3, 3)             lift_bias (n,)
    mean, std (columns,)    what is taken off each column, and what it is divided by
    target_mean, target_std (outputs,)    what brings outputs back to the units of the data; 0 and 1 for classes
    shared_ROLE_K, ...  what all agents share, named as in a checkpoint
    U (layers, n, n)    of a skew K = U - U^T, as it is trained; A (1, n, n) of a trained J = A - A^T, agent after agent

The metadata are JSON: a layer as half-steps between the ``parts`` of the state, numbered, and whose features are where.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hdnn_dist.model.network import HDNN
from hdnn_dist.propagation.architectures import Architecture, HalfStep
from hdnn_dist.propagation.linear_map import Coefficients
from hdnn_dist.runs.outputs import names_of, outputs_of, views_of
from hdnn_dist.runs.saved import SavedRun
from hdnn_dist.runs.scaling import scaling, target_scaling
from hdnn_dist.support.arguments import one_line, require_memory
from hdnn_dist.support.files import whole_file
from hdnn_dist.support.version import VERSION
from hdnn_dist.training.inputs import column_index, positions_of

FORMAT = "hdnn-dist, dense, 1"
CHECKSUM = "checksum"
Tensors = dict[str, Tensor]


def dense_tensors(saved: SavedRun) -> Tensors:
    """What the head of this file lists, K (layers, n, n) and so on, by name; on one rank.

    ``ValueError`` for more than the memory holds.
    """
    net, n = saved.net, int(saved.net.features.sum())
    require_memory(f"dense matrices of {net.layers} layers of {n} features", 8 * net.layers * n * n)
    K, b, J = net.dense()
    found = {"K": K, "b": b, "J": J, **_readout(saved), **_entering(saved), **_as_trained(net), **shared_parts(saved)}
    return {name: part.detach().cpu().contiguous() for name, part in found.items()}


def facts(saved: SavedRun) -> dict[str, Any]:
    """What the metadata say of a network; ``ValueError`` for one that dense matrices do not tell all of."""
    net, about = saved.net, saved.about
    if not net.activation.built_in:
        raise ValueError(
            f"activation {net.activation.name!r} is a function of your own, which no file holds: export what it is "
            "trained with under the name of a built-in one, or use hdnn_dist.load"
        )
    return {
        "format": FORMAT,
        "architecture": net.architecture.name,
        "scheme": "euler" if net.architecture.simultaneous else "split",
        "step": net.step,
        "activation": net.activation.name,
        **layer_facts(net.architecture, net.step),
        "order": "first halves of all agents, then second halves" if net.architecture.halves else "agent after agent",
        "agent": np.repeat(np.arange(len(net.features)), net.features)[_order(net)].tolist(),
        "features": net.features.tolist(),
        "labels": net.agents.graph.labels,
        "lift": saved.lift is not None,
        "image": about.image,
        "data": about.name,
        "task": about.task,
        "classes": about.classes,
        "targets": about.targets,
        "class_names": about.class_names,
        "outputs": names_of(saved.head, net.agents.graph.label),
        "loss": saved.head.criterion.name,
        "weights": net.about(),
        "version": VERSION,
    }


def layer_facts(architecture: Architecture, step: float) -> dict[str, Any]:
    """A layer as half-steps that read K, b and J of the dense view; ``ValueError`` where these do not say all."""
    return {
        "parts": len(architecture.parts),
        "simultaneous": architecture.simultaneous,
        "half_steps": [_half_step(architecture, half, step) for half in architecture.layer],
    }


def write_dense(path: Path, tensors: Tensors, about: Mapping[str, Any]) -> None:
    """Write the file, whole or not at all; tensors of any shape, with a checksum over all of them."""
    texts = {name: json.dumps(value) for name, value in about.items()}
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata={**texts, CHECKSUM: json.dumps(checksum(tensors))})


def read_dense(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors of any shape and metadata; ``ValueError`` for a file that is missing, damaged or of another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            texts, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {one_line(error)}") from None
    if texts.get("format") != json.dumps(FORMAT):
        raise ValueError(f"{path} is not a file of 'hdnn-dist export': its metadata have no format {FORMAT!r}")
    about = {name: json.loads(text) for name, text in texts.items()}
    if about.get(CHECKSUM) != checksum(tensors):
        raise ValueError(f"{path} is damaged: its tensors do not have the checksum in its metadata; export it again")
    return tensors, about


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over tensors of any shape, with their names, in the order of these."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        part = tensors[name].contiguous()
        total.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
        total.update(part.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _half_step(architecture: Architecture, half: HalfStep, step: float) -> dict[str, Any]:
    source = architecture.parts.index(half.source)
    rows = architecture.operators[half.operator].biases[half.bias] or 0
    if not half.field.in_closed_form() or not _stands(architecture, half, rows, source):
        raise ValueError(
            f"{architecture.name} cannot be exported: its vector field {half.field.__name__} is not told by the dense K"
        )
    return {
        "source": source,
        "target": architecture.parts.index(half.target),
        "rows": rows,
        "scale": half.scale(step),
        "gradient": half.field.gradient,
        "coupled": half.coupled,
        "replaces": half.replaces,
    }


def _stands(architecture: Architecture, half: HalfStep, rows: int, source: int) -> bool:
    """Whether L of a half-step stands in the dense K, in these halves."""
    operator = architecture.operators[half.operator]
    place, here = (operator.rows or 0, operator.columns or 0), (rows, source)
    if operator.skew:
        return half.field.coefficients == Coefficients(1.0, -1.0)
    mirrored = operator.mirrored and half.field.coefficients == Coefficients(0.0, -1.0) and here == place[::-1]
    return mirrored or (half.field.coefficients == Coefficients(1.0, 0.0) and here == place)


def _order(net: HDNN) -> np.ndarray:
    return net.architecture.dense_rows(net.features)


def _readout(saved: SavedRun) -> Tensors:
    """A weight of an agent that is not read, or of one for the output of another, is zero."""
    net, head = saved.net, saved.head
    starts = np.cumsum(net.features) - net.features
    positions = int(np.prod(positions_of(saved.config, saved.about)))
    dense = head.weights.new_zeros(outputs_of(head), int(net.features.sum()), positions)
    bias = head.weights.new_zeros(outputs_of(head))
    for agent, place, view in views_of(head):
        if agent is None:
            bias[place] = view.detach()
        else:
            start, width = starts[agent], net.features[agent]
            dense[place, start : start + width] = view.detach().unflatten(1, (width, positions))
    return {"readout": dense[:, _order(net)].flatten(1), "readout_bias": bias}


def _entering(saved: SavedRun) -> Tensors:
    """From the columns of the data set to the first state."""
    order, like = _order(saved.net), saved.net.trained_weights
    mean, std = scaling(saved.statistics, saved.columns, saved.about.columns)
    targets = target_scaling(saved.head, saved.statistics)
    scales = {"mean": mean, "std": std, "target_mean": targets[0], "target_std": targets[1]}
    found = {name: like.new_tensor(values) for name, values in scales.items()}
    if saved.lift is not None:
        return {**found, "lift_weights": saved.lift.weights[order], "lift_bias": saved.lift.bias[order]}
    columns = column_index(saved.columns, saved.about, saved.net.agents)[order]
    return {**found, "columns": torch.as_tensor(columns)}


def _as_trained(net: HDNN) -> Tensors:
    """What the dense view does not give back: of a skew matrix, the blocks that are stored."""
    found: Tensors = {}
    if net.architecture.skew:
        found["U"] = net.operators()[:, 0]
    if net.coupling_spec.kind == "skew":
        n = int(net.features.sum())
        rows, columns, _ = net.coupling_spec.layouts[0].positions()
        found["A"] = net.coupling.detach().new_zeros(len(net.coupling), n, n)
        found["A"][:, rows, columns] = net.coupling.detach()[:, : len(rows)]
    return found


def shared_parts(saved: SavedRun) -> Tensors:
    """What all agents share, of any shape, by its name here: views of the parameters."""
    parts = [part for module in (saved.net, *saved.others) for part in module.trained() if part.shared]
    return {part.name.replace(".", "_"): part.view(part.parameter) for part in parts}
