"""What a source offers, held to its contract: one line says which samples, of which agent, do not fit."""

from __future__ import annotations

import numpy as np

from hdnn_dist.data.source import CLASSIFICATION, REGRESSION, TASKS, Description, Request, Split
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.support.arguments import shown, whole


def check_description(about: Description, graph: CommunicationGraph | None) -> None:
    """``ValueError`` unless the task is one, and targets are those of agents of the graph, where one is given."""
    if about.task not in TASKS:
        raise ValueError(f"the data set {about.name} has the task {shown(about.task)}: expected {' or '.join(TASKS)}")
    if about.targets is not None:
        _check_targets(about, graph)


def check_splits(splits: tuple[Split, Split], about: Description, request: Request) -> None:
    """``ValueError`` unless training and test samples are as ``Split`` says, with what was asked for of labels."""
    for kind, split in zip(("training", "test"), splits, strict=True):
        wrong = _wrong_inputs(split.inputs, len(request.columns)) or _wrong_answers(split, about, request)
        if wrong is not None:
            raise ValueError(f"the {kind} samples of the data set {about.name} do not fit: {wrong}; mend its read()")


def wrong_numbers(what: str, given: object, samples: int, outputs: int) -> str | None:
    """What is wrong with targets of regression, ``what`` is their name; None where they are (samples, outputs)."""
    if not isinstance(given, np.ndarray) or given.dtype.kind != "f":
        return f"{what} are {_kind(given)}, expected an array of floating-point numbers"
    if given.shape != (samples, outputs):
        return f"{what} have shape {given.shape}, expected {(samples, outputs)}, samples and outputs"
    broken = np.argwhere(~np.isfinite(given))
    if len(broken):
        sample, output = broken[0].tolist()
        return f"{what} are {given[sample, output]} at sample {sample}, output {output}, expected finite numbers"
    return None


def _check_targets(about: Description, graph: CommunicationGraph | None) -> None:
    targets = about.targets or {}
    if about.task != REGRESSION or not targets:
        raise ValueError(
            f"the data set {about.name} has targets at {len(targets)} agents for {about.task}: "
            "expected one agent or more, and regression"
        )
    for agent, outputs in targets.items():
        if graph is not None and agent not in range(graph.agents):
            raise ValueError(
                f"the data set {about.name} has targets at agent {shown(agent)}, which does not exist: "
                f"there are {graph.agents} agents, 0 to {graph.agents - 1}"
            )
        whole(f"the outputs of agent {agent} in the data set {about.name}", outputs)


def _wrong_answers(split: Split, about: Description, request: Request) -> str | None:
    if about.targets is not None:
        return _wrong_targets(split, about, request)
    if not request.labels:
        return None
    if about.task == CLASSIFICATION:
        return _wrong_labels(split.labels, len(split), about.classes)
    return wrong_numbers("labels", split.labels, len(split), about.classes)


def _wrong_targets(split: Split, about: Description, request: Request) -> str | None:
    given, outputs = split.targets or {}, about.targets or {}
    if sorted(given) != sorted(request.targets):
        return f"targets are those of agents {sorted(given)}, expected {sorted(request.targets)}"
    wrong = (wrong_numbers(f"targets of agent {a}", given[a], len(split), outputs[a]) for a in request.targets)
    return next((text for text in wrong if text is not None), None)


def _wrong_inputs(inputs: object, columns: int) -> str | None:
    if not isinstance(inputs, np.ndarray) or inputs.dtype.kind != "f":
        return f"inputs are {_kind(inputs)}, expected an array of floating-point numbers"
    if inputs.ndim != 2 or inputs.shape[1] != columns or not len(inputs):
        return f"inputs have shape {inputs.shape}, expected (samples, {columns}), one sample or more"
    return None


def _wrong_labels(labels: object, samples: int, classes: int) -> str | None:
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64:
        return f"labels are {_kind(labels)}, expected class numbers in an array of int64"
    if labels.shape != (samples,):
        return f"labels have shape {labels.shape}, expected ({samples},), one for each sample"
    if labels.min() < 0 or labels.max() >= classes:
        return f"labels run from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}"
    return None


def _kind(given: object) -> str:
    return f"an array of {given.dtype}" if isinstance(given, np.ndarray) else f"a {type(given).__name__}"
