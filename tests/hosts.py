"""Hosts of their own for tests: namespaces of this machine, on a network that carries what the test lets through.

A host has its own network, name, processes, shared memory and /etc/hosts. Its network interface is a tun device; what
it sends comes out here, at the switch, which passes packets on, holds them or drops them. Nothing has to be cleared
away: a host ends with the process that made it, and all that runs on it ends with the host.
usage, by this file alone, as the first process of a host: hosts.py NUMBER HOSTS SOCKET
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

LIMIT = 20.0  # seconds for a host to come up
MTU = 9000
PORTS = range(29500, 29600)  # of host 0, where the ranks meet
TCP = 6
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
NEW = ["--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def name(host: int) -> str:
    return f"host{host}"


def address(host: int) -> str:
    return f"10.77.0.{host + 1}"


def why_not() -> str | None:
    """Why there can be no hosts here, if so."""
    missing = [tool for tool in ("unshare", "nsenter", "ip", "mount") if shutil.which(tool) is None]
    if missing:
        return f"hosts of network namespaces need {', '.join(missing)}"
    try:
        with Hosts(1):
            return None
    except (OSError, EOFError) as error:
        return f"hosts of network namespaces are not permitted here: {error}"


class Hosts:
    """``count`` hosts, each linked to those whose pair is in ``links``; none runs before, or after, the ``with``."""

    def __init__(self, count: int, links: set[frozenset[int]] = frozenset()) -> None:
        self._stack, self.count = contextlib.ExitStack(), count
        with contextlib.ExitStack() as stack:
            pairs = [stack.enter_context(_host(host, count)) for host in range(count)]
            self.pids = [pid for pid, _ in pairs]
            self.switch = stack.enter_context(Switch([device for _, device in pairs], links))
            self._stack = stack.pop_all()

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def on(self, host: int, *kinds: str) -> list[str]:
        """What a command line starts with to run here on a host: in its namespaces, or those ``kinds`` of them."""
        into = [f"--{kind}" for kind in kinds] or ["--all"]
        return ["nsenter", "--target", str(self.pids[host]), *into, "--", "env", f"--chdir={os.getcwd()}"]


@contextlib.contextmanager
def _host(host: int, count: int) -> Iterator[tuple[int, int]]:
    """Its first process, and the descriptor that its packets come from and go to."""
    here, there = socket.socketpair()
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    line = ["unshare", *user, *NEW, sys.executable, "-I", "-S", __file__, str(host), str(count), str(there.fileno())]
    with here, subprocess.Popen(line, pass_fds=[there.fileno()], stderr=subprocess.PIPE, text=True) as process:
        there.close()
        here.settimeout(LIMIT)
        try:
            with _received(here, process) as device:
                yield int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()), device
        finally:
            process.kill()


@contextlib.contextmanager
def _received(link: socket.socket, process: subprocess.Popen[str]) -> Iterator[int]:
    """The descriptor that the first process of a host sends; ``EOFError`` with its last words if it does not."""
    devices = socket.recv_fds(link, 64, 1)[1]
    if not devices:
        said = process.communicate(timeout=LIMIT)[1].strip()
        raise EOFError(said.splitlines()[-1] if said else "no reason given")
    try:
        yield devices[0]
    finally:
        os.close(devices[0])


class Switch:
    """Passes packets between hosts: all along links, and those of TCP to and from the ports where the ranks meet.

    ``passed`` and ``refused`` count them, (sender, receiver) by packets; ``met`` counts those of the meeting.
    """

    def __init__(self, devices: list[int], links: set[frozenset[int]]) -> None:
        self.passed: Counter[tuple[int, int]] = Counter()
        self.refused: Counter[tuple[int, int]] = Counter()
        self.met: Counter[tuple[int, int]] = Counter()
        self.lost = 0
        self._devices, self._links = devices, set(links)
        self._slow: dict[frozenset[int], tuple[float, float]] = {}
        self._held: list[tuple[float, int, int, bytes]] = []
        self._random, self._number = random.Random(0), 0
        self._ended, self._thread = threading.Event(), threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Switch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(LIMIT)

    def only(self, links: set[frozenset[int]]) -> None:
        """Let what passes, and all that follows, pass along these links alone."""
        self._links = set(links)

    def cut(self, a: int, b: int) -> None:
        """Let nothing pass between two hosts any more, without a word."""
        self._links.discard(frozenset((a, b)))

    def slow(self, a: int, b: int, seconds: float, loss: float) -> None:
        """Hold what passes between two hosts for so long, and lose that share of it."""
        self._slow[frozenset((a, b))] = seconds, loss

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for device in self._devices:
                os.set_blocking(device, False)
                selector.register(device, selectors.EVENT_READ)
            while not self._ended.is_set():
                for key, _ in selector.select(self._until_due()):
                    with contextlib.suppress(BlockingIOError):
                        self._take(os.read(key.fd, 2 * MTU))
                self._deliver_due()

    def _until_due(self) -> float:
        return min(0.1, max(0.0, self._held[0][0] - time.monotonic())) if self._held else 0.1

    def _take(self, packet: bytes) -> None:
        if packet[0] >> 4 != 4:
            return  # what IPv6 says to all
        sender, receiver = packet[15] - 1, packet[19] - 1
        if receiver not in range(len(self._devices)):
            return
        pair = frozenset((sender, receiver))
        if _meets(packet, sender, receiver):
            self.met[sender, receiver] += 1
            self._deliver(receiver, packet)
        elif pair not in self._links:
            self.refused[sender, receiver] += 1
        else:
            self.passed[sender, receiver] += 1
            self._pass(pair, receiver, packet)

    def _pass(self, pair: frozenset[int], receiver: int, packet: bytes) -> None:
        seconds, loss = self._slow.get(pair, (0.0, 0.0))
        if loss and self._random.random() < loss:
            self.lost += 1
        elif seconds:
            self._number += 1
            heapq.heappush(self._held, (time.monotonic() + seconds, self._number, receiver, packet))
        else:
            self._deliver(receiver, packet)

    def _deliver_due(self) -> None:
        while self._held and self._held[0][0] <= time.monotonic():
            _, _, receiver, packet = heapq.heappop(self._held)
            self._deliver(receiver, packet)

    def _deliver(self, receiver: int, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # its queue is full: lost, as on any network
            os.write(self._devices[receiver], packet)


def _meets(packet: bytes, sender: int, receiver: int) -> bool:
    """Whether it belongs to the meeting at host 0."""
    header = 4 * (packet[0] & 15)
    if packet[9] != TCP or 0 not in (sender, receiver):
        return False
    source, target = struct.unpack_from("!HH", packet, header)
    return (target if receiver == 0 else source) in PORTS


def _first_process(host: int, count: int, link: socket.socket) -> None:
    """Make this namespace a host, hand its network device over, and stay until the other side has gone."""
    socket.sethostname(name(host))
    for line in ("mount -t sysfs sysfs /sys", "mount -t tmpfs tmpfs /dev/shm", "ip link set lo up"):
        subprocess.run(line.split(), check=True)
    known = Path("/dev/shm/hosts")
    known.write_text("127.0.0.1 localhost\n" + "".join(f"{address(at)} {name(at)}\n" for at in range(count)))
    subprocess.run(["mount", "--bind", known, "/etc/hosts"], check=True)
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", b"eth0", IFF_TUN | IFF_NO_PI))
    for line in (f"ip address add {address(host)}/24 dev eth0", f"ip link set eth0 mtu {MTU} up"):
        subprocess.run(line.split(), check=True)
    socket.send_fds(link, [b"up"], [device])
    os.close(device)
    link.recv(1)


if __name__ == "__main__":
    _first_process(int(sys.argv[1]), int(sys.argv[2]), socket.socket(fileno=int(sys.argv[3])))
