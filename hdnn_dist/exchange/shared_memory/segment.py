"""The memory of one edge between two ranks of a host: without a name, so nothing is left behind, however they end.

It is made by the lower of the two ranks; the other opens it by the number of its file in that process, while both live.
Each holds a lock on a byte of it, which the kernel releases when a process ends, in whatever way.

Rings lie in it by their size: for every power of two of bytes and of slots there is a place in each direction, which
takes memory when it is first used, on both sides the same without a word. All messages of an edge go through them, in
the order in which both ranks come to them.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import weakref
from functools import cache
from pathlib import Path

import numpy as np

from hdnn_dist.exchange.shared_memory.rings import MESSAGE_AT, RING, SLOTS_AT

MARK = 32  # bytes at the beginning, which tell the memory from any other
DIRECTION_BITS, SIZE_BITS, SLOT_BITS = 56, 50, 47  # of the address of a ring: its direction, size and slots
LEAST_BITS, MOST_BITS = 6, 40  # of the size of a message
LEAST_SLOTS, MOST_SLOTS = 2, 6  # bits of their number
LOCK = "hhqqi4x"  # struct flock


def memory_of(mine: int, peer: int) -> int:
    """A file in memory for the edge between two ranks; ``OSError`` where the system has none."""
    return os.memfd_create(f"hdnn-dist edge {min(mine, peer)}-{max(mine, peer)}", os.MFD_CLOEXEC)


class Segment:
    """One side of it. ``OSError`` for memory that cannot be had, ``ValueError`` for another one than was meant.

    ``file``: its descriptor, which is closed with it; ``side``: 0 for the rank that made it, 1 for the other.
    """

    def __init__(self, file: int, side: int, mark: bytes) -> None:
        self._file, self._side = file, side
        weakref.finalize(self, os.close, file)
        if side == 0:
            os.ftruncate(file, 1 << (DIRECTION_BITS + 1))
            os.pwrite(file, mark, 0)
        elif os.pread(file, MARK, 0) != mark:
            raise ValueError("this is not the memory of the edge")
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, side)
        self.ring = cache(self._ring)

    def peer_lives(self) -> bool:
        """Whether the other side has not left, and its process has not ended."""
        asked = struct.pack(LOCK, fcntl.F_WRLCK, os.SEEK_SET, 1 - self._side, 1, 0)
        return bool(struct.unpack(LOCK, fcntl.fcntl(self._file, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK)

    def leave(self) -> None:
        """Let the other side find that this one has ended, before it has: what was sent may still be taken."""
        with contextlib.suppress(OSError):  # closed, at the very end
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._side)

    def sender(self, size: int, slots: int) -> np.ndarray:
        """A scalar, the ``RING`` for messages of up to ``size`` bytes that leave, with at least so many slots."""
        return self.ring(self._side, *_bits(size, slots))  # type: ignore[no-any-return]

    def receiver(self, size: int, slots: int) -> np.ndarray:
        """A scalar, that of those that come."""
        return self.ring(1 - self._side, *_bits(size, slots))  # type: ignore[no-any-return]

    def _ring(self, direction: int, size: int, slots: int) -> np.ndarray:
        stride = MESSAGE_AT + (1 << size)
        room = SLOTS_AT + (stride << slots)
        start = (direction << DIRECTION_BITS) + (size << SIZE_BITS) + (slots << SLOT_BITS)
        os.posix_fallocate(self._file, start, room)
        memory = np.frombuffer(mmap.mmap(self._file, room, offset=start), np.uint8)
        self.__dict__.setdefault("_memory", []).append(memory)
        return np.array((memory.ctypes.data, stride, 1 << slots), dtype=RING)


def _bits(size: int, slots: int) -> tuple[int, int]:
    return max((size - 1).bit_length(), LEAST_BITS), max((slots - 1).bit_length(), LEAST_SLOTS)


def machine() -> str:
    """What two processes have in common that can see each other's files; empty where there is no such thing."""
    try:
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{started} {os.readlink('/proc/self/ns/pid')} {os.readlink('/proc/self/ns/user')}"
    except OSError:
        return ""


def opened(process: int, file: int) -> int:
    """The file of another process; ``OSError`` where it cannot be seen."""
    return os.open(f"/proc/{process}/fd/{file}", os.O_RDWR | os.O_CLOEXEC)
