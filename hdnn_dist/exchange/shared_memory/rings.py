"""Rings: how a message lies in memory that two processes share, and how it is passed on, compiled.

A *ring* carries messages one way, through a few slots that are used in turn. The sender writes the bytes into the next
slot, then its number with release; the receiver waits for the number with acquire, reads, and writes how many it has
taken, likewise, so that the sender knows which slots are free. What one of them waits for has a cache line of its own.

    0     how many messages were sent               for the sender alone
    8     how many of them are taken, as last seen  for the sender alone
    128   how many messages were taken              written by the receiver
    256   slot after slot, ``stride`` bytes each: its number, the size of the message, and from byte 64 on the message

A ring in private memory serves the links that a network carries: there the transport takes the messages out, and puts
those that have come in, see ``exchange.links``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hdnn_dist.support.compiled.functions import FAST, INLINE, called
from hdnn_dist.support.compiled.memory import (
    copy_bytes,
    give_way,
    load,
    load_acquire,
    nanoseconds,
    pause,
    store,
    store_release,
)

SEEN, TAKEN, SLOTS_AT, MESSAGE_AT = 8, 128, 256, 64
NUMBER_AT, SIZE_AT = SLOTS_AT, SLOTS_AT + 8  # of the first slot
YIELDS = 1000  # times that others are given way, before Python looks whether the other rank still lives
RING = np.dtype([(name, np.int64) for name in ["address", "stride", "slots"]])
PARCEL = np.dtype([("ring", RING), ("data", np.int64), ("bytes", np.int64), ("done", np.int64)])
MOST_WAITS = 1 << 20


@njit(**INLINE)
def is_free(ring):
    """Whether there is a free slot for the next message."""
    sent = load(ring.address)
    if sent - load(ring.address + SEEN) < ring.slots:
        return True
    taken = load_acquire(ring.address + TAKEN)
    store(ring.address + SEEN, taken)
    return sent - taken < ring.slots


@njit(**INLINE)
def next_slot(ring):
    """Where the sender writes the next message."""
    return ring.address + SLOTS_AT + (load(ring.address) % ring.slots) * ring.stride + MESSAGE_AT


@njit(**INLINE)
def send(ring, slot, size):
    """Hand on the message of ``size`` bytes that was written to ``slot``."""
    number = load(ring.address) + 1
    store(ring.address, number)
    store(slot - MESSAGE_AT + 8, size)
    store_release(slot - MESSAGE_AT, number)


@njit(**INLINE)
def arrived_slot(ring):
    """Where the next message stands, 0 if it has not come."""
    taken = load(ring.address + TAKEN)
    slot = ring.address + SLOTS_AT + (taken % ring.slots) * ring.stride
    return slot + MESSAGE_AT if load_acquire(slot) == taken + 1 else 0


@njit(**INLINE)
def size_of(slot):
    """Bytes of the message there."""
    return load(slot - MESSAGE_AT + 8)


@njit(**INLINE)
def release(ring):
    """Give the slot of the message that was read back."""
    store_release(ring.address + TAKEN, load(ring.address + TAKEN) + 1)


@njit(**FAST)
def wait(ring, sending, waited):
    """Whether there is a free slot (``sending``) or a message, after a while.

    ``waited``: (2,) nanoseconds so far, and how many looks to take before others on this core are given way.
    """
    began = nanoseconds()
    for look in range(waited[1] + YIELDS):
        if look < waited[1]:
            pause()
        else:
            give_way()
        if is_free(ring) if sending else arrived_slot(ring) != 0:
            waited[0] += nanoseconds() - began
            return True
    waited[0] += nanoseconds() - began
    return False


@called
def send_parcels(parcels, waited):
    """Send what is not yet done; returns the number of the parcel that there is no room for, -1 if there is none."""
    for number in range(len(parcels)):
        parcel = parcels[number]
        if not parcel.done:
            if not is_free(parcel.ring) and not wait(parcel.ring, True, waited):
                return number
            slot = next_slot(parcel.ring)
            copy_bytes(slot, parcel.data, parcel.bytes)
            send(parcel.ring, slot, parcel.bytes)
            parcel.done = 1
    return -1


@called
def receive_parcels(parcels, waited):
    """Receive what is not yet done; returns (the number of the parcel that has not come or -1, the size it should)."""
    for number in range(len(parcels)):
        parcel = parcels[number]
        if not parcel.done:
            if arrived_slot(parcel.ring) == 0 and not wait(parcel.ring, False, waited):
                return number, np.int64(-1)
            slot = arrived_slot(parcel.ring)
            if size_of(slot) != parcel.bytes:
                return number, size_of(slot)
            copy_bytes(parcel.data, slot, parcel.bytes)
            release(parcel.ring)
            parcel.done = 1
    return -1, np.int64(0)


@called
def trade(leaving, arriving, first, times, waited):
    """So many round trips of a parcel, which one of two ranks begins (``first``); whether the other one answered."""
    for _ in range(times):
        for sending in (first, not first):
            parcel = leaving[0] if sending else arriving[0]
            patience = MOST_WAITS
            while not (is_free(parcel.ring) if sending else arrived_slot(parcel.ring) != 0):
                if patience == 0:
                    return False
                patience -= 1
                wait(parcel.ring, sending, waited)
            if sending:
                slot = next_slot(parcel.ring)
                copy_bytes(slot, parcel.data, parcel.bytes)
                send(parcel.ring, slot, parcel.bytes)
            else:
                copy_bytes(parcel.data, arrived_slot(parcel.ring), parcel.bytes)
                release(parcel.ring)
    return True
