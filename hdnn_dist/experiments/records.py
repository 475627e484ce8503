"""What has been trained already: a JSON Lines file, a line for each training that ended."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hdnn_dist.experiments.cells import Result
from hdnn_dist.model.first_weights import WAVE
from hdnn_dist.training.config import Config
from hdnn_dist.training.config_files import parse_config


class Records:
    """The results in a file, each with the config that gave it.

    A config is found again only if all of its keys have the same values, but for those that change no result. What was
    recorded before a key was there has its default.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_bytes().decode(errors="replace") if path.exists() else ""
        self._torn = bool(text) and not text.endswith("\n")
        self._known = dict(entry for line in text.splitlines() if (entry := _entry(line)) is not None)

    def find(self, config: Config) -> Result | None:
        """The result of this config, None where it has not been trained yet."""
        return self._known.get(_key(_identity(config)))

    def add(self, labels: Mapping[str, Any], config: Config, result: Result) -> None:
        """Append a line in one write, behind the end of a line that an earlier call has left half-written."""
        identity = _identity(config)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({**labels, "result": asdict(result), "config": identity}) + "\n"
        with self.path.open("ab", buffering=0) as file:
            file.write(("\n" * self._torn + line).encode())
            os.fsync(file.fileno())
        self._torn = False
        self._known[_key(identity)] = result


def is_record(path: Path) -> bool:
    """Whether a file holds a line of ours, be it cut off, or none at all."""
    text = path.read_bytes()
    return not text.strip() or any(_entry(line) is not None for line in text.decode(errors="replace").splitlines())


def _identity(config: Config) -> dict[str, Any]:
    """Without what changes no result: where the data are, what carries messages, of which one process has none, who is
    told of epochs, and what a wave would be where there is none.
    """
    values = config.model_dump(mode="json")
    for name in ("links", "tensorboard", "tracker", "tracker_project", "checkpoint"):
        del values[name]
    for name in ("root", "cache"):
        del values["data"][name]
    if config.network.initial != WAVE:
        del values["network"]["courant"], values["network"]["jitter"]
    return values


def _key(identity: dict[str, Any]) -> str:
    return json.dumps(identity, sort_keys=True)


def _entry(line: str) -> tuple[str, Result] | None:
    """Config and result of a line; None for one that was not written to its end."""
    try:
        row = json.loads(line)
        return _key(_identity(parse_config(row["config"], "a record"))), Result(**row["result"])
    except (ValueError, KeyError, TypeError):
        return None
