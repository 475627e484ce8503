"""The config of a run: its keys, their defaults, and one-line errors for what is wrong with a file or an override."""

from __future__ import annotations

import difflib
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from hdnn_dist.graph.labels import is_whole
from hdnn_dist.support.arguments import LARGEST

Positive = Annotated[float, Field(gt=0, le=LARGEST)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST)]
MOST = 2**31 - 1
Count = Annotated[int, Field(ge=1, le=MOST)]

Agent = int | str  # its number, or what the graph's file calls it

OWN_KEYS = ("graph", "threads", "data.root", "network.kernel")  # which may differ from rank to rank


class ConfigError(ValueError):
    """The config cannot be used; one line says where, what was given, what was expected."""


class Section(BaseModel):
    """Keys that are not declared are errors, and values are not converted.

    A key whose value has parts, or can be of several types, has a ``description``: what an error says it should be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class NetworkConfig(Section):
    """The network; the keys are the arguments of ``HDNN``.

    ``lift``: "convolution" where every agent sees the whole image and the layers act at every pixel.
    """

    architecture: str = "H2"
    features: Annotated[int | list[int], Field(description="a whole number, or a list of one for each agent")] = 2
    layers: Count = 32
    step: Positive = 0.1
    initial: str = "normal"
    pattern: Annotated[
        list[tuple[Agent, Agent]] | None,
        Field(description="a list of pairs of agents, such as [[0, 0], [0, 1], [1, 1]]"),
    ] = None
    scheme: Literal["euler"] | None = None
    activation: str = "tanh"
    coupling: Literal["I", "J1", "J2", "trained"] | None = None
    damping: NotNegative = 0.0
    store_every: Count = 1
    lift: Literal["convolution"] | None = None
    kernel: str = "auto"


class ReadoutConfig(Section):
    """``at``: ``"all"``, ``"centre"`` or a list of agents; ``root``: where the labels are."""

    at: Annotated[
        Literal["all", "centre"] | list[Agent],
        Field(description="'all', 'centre' or a list of agents, such as [0]"),
    ] = "all"
    root: Annotated[Agent | None, Field(description="an agent, such as 0")] = None
    loss: str = "cross_entropy"


class DataConfig(Section):
    """Where samples come from and where their columns enter.

    ``columns``: agent -> its columns, -1 for a zero; ``patch``: height and width of the part of an image that each
    agent sees. Without either the columns are spread evenly over the agents.
    """

    name: str = "double_circles"
    samples: Count | None = None
    noise: NotNegative | None = None
    root: str | None = None
    columns: Annotated[
        dict[Agent, list[int]] | None,
        Field(description="a table from agents to lists of columns, such as {0 = [0], 4 = [1]}"),
    ] = None
    patch: Annotated[
        tuple[Count, Count] | None, Field(description="a height and a width in pixels, such as [2, 2]")
    ] = None


class OptimizerConfig(Section):
    """``schedule`` changes the learning rate per step from ``learning_rate``, for ``one_cycle`` its peak."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Positive = 0.05
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


