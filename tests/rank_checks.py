"""The side of a rank: what a script does that checks a contract on every rank of a job."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from hdnn_dist import connect
from hdnn_dist.exchange.world import World


def main(checks: Sequence[Callable[[World], None]]) -> None:
    """Write argv[1]/RANK.json, the transport and for each check "ok" or the traceback; the first that fails ends it."""
    torch.set_num_threads(1)
    found: dict[str, str] = {}
    with connect(links=os.environ.get("LINKS", "auto")) as world:
        for check in checks:
            try:
                check(world)
                found[check.__name__] = "ok"
            except Exception:
                found[check.__name__] = traceback.format_exc()
                break
        content = json.dumps({"transport": world.transport, **found})
        (Path(sys.argv[1]) / f"{world.rank}.json").write_text(content)
        if set(found.values()) != {"ok"}:
            sys.exit(1)  # ends the job: the other ranks wait in an exchange that will not come
