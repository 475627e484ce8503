"""The index of a checkpoint, index.json: written last, so that a checkpoint is complete or absent.

Checkpoints are folders step-NNNNNNNN, by the number of steps that were done; what has no index is of no meaning.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hdnn_dist.support.files import durable_file

INDEX, FORMAT = "index.json", 1
STEP = "step-*"
CHUNK = 1 << 22  # bytes


@dataclass(frozen=True)
class CheckpointIndex:
    """What a checkpoint holds.

    ``step``: steps of the optimiser so far; ``epoch``, ``at``: epochs that are finished, and steps of the next one;
    ``config``: the dotted keys of the run; ``about``: what its weights are of; ``owners``: the rank whose files hold
    each agent; ``files``: name -> (bytes, CRC-32); ``schedule``: of the learning rate; ``rows``: of metrics.jsonl;
    ``extra``: numbers of the trainer; ``labels``: what the graph's file calls the agents; ``root``: the agent of the
    readout's root.
    """

    step: int
    epoch: int
    at: int
    ranks: int
    owners: list[int]
    files: dict[str, tuple[int, int]]
    about: dict[str, str]
    config: dict[str, Any]
    schedule: dict[str, Any]
    rows: list[dict[str, Any]]
    extra: dict[str, float]
    labels: list[Any] | None = None
    root: int = 0
    format: int = field(default=FORMAT)

    def text(self) -> str:
        """As JSON, with a checksum of its own, which a flipped byte breaks."""
        body = json.dumps(asdict(self))
        return f'{{"crc32": {zlib.crc32(body.encode())}, "checkpoint":\n{body}\n}}\n'

    @classmethod
    def parse(cls, text: str, path: Path) -> CheckpointIndex:
        """The inverse of ``text``; ``ValueError`` that names ``path`` for anything else."""
        try:
            about, body = json.loads(text), text.split("\n")[1]
            if about["crc32"] != zlib.crc32(body.encode()):
                raise ValueError("its checksum is another")
            if about["checkpoint"]["format"] != FORMAT:
                raise ValueError(f"its format is {about['checkpoint']['format']}, but this version reads {FORMAT}")
            index = cls(**about["checkpoint"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}): resume from another checkpoint") from None
        index.files.update({name: (size, crc) for name, (size, crc) in index.files.items()})
        return index


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint after so many steps is, or will be."""
    return folder / f"step-{step:08d}"


def write_index(folder: Path, index: CheckpointIndex) -> Path:
    """Make the checkpoint in ``folder`` complete."""
    path = folder / INDEX
    with durable_file(path) as file:
        file.write(index.text().encode())
    return path


def read_index(folder: Path) -> CheckpointIndex:
    """The index of one checkpoint; ``ValueError`` where it is damaged or absent."""
    path = folder / INDEX
    try:
        return CheckpointIndex.parse(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): {folder} is no complete checkpoint") from None


def complete(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, the newest first. Whether they are sound shows when they are read."""
    return sorted((path.parent for path in folder.glob(f"{STEP}/{INDEX}")), key=_step, reverse=True)


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, if there is any."""
    return next(iter(complete(folder)), None)


def set_aside(folder: Path, after: int) -> None:
    """Before a run goes on: give checkpoints of later steps, or damaged ones, a name that nobody looks for."""
    for path in complete(folder):
        if _step(path) > after:
            path.rename(_free(path.with_name(f"aside-{path.name}")))


def remove_others(folder: Path, steps: Container[int]) -> None:
    """Remove what was being written when a run ended, everything but the checkpoints of these ``steps``."""
    for path in folder.glob(STEP):
        if _step(path) not in steps:
            shutil.rmtree(path, ignore_errors=True)


def remove_checkpoints(folder: Path) -> None:
    """Remove those of an earlier run, the index of each first, so that it is never half there."""
    for path in folder.glob(STEP):
        (path / INDEX).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)


def check_file(folder: Path, name: str, files: Mapping[str, tuple[int, int]]) -> None:
    """``ValueError`` that names the file unless it is as the index says."""
    path = folder / name
    size, crc = files[name]
    try:
        found = path.stat().st_size
    except OSError:
        raise ValueError(f"{path} is missing: the index of the checkpoint names it") from None
    if found != size:
        raise ValueError(f"{path} is damaged: it has {found} bytes, but its index says {size}")
    if checksum(path) != crc:
        raise ValueError(f"{path} is damaged: its checksum is not that of its index")


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _free(path: Path) -> Path:
    """A name that nothing has: this one, or with a number behind it."""
    return next(
        name for name in (path, *(path.with_name(f"{path.name}-{n}") for n in range(2, 10**6))) if not name.exists()
    )


def _step(folder: Path) -> int:
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdecimal() else -1
