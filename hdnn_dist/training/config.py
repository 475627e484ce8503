"""The config of a run: its keys and their defaults. ``config_files`` reads and writes it."""

from __future__ import annotations

from functools import reduce
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import Field

from hdnn_dist.support.arguments import LARGEST
from hdnn_dist.training.section import MOST, Agent, Count, NotNegative, Positive, Section
from hdnn_dist.training.table_config import TableConfig
from hdnn_dist.training.transfer_config import TransferConfig

EACH = "each"  # of readout.at
OWN_KEYS = (
    "graph",
    "threads",
    "data.root",
    "data.cache",
    "network.kernel",
    "tensorboard",
    "tracker",
    "tracker_project",
)  # which may differ from rank to rank


class ConfigError(ValueError):
    """The config cannot be used; one line says where, what was given, what was expected."""


class NetworkConfig(Section):
    """The network; the keys are the arguments of ``HDNN``.

    ``lift``: "convolution" where every agent sees the whole image and the layers act at every pixel.
    """

    architecture: str = "H2"
    features: Annotated[int | list[int], Field(description="a whole number, or a list of one for each agent")] = 2
    layers: Count = 32
    step: Positive = 0.1
    initial: str = "normal"
    courant: Positive = 0.9
    jitter: NotNegative = 0.02
    pattern: Annotated[
        list[tuple[Agent, Agent]] | None,
        Field(description="a list of pairs of agents, such as [[0, 0], [0, 1], [1, 1]]"),
    ] = None
    shared: bool = False
    normalisation: Literal["symmetric", "mean", "sum"] | None = None
    edge_labels: Annotated[
        Literal["direction"] | list[tuple[Agent, Agent, str]] | None,
        Field(description="'direction', or a list of two agents and a label, such as [[0, 1, 'up'], [1, 0, 'down']]"),
    ] = None
    scheme: Literal["euler"] | None = None
    activation: str = "tanh"
    coupling: Literal["I", "J1", "J2", "trained"] | None = None
    damping: NotNegative = 0.0
    store_every: Count = 1
    lift: Literal["convolution"] | None = None
    kernel: str = "auto"


class ReadoutConfig(Section):
    """``at``: ``"all"``, ``"centre"`` or a list of agents, or ``"each"`` where agents have targets of their own, which
    they predict themselves; ``root``: where the labels are. ``class_weights``: a number for each class, or
    ``"balanced"``; ``delta``: of the loss "huber"; ``shared``: one W for all agents that are read.
    """

    at: Annotated[
        Literal["all", "centre", "each"] | list[Agent],
        Field(description="'all', 'centre', 'each' or a list of agents, such as [0]"),
    ] = "all"
    root: Annotated[Agent | None, Field(description="an agent, such as 0")] = None
    loss: str = "cross_entropy"
    class_weights: Annotated[
        Literal["balanced"] | list[float] | None,
        Field(description="'balanced', or a list of a number for each class, such as [1.0, 5.0]"),
    ] = None
    delta: Positive | None = None
    shared: bool = False


class DataConfig(Section):
    """Where samples come from and where their columns enter.

    ``source``: "named" for the data set ``name``, "table" for files of one's own, ``table``; ``cache``: the folder in
    which those lie that do not fit into the memory; ``transfer``: of the data set ``class_transfer``. ``columns``:
    agent -> its columns, -1 for a zero; ``patch``: height and width of the part of an image that each agent sees.
    Without either the columns are spread evenly over agents, unless the data say where they enter.
    """

    source: Literal["named", "table"] = "named"
    name: str = "double_circles"
    samples: Count | None = None
    noise: NotNegative | None = None
    root: str | None = None
    cache: str = "runs/cache"
    table: TableConfig = TableConfig()
    transfer: TransferConfig = TransferConfig()
    columns: Annotated[
        dict[Agent, list[int]] | None,
        Field(description="a table from agents to lists of columns, such as {0 = [0], 4 = [1]}"),
    ] = None
    patch: Annotated[
        tuple[Count, Count] | None, Field(description="a height and a width in pixels, such as [2, 2]")
    ] = None


