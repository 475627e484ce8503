"""Which processes share memory: what they map in common, or could, as /proc shows it. Linux only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
GONE = " (deleted)"
IN_MEMORY = ("/memfd:", "/dev/shm/", "/dev/zero", "/dev/hugepages", "/SYSV", "/anon_hugepage")


@dataclass(frozen=True)
class Segment:
    """``name``: as /proc shows it; ``holders``: the processes that map it or hold it open, ``writers``: may write."""

    name: str
    holders: set[int] = field(default_factory=set)
    writers: set[int] = field(default_factory=set)


def segments_of(processes: Sequence[int]) -> list[Segment]:
    """What more than one of these processes can see and one can write, by name.

    ``OSError`` where one of them has ended, or belongs to another user.
    """
    found: dict[tuple[int, int, str], Segment] = {}
    for process in processes:
        for key, writes in (*_maps(process), *_open(process)):
            segment = found.setdefault(key, Segment(key[2]))
            segment.holders.add(process)
            if writes:
                segment.writers.add(process)
    shared = (segment for segment in found.values() if len(segment.holders) > 1 and segment.writers)
    return sorted(shared, key=lambda segment: segment.name)


def _maps(process: int) -> Iterator[tuple[tuple[int, int, str], bool]]:
    """((device, inode, name), whether it may be written) of what is mapped to be shared; no devices."""
    for line in (PROC / str(process) / "maps").read_text().splitlines():
        _, permissions, _, device, inode, *name = line.split(maxsplit=5)
        path = "".join(name).removesuffix(GONE)
        if permissions[3] == "s" and inode != "0" and not _is_device(path):
            major, minor = (int(number, 16) for number in device.split(":"))
            yield (os.makedev(major, minor), int(inode), path), "w" in permissions


def _open(process: int) -> Iterator[tuple[tuple[int, int, str], bool]]:
    """The same of memory that is open, mapped or not."""
    folder = PROC / str(process) / "fd"
    for name in os.listdir(folder):
        try:
            path = os.readlink(folder / name).removesuffix(GONE)
            about, mode = os.stat(folder / name), os.lstat(folder / name).st_mode
        except FileNotFoundError:  # closed a moment ago
            continue
        if path.startswith(IN_MEMORY):
            yield (about.st_dev, about.st_ino, path), bool(mode & 0o200)


def _is_device(path: str) -> bool:
    return path.startswith("/dev/") and not path.startswith(IN_MEMORY)
