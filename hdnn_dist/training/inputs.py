"""Which columns of the data enter at which agent, and how a rank's network takes them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from hdnn_dist.data.columns import Columns
from hdnn_dist.data.source import Answers, Description, Values
from hdnn_dist.exchange.placement import Agents
from hdnn_dist.graph.communication import CommunicationGraph
from hdnn_dist.model.network import HDNN
from hdnn_dist.support.arguments import concerning
from hdnn_dist.training.config import Config


def columns_of(config: Config, about: Description, graph: CommunicationGraph, features: np.ndarray) -> Columns | None:
    """Which columns of the data set enter at which agent of the graph, from the config or else the data.

    ``features``: (agents,). ``None`` where a lift shows whole images to every agent.
    """
    chosen = config.data
    if config.network.lift is not None:
        _check_lift(config, about)
        return None
    if chosen.columns is not None and chosen.patch is not None:
        raise ValueError("data.columns and data.patch are both given: each says where columns enter; keep one")
    if chosen.columns is not None:
        with concerning("data.columns"):
            columns = graph.by_agent(chosen.columns)
        return Columns.from_mapping(columns, about.columns, features.tolist(), graph.named)
    if chosen.patch is not None:
        return Columns.patches(about.image, chosen.patch, features.tolist())
    if about.assignment is not None:
        return Columns.from_mapping(about.assignment, about.columns, features.tolist(), graph.named)
    return Columns.spread(about.columns, features.tolist())


def positions_of(config: Config, about: Description) -> tuple[int, ...]:
    """(height, width) of the images at whose every pixel the layers act; () without a lift."""
    return () if config.network.lift is None or about.image is None else about.image


def _check_lift(config: Config, about: Description) -> None:
    lift = config.network.lift
    if about.image is None:
        raise ValueError(
            f"network.lift {lift!r} needs images, but the data set {about.name} has none: take 'mnist' or 'digits', or "
            "leave network.lift out"
        )
    for key in ("columns", "patch"):
        if getattr(config.data, key) is not None:
            raise ValueError(
                f"network.lift {lift!r} and data.{key} are both given: before a lift every agent sees the whole image; "
                "keep one"
            )


def column_index(columns: Columns | None, about: Description, agents: Agents) -> np.ndarray:
    """(local features,) the column of the data set that each reads, -1 for a zero; before a lift all, (columns,)."""
    return np.arange(about.columns) if columns is None else columns.index(agents.local)


def as_inputs(values: np.ndarray, positions: tuple[int, ...], net: HDNN) -> Tensor:
    """(samples, columns) as the network takes them: as they are, or as images (samples, 1, height, width)."""
    inputs = torch.as_tensor(values, dtype=net.trained_weights.dtype, device=net.trained_weights.device)
    return inputs.reshape(-1, 1, *positions) if positions else inputs


def as_labels(labels: Answers | None, targets: Mapping[int, Values] | None, net: HDNN) -> Tensor | None:
    """Labels of the root, or targets of the local agents, of some samples as the head's loss takes them on this rank.

    ``labels``, ``targets``: as in ``Split``. Class numbers (samples,) stay int64; numbers become (samples, outputs) of
    the network's type, those of agents side by side in the order of the local agents; ``None`` where there are none.
    """
    if targets is not None:
        parts = [targets[agent] for agent in net.agents.local.tolist() if agent in targets]
        labels = np.concatenate(parts, axis=1, dtype=np.float64) if parts else None
    if labels is None:
        return None
    dtype = net.trained_weights.dtype if labels.dtype.kind == "f" else torch.int64
    return torch.as_tensor(labels, dtype=dtype, device=net.trained_weights.device)


def targets_here(about: Description, agents: Agents) -> list[int]:
    """The local agents with targets of their own, in the order of ``agents.local``."""
    return [agent for agent in agents.local.tolist() if agent in (about.targets or {})]