class OptimizerConfig(Section):
    """``schedule`` changes the learning rate per step from ``learning_rate``, for ``one_cycle`` its peak.

    ``readout_factor``: how many times that rate the readout learns with.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive = 0.05
    readout_factor: Positive = 1.0
    weight_decay: NotNegative = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["one_cycle", "cosine", "exponential", "constant"] = "one_cycle"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.8
    clip: Positive | None = None


class PenaltyConfig(Section):
    """Factors of the penalties that are added to the loss.

    ``smoothness_scale``: whether smoothness is multiplied or divided by the step; ``bound``: on the sensitivity of the
    whole network, kept by a projection after each step.
    """

    smoothness: NotNegative = 5e-4
    smoothness_scale: Literal["multiply", "divide"] = "multiply"
    weights: NotNegative = 0.0
    readout: NotNegative = 1e-4
    bound: Annotated[float, Field(gt=1, le=LARGEST)] | None = None


Metric = Literal["loss", "accuracy", "f1", "auc", "mae", "rmse", "r2"]  # of validation samples, or else of test samples


class StopConfig(Section):
    """When to end before the last epoch: after ``patience`` epochs in a row in which ``metric`` was not better than the
    best so far by more than ``min_delta``, or after ``goal_epochs`` in a row in which it was no worse than ``goal``;
    never without either.
    """

    patience: Count | None = None
    min_delta: NotNegative = 0.0
    metric: Metric = "loss"
    goal: Annotated[float | None, Field(ge=-LARGEST, le=LARGEST, description="a number, such as 0.99")] = None
    goal_epochs: Count = 1


class CheckpointConfig(Section):
    """When a checkpoint is made, 0 for never: after so many steps, epochs, minutes, or whichever comes first.

    ``keep``: how many of the last ones stay; ``best``: what decides of the one that stays besides.
    """

    every_steps: Annotated[int, Field(ge=0, le=MOST)] = 0
    every_epochs: Annotated[int, Field(ge=0, le=MOST)] = 0
    every_minutes: NotNegative = 10.0
    keep: Count = 2
    best: Metric | None = None


class Config(Section):
    """A whole run. Without a file: 8 agents on a ring, H2, double circles.

    ``accumulate``: batches a step of the optimiser, as if it were one batch so many times as large;
    ``record_gradients``: write the norm of the gradient of every layer, step by step, to gradients.jsonl;
    ``check_finite``: look for NaN and infinity in each step, not only at the end of an epoch; ``tensorboard``: write
    events into the run folder; ``tracker``: who is told of every epoch, in ``tracker_project``; ``links``,
    ``replicas``: as of ``connect``.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    dtype: Literal["float32", "float64"] = "float32"
    epochs: Annotated[int, Field(ge=0, le=MOST)] = 50
    batch_size: Count = 125
    accumulate: Count = 1
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    record_gradients: bool = False
    check_finite: bool = False
    tensorboard: bool = False
    tracker: Annotated[Literal["wandb", "trackio"] | None, Field(description="'wandb' or 'trackio'")] = None
    tracker_project: str = "hdnn-dist"
    timeout: Annotated[float, Field(gt=0, le=1e9)] = 300.0
    links: Literal["auto", "network"] = "auto"
    replicas: Count = 1
    graph: Annotated[str, Field(description="a topology, such as 'ring:8', or a graph file")] = "ring:8"
    placement: Annotated[
        str | list[int] | dict[Agent, int],
        Field(description="'auto', 'metis', 'contiguous' or a list with the rank of each agent, or a table of them"),
    ] = "auto"
    network: NetworkConfig = NetworkConfig()
    readout: ReadoutConfig = ReadoutConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    penalties: PenaltyConfig = PenaltyConfig()
    stop: StopConfig = StopConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()


def known_keys(section: type[Section] = Config, prefix: str = "") -> list[str]:
    """All keys, dotted."""
    keys = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        keys += known_keys(inner, f"{prefix}{name}.") if is_section(inner) else [prefix + name]
    return keys


def value_of(config: Config, key: str) -> object:
    """The value of a dotted key."""
    return reduce(getattr, key.split("."), config)


def shared_keys(config: Config) -> dict[str, object]:
    """The dotted keys that every rank needs alike; the graph itself is compared where agents are placed."""
    values = {key: value_of(config, key) for key in known_keys()}
    return {key: value for key, value in values.items() if key not in OWN_KEYS}


def is_section(annotation: Any) -> TypeGuard[type[Section]]:
    """Whether the type of a key is a section of its own."""
    return isinstance(annotation, type) and issubclass(annotation, Section)
