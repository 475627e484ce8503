"""Configs as TOML files with overrides, and one-line errors for what is wrong with either."""

from __future__ import annotations

import difflib
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hdnn_dist.graph.labels import is_whole
from hdnn_dist.training.config import Config, ConfigError, Section, is_section, known_keys

OF_PAIRS = ("pattern", "edge_labels")  # keys of network that are lists of tuples
BY_AGENT = ("files", "columns", "targets")  # of data.table: they may be tables from agents


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
    if isinstance(network := typed.get("network"), dict):
        lists = {key: network[key] for key in OF_PAIRS if isinstance(network.get(key), list)}
        typed["network"] = {**network, **{key: list(map(_tuple, given)) for key, given in lists.items()}}
    return typed


def _tuple(given: object) -> object:
    return tuple(given) if isinstance(given, list) else given


def _typed_data(data: Mapping[str, Any]) -> dict[str, Any]:
    typed = dict(data)
    if isinstance(columns := data.get("columns"), dict):
        typed["columns"] = _numbered(columns)
    if isinstance(patch := data.get("patch"), list):
        typed["patch"] = tuple(patch)
    if isinstance(table := data.get("table"), dict):
        by_agent = {
            key: _numbered(value) for key, value in table.items() if key in BY_AGENT and isinstance(value, dict)
        }
        typed["table"] = {**table, **by_agent}
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
        if not is_section(field.annotation):
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
