"""A tracker with wandb's interface that writes what it is told to files; tests call it trackio."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("TRACKER_FOLDER", "."))


def init(project: str, name: str, config: dict[str, Any]) -> None:
    if os.environ.get("TRACKER_FAILS") == "init":
        raise RuntimeError("no server\nanswers")
    (FOLDER / "init.json").write_text(json.dumps({"project": project, "name": name, "config": config}))


def log(numbers: dict[str, float], step: int) -> None:
    if os.environ.get("TRACKER_FAILS") == "log":
        raise RuntimeError("the server is gone")
    with (FOLDER / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, **numbers}) + "\n")


def finish() -> None:
    (FOLDER / "finished").touch()
