"""torchrun with one line at most of its own: its page of a traceback says nothing of what has failed in a rank.

usage: torchrun.py [arguments of torchrun]. Started by torchrun.sh. RENDEZVOUS: host:port where several machines meet.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def launch(arguments: list[str]) -> int:
    """The exit status of the first rank that failed, or 128 and the signal that ended it or the launcher."""
    try:
        main(arguments)
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        if first.exitcode >= 0:
            return first.exitcode  # and the rank has said why
        return _say(f"rank {rank} was ended by signal {-first.exitcode}", 128 - first.exitcode)
    except SignalException as error:
        return 128 + error.sigval
    except Exception as error:
        return _say(f"torchrun failed: {type(error).__name__}: {' '.join(str(error).split())}", 1)
    return 0


def unknown_host(place: str) -> bool:
    """Whether this machine does not know the host of host:port, for which torchrun would wait two minutes."""
    try:
        socket.getaddrinfo(place.rpartition(":")[0].strip("[]"), None)
    except OSError:
        return True
    return False


def _say(line: str, status: int) -> int:
    sys.stderr.write(f"{line}\n")
    return status


if __name__ == "__main__":
    logging.disable(logging.ERROR)  # of the launcher, not of its ranks
    place = os.environ.get("RENDEZVOUS", "")
    if place and unknown_host(place):
        sys.exit(_say(f"RENDEZVOUS is {place!r}: expected host:port of a machine that this one knows", 2))
    with tempfile.TemporaryDirectory() as folder:  # torchrun leaves one behind at each launch
        sys.exit(launch(["--log-dir", folder, "--rdzv-endpoint", place or f"{folder}/meeting", *sys.argv[1:]]))
