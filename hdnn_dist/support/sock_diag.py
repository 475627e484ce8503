"""What Linux tells of sockets beyond /proc: the bytes of TCP connections, and the other ends of unix sockets.

Asked as ``ss`` asks: netlink's sock_diag. Numbers and layouts: linux/sock_diag.h, inet_diag.h, unix_diag.h and tcp.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
REQUEST_DUMP = 0x301
ERROR, DONE = 2, 3
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # length, type
ALL_STATES = 0xFFFFFFFF
INFO, PEER = 2, 2  # attributes of TCP and of unix sockets
SHOW_PEER = 4
INODE_OF_TCP, TCP_MESSAGE = 68, 72  # bytes before the inode, and before the attributes
INODE_OF_UNIX, UNIX_MESSAGE = 4, 16
BYTES_RECEIVED = 128  # where they are in tcp_info
PATIENCE = 5.0  # seconds


def tcp_received() -> dict[int, int]:
    """Bytes that have arrived so far at the socket of each inode; ``OSError`` where the kernel does not tell."""
    found = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        ask = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 1 << (INFO - 1), 0, ALL_STATES)
        for answer in _answers(ask):
            info = _attributes(answer[TCP_MESSAGE:]).get(INFO, b"")
            if len(info) >= BYTES_RECEIVED + 8:
                found[_number(answer, INODE_OF_TCP)] = struct.unpack_from("=Q", info, BYTES_RECEIVED)[0]
    return found


def unix_peers() -> dict[int, int]:
    """The inode of the other end of each connected unix socket; ``OSError`` where the kernel does not tell."""
    ask = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, ALL_STATES, 0, SHOW_PEER, ALL_STATES, ALL_STATES)
    answers = [(_number(answer, INODE_OF_UNIX), _attributes(answer[UNIX_MESSAGE:])) for answer in _answers(ask)]
    return {inode: _number(attributes[PEER], 0) for inode, attributes in answers if PEER in attributes}


def _answers(ask: bytes) -> Iterator[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(PATIENCE)
        kernel.send(HEADER.pack(HEADER.size + len(ask), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 1, 0) + ask)
        while True:
            for kind, content in _messages(kernel.recv(2**16)):
                if kind == DONE:
                    return
                if kind == ERROR:
                    raise OSError(-struct.unpack_from("=i", content)[0], "the kernel does not list its sockets")
                yield content


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= HEADER.size:
        length, kind, *_ = HEADER.unpack_from(data)
        yield kind, data[HEADER.size : length]
        data = data[_aligned(length) :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        found[kind] = data[ATTRIBUTE.size : length]
        data = data[max(_aligned(length), ATTRIBUTE.size) :]
    return found


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _number(data: bytes, at: int) -> int:
    return int(struct.unpack_from("=I", data, at)[0])
