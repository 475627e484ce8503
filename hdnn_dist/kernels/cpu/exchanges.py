"""An exchange inside a pass, compiled: rows of a tile into the rings of neighbouring ranks, and from them.

Only samples travel, not the columns beyond the last one. Those repeat it in states, and are zero in gradients:
``blank`` says which, for the first of two buffers; a second one holds gradients.
"""

from __future__ import annotations

from numba import njit

from hdnn_dist.exchange.shared_memory.rings import (
    arrived_slot,
    is_free,
    next_slot,
    release,
    send,
    size_of,
    wait,
)
from hdnn_dist.support.compiled.functions import FAST
from hdnn_dist.support.compiled.memory import address_of, copy_bytes, number_at

# What a pass stops for: nothing, it is done; a message that has not come; a full ring; the transport, which has to take
# what is in the rings; a message of another size than was to come.
DONE, LATE, FULL, POST, MISFIT = range(5)


@njit(**FAST)
def _put(slot, a, rows, first, last, count):
    """Rows of a tile to an address, side by side."""
    size = count * a.itemsize
    for r in range(first, last):
        copy_bytes(slot, address_of(a, rows[r]), size)
        slot += size


@njit(**FAST)
def _take(slot, a, rows, first, last, count, blank):
    """And from there."""
    size = count * a.itemsize
    for r in range(first, last):
        row = rows[r]
        copy_bytes(address_of(a, row), slot, size)
        slot += size
        rest = a.dtype.type(0) if blank else a[row, count - 1]
        for j in range(count, a.shape[1]):
            a[row, j] = rest


@njit(**FAST)
def _add(slot, a, rows, first, last, count, blank):
    """The same, added to what is there."""
    for r in range(first, last):
        row = rows[r]
        for j in range(count):
            a[row, j] += number_at(slot + j * a.itemsize, a)
        slot += count * a.itemsize
        rest = a.dtype.type(0) if blank else number_at(slot - a.itemsize, a)
        for j in range(count, a.shape[1]):
            a[row, j] += rest


@njit(**FAST)
def send_rows(messages, first, last, progress, rows, a, b, both, count, waited):
    """Send the rows of a, and of b if ``both``, to every peer; returns what to stop for.

    ``progress``: (1,) the number of messages that are done, from which it goes on when it is called again.
    """
    network = False
    for m in range(first, last):
        message = messages[m]
        network |= message.network != 0
        size = message.out_last - message.out_first
        if m - first < progress[0] or size == 0:
            continue
        if not is_free(message.outgoing) and not wait(message.outgoing, True, waited):
            return FULL
        slot = next_slot(message.outgoing)
        _put(slot, a, rows, message.out_first, message.out_last, count)
        size *= count * a.itemsize
        if both:
            _put(slot + size, b, rows, message.out_first, message.out_last, count)
            size *= 2
        send(message.outgoing, slot, size)
        progress[0] = m - first + 1
    return POST if network else DONE


@njit(**FAST)
def take_rows(messages, first, last, progress, rows, a, b, both, add, blank, count, waited):
    """Put, or ``add``, what every peer has sent into the rows of a, and of b if ``both``; returns what to stop for."""
    for m in range(first, last):
        message = messages[m]
        size = (message.in_last - message.in_first) * count * a.itemsize
        if m - first < progress[0] or size == 0:
            continue
        slot = arrived_slot(message.incoming)
        if slot == 0:
            if message.network or not wait(message.incoming, False, waited):
                progress[0] = m - first
                return LATE
            slot = arrived_slot(message.incoming)
        if size_of(slot) != (2 * size if both else size):
            progress[0] = m - first
            return MISFIT
        if add:
            _add(slot, a, rows, message.in_first, message.in_last, count, blank)
            if both:
                _add(slot + size, b, rows, message.in_first, message.in_last, count, True)
        else:
            _take(slot, a, rows, message.in_first, message.in_last, count, blank)
            if both:
                _take(slot + size, b, rows, message.in_first, message.in_last, count, True)
        release(message.incoming)
        progress[0] = m - first + 1
    return DONE
