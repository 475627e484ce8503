"""The peak memory of one training step, measured in a process of its own.

Its argument is JSON, the fields of ``Probe``; what it prints is JSON too. Linux only: the peak is reset in /proc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from hdnn_dist.bench.baseline import dense_baseline
from hdnn_dist.bench.cases import Case
from hdnn_dist.bench.networks import build, fixed_pair
from hdnn_dist.model.network import HDNN

CLEAR_REFS = Path("/proc/self/clear_refs")
WARM_UP_SAMPLES = 2
DENSE = "dense H2"
PROCESS = "from hdnn_dist.bench.probe import main; main()"


@dataclass(frozen=True)
class Probe:
    """What one process measures. ``architecture``: one of ``HDNN``, or ``DENSE`` for the dense masked baseline."""

    case: Case
    architecture: str
    store_every: int
    threads: int


@dataclass(frozen=True)
class Peak:
    """``bytes`` that a training step adds to parameters and their gradient."""

    bytes: int
    kernel: str


def measure(probe: Probe) -> Peak:
    """Start a process for it. ``ValueError`` where there is no /proc, ``OSError`` where the process fails."""
    if not CLEAR_REFS.exists():
        raise ValueError("bench memory resets the peak in /proc/self/clear_refs, which this system lacks: use Linux")
    command = [sys.executable, "-c", PROCESS, json.dumps(asdict(probe))]
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # tensors are given back when they are freed
    ended = subprocess.run(command, env=exact, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise OSError(f"bench memory {probe.case}: its process ended with status {ended.returncode}: {last}")
    return Peak(**json.loads(ended.stdout))


def run(probe: Probe) -> Peak:
    """Measure in this process: the peak from after the first, small pass on."""
    torch.set_num_threads(probe.threads)
    module = _module(probe)
    x, g = fixed_pair(probe.case)
    gradient = _give_gradients(module)
    module(x[:WARM_UP_SAMPLES]).backward(g[:WARM_UP_SAMPLES])
    CLEAR_REFS.write_text("5")
    before = _bytes("VmRSS")
    module(x).backward(g)
    kernel = module.kernel_for(len(x)) if isinstance(module, HDNN) else "dense"
    return Peak(_bytes("VmHWM") - before - gradient, kernel)


def _module(probe: Probe) -> nn.Module:
    if probe.architecture == DENSE:
        return dense_baseline(build(probe.case))
    return build(probe.case, architecture=probe.architecture, store_every=probe.store_every)


def _give_gradients(module: nn.Module) -> int:
    """Gradients of zero; the bytes of those that HDNN makes in a pass before it adds them to these."""
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    if not isinstance(module, HDNN):
        return 0
    return module.weights.numel() * module.weights.element_size()


def _bytes(name: str) -> int:
    """A line of this process's status."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{name}:")[1].split()[0])


def main() -> None:
    """The entry point of the process."""
    fields = json.loads(sys.argv[1])
    print(json.dumps(asdict(run(Probe(**{**fields, "case": Case(**fields["case"])})))))