class Config(Section):
    """A whole run. Without a file: 8 agents on a ring, H2, double circles.

    ``record_gradients``: write the norm of the gradient of every layer, step by step, to gradients.jsonl;
    ``check_finite``: look for NaN and infinity in each step, not only at the end of an epoch; ``links``: as of
    ``connect``.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    dtype: Literal["float32", "float64"] = "float32"
    epochs: Annotated[int, Field(ge=0, le=MOST)] = 50
    batch_size: Count = 125
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    record_gradients: bool = False
    check_finite: bool = False
    timeout: Annotated[float, Field(gt=0, le=1e9)] = 300.0
    links: Literal["auto", "network"] = "auto"
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


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """The config of a TOML file (defaults without one), changed by ``key=value`` overrides.

    A value is read as TOML and, where it is not TOML, as a string. Raises ``ConfigError``.
    """
    values = {} if path is None else _read(path)
    for override in overrides:
        _override(values, override)
    origin = "--set" if path is None else f"{path} or --set" if overrides else str(path)
    return parse_config(values, origin)


def parse_config(values: Mapping[str, Any], origin: str) -> Config:
    """A config from nested values; errors begin with ``origin``."""
    try:
        return Config.model_validate(_typed(values))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_explain(error.errors()[-1], values)}") from None


def dump_config(config: Config) -> str:
    """The resolved config as TOML that ``load_config`` reads back; keys without a value are left out."""
    return tomli_w.dumps(config.model_dump(exclude_none=True, mode="json"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist: give an existing TOML file, or none") from None
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is not TOML: {error}") from None


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override!r}: expected key=value, such as --set network.layers=64")
    *sections, name = key.strip().split(".")
    if not all([*sections, name]):
        raise ConfigError(f"--set {override!r}: {key!r} is no key, such as network.layers")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override!r}: {section!r} is a value, not a section")
    values[name] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """TOML's types as the strict models want them: keys that are numbers are such, and pairs are tuples."""
    typed = dict(values)
    if isinstance(placement := typed.get("placement"), dict):
        typed["placement"] = _numbered(placement)
    if isinstance(data := typed.get("data"), dict):
        typed["data"] = _typed_data(data)
    if isinstance(network := typed.get("network"), dict) and isinstance(network.get("pattern"), list):
        pairs = [tuple(pair) if isinstance(pair, list) else pair for pair in network["pattern"]]
        typed["network"] = {**network, "pattern": pairs}
    return typed


def _typed_data(data: Mapping[str, Any]) -> dict[str, Any]:
    typed = dict(data)
    if isinstance(columns := data.get("columns"), dict):
        typed["columns"] = _numbered(columns)
    if isinstance(patch := data.get("patch"), list):
        typed["patch"] = tuple(patch)
    return typed


def _numbered(table: Mapping[Any, Any]) -> dict[Any, Any]:
    return {int(key) if isinstance(key, str) and is_whole(key) else key: value for key, value in table.items()}


def _explain(problem: ErrorDetails, values: Any) -> str:
    """One problem in one line, in terms of the config, not of its model."""
    if problem["type"] == "extra_forbidden":
        return _unknown_key(".".join(map(str, problem["loc"])), problem["input"])
    key, expected = _declared(problem["loc"])
    for name in key:
        values = values[name]
    message = problem["msg"].removeprefix("Input should be ").replace("valid integer", "whole number")
    message = message.replace("valid ", "")
    return f"{'.'.join(key)} is {reprlib.repr(values)}: it should be {expected or message}"


def _declared(location: Sequence[int | str]) -> tuple[list[str], str | None]:
    """The key to which a location inside its value belongs, and what that value should be if this is written down."""
    section: type[Section] = Config
    key: list[str] = []
    for name in map(str, location):
        field = section.model_fields[name]
        key.append(name)
        if not _is_section(field.annotation):
            return key, field.description
        section = field.annotation
    return key, f"a section with the keys {', '.join(section.model_fields)}"


def _unknown_key(key: str, given: Any) -> str:
    if isinstance(given, dict) and given:
        key += f".{next(iter(given))}"
    keys, section = known_keys(), key.rpartition(".")[0]
    ends = [name for name in keys if name.endswith(f".{key}")]
    if near := ends or difflib.get_close_matches(key, keys, n=1, cutoff=0.6):
        return f"unknown key {key!r}: did you mean {near[0]!r}?"
    beside = [name for name in keys if section and name.startswith(f"{section}.")] or list(Config.model_fields)
    return f"unknown key {key!r}: there are {', '.join(beside)}"


def known_keys(section: type[Section] = Config, prefix: str = "") -> list[str]:
    """All keys, dotted."""
    keys = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        keys += known_keys(inner, f"{prefix}{name}.") if _is_section(inner) else [prefix + name]
    return keys


def shared_keys(config: Config) -> dict[str, object]:
    """The dotted keys that every rank needs alike; the graph itself is compared where agents are placed."""
    values = {key: reduce(getattr, key.split("."), config) for key in known_keys()}
    return {key: value for key, value in values.items() if key not in OWN_KEYS}


def _is_section(annotation: Any) -> TypeGuard[type[Section]]:
    return isinstance(annotation, type) and issubclass(annotation, Section)
