"""What is known of the data of a run, kept in its folder: the network can then be used where the data are not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hdnn_dist.data.dataset import describe
from hdnn_dist.data.source import Description
from hdnn_dist.runs.opened import Opened
from hdnn_dist.support.arguments import one_line
from hdnn_dist.support.files import write_whole

DATA = "data.json"


def save_description(about: Description, folder: Path) -> Path:
    """Write data.json; on the root's rank only."""
    return write_whole(folder / DATA, json.dumps(asdict(about), indent=2) + "\n")


def description_of(opened: Opened) -> Description:
    """From data.json, or of the data set itself where a run has none; ``ValueError`` for a damaged file."""
    path = opened.path / DATA
    if not path.is_file():
        return describe(opened.config.data.name, root=opened.config.data.root, graph=opened.graph)
    try:
        return described(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not describe data ({one_line(error)}): train again, or remove it") from None


def described(content: dict[str, Any]) -> Description:
    """The inverse of ``asdict``, after JSON: pairs are tuples, and agents are numbers."""
    image, targets = content.get("image"), content.get("targets")
    pair = None if image is None else tuple(image)
    numbered = None if targets is None else {int(agent): outputs for agent, outputs in targets.items()}
    return Description(**{**content, "image": pair, "targets": numbered})
