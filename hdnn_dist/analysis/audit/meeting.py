"""Where the ranks of an audit and the auditor meet: files in a folder, so that no connection is made for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hdnn_dist.support.files import write_whole

NAP = 0.02  # seconds between two looks
WARM, STEPPED, TOLD = STAGES = ("warm", "stepped", "told")


class Meeting:
    """``folder``: empty, and the same for all; ``timeout``: seconds in which the others have to come."""

    def __init__(self, folder: Path, timeout: float) -> None:
        self.folder, self.timeout = folder, timeout

    def tell(self, stage: str, rank: int, content: object) -> None:
        """As a rank: say that this stage is reached, and wait until the auditor has seen it.

        ``TimeoutError`` where the auditor does not come.
        """
        write_whole(self.folder / f"{stage}-{rank}.json", json.dumps(content))
        self._until((self.folder / stage).exists, f"the audit has not looked at stage {stage!r}")

    def heard(self, stage: str, ranks: int, look: Callable[[], None]) -> list[Any]:
        """As the auditor: what every rank says at this stage. ``look`` is called while they are waited for."""
        files = [self.folder / f"{stage}-{rank}.json" for rank in range(ranks)]

        def all_there() -> bool:
            look()
            return all(file.exists() for file in files)

        self._until(all_there, f"not all ranks have reached stage {stage!r}")
        return [json.loads(file.read_text()) for file in files]

    def go_on(self, stage: str) -> None:
        """As the auditor: let the ranks leave this stage."""
        (self.folder / stage).touch()

    def _until(self, true: Callable[[], bool], late: str) -> None:
        began = time.monotonic()
        while not true():
            if time.monotonic() - began > self.timeout:
                raise TimeoutError(f"{late} within {self.timeout:g} s: see the output of the ranks, or raise timeout")
            time.sleep(NAP)
