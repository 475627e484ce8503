"""What is known of the data of a run, kept in its folder: the network can then be used where the data are not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hdnn_dist.data.source import Description
from hdnn_dist.runs.opened import Opened
from hdnn_dist.support.arguments import one_line
from hdnn_dist.support.files import write_whole
from hdnn_dist.training.build import described

DATA = "data.json"


def save_description(about: Description, folder: Path) -> Path:
    """Write data.json; on the root's rank only."""
    return write_whole(folder / DATA, json.dumps(asdict(about), indent=2) + "\n")


def description_of(opened: Opened) -> Description:
    """From data.json, or of the data set itself where a run has none; ``ValueError`` for a damaged file."""
    path = opened.path / DATA
    if not path.is_file():
        return described(opened.config, opened.graph)
    try:
        return restored(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not describe data ({one_line(error)}): train again, or remove it") from None


def restored(content: dict[str, Any]) -> Description:
    """The inverse of ``asdict``, after JSON: lists are tuples, and agents are numbers."""
    return Description(**{name: _typed(value) for name, value in content.items()})


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        return {int(agent): _typed(own) for agent, own in value.items()}
    return tuple(map(_typed, value)) if isinstance(value, list) else value
