"""Passes of a small network on a GPU in one kernel each way (``kernels.cuda.passes``): H2 and MS3, agents all here.

They compute what ``SemiImplicitStepper`` computes; that stays as the reference. The ledger is told of the exchanges as
if they had been made. A pass through a single layer is left to the reference: dense products spread an agent's NaN to
all agents, and whoever looks for the agent that it comes from goes layer by layer.

With TRITON_INTERPRET=1 in the environment before triton is imported, the kernels run in Triton's interpreter, on CPU
tensors too: slowly, to test them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton  # type: ignore[import-not-found]
from torch import Tensor

from hdnn_dist.kernels.cuda import passes as triton_passes
from hdnn_dist.kernels.exchange_counts import ExchangeCounts
from hdnn_dist.kernels.layer_tables import LayerTables
from hdnn_dist.propagation.state import drift_of
from hdnn_dist.propagation.stepper import Gradients, Propagator, Saved, Stepper
from hdnn_dist.propagation.system import System, Weights
from hdnn_dist.weights.blocks import BlockLayout

TILE = 16  # samples, as few as the matrix units take: so that there are many programs
FEWEST = 16  # rows of a part, as the matrix units want them
LARGEST = 64  # the reverse spills 0.7 KB a thread at most, compiled for sm_80 and sm_90; with 128 rows 9 KB and more
WARPS = {16: 2, 32: 4, 64: 8}
SUMS = 256 << 20  # bytes for the gradients of single programs; the fewer programs, the fewer bytes
INTERPRETED = not isinstance(triton_passes.forward, triton.JITFunction)


class TritonStepper:
    """Passes of a system without a ``misfit``, at one width; tangents and single layers are left to ``portable``."""

    def __init__(self, system: System, portable: Stepper, kernel: str = "triton") -> None:
        layout, precision = system.layers.layouts[0], kernel.partition("-")[2] or "float32"
        self.kernel = kernel
        self.system, self.width, self.portable = system, portable.width, portable
        self.tangent = portable.tangent
        self.layer = LayerTables(system, 0, portable.dtype)
        self._counts = ExchangeCounts(system)
        self._rows = max(FEWEST, triton.next_power_of_2(layout.halo.rows))
        self._tiles = triton.cdiv(self.width, TILE)
        self._places = _places(layout, self.layer.half_steps, list(system.rows.values()), self._rows)
        operands = "emulated" if INTERPRETED and precision == "bf16" else precision
        self._constants = {"ACTIVATION": system.activation.name, "OPERANDS": operands, "N": self._rows, "T": TILE}
        self._options = {} if INTERPRETED else {"num_warps": WARPS[self._rows]}
        self._compile(portable.dtype)

    def forward(self, x: Tensor, weights: Weights, layers: range, store: bool) -> Saved:
        """As ``Stepper.forward``."""
        if len(layers) == 1:
            return self.portable.forward(x, weights, layers, store)
        self._counts.record(layers, self.width * x.element_size(), reverse=False)
        return Saved(x, self._forward(x.contiguous(), weights.blocks, layers), weights, layers, [])

    def backward(self, saved: Saved, grad_y: Tensor, of_input: bool = True) -> Gradients:
        """As ``Stepper.backward``; the gradient of the input comes in any case."""
        x, y, weights, layers, _ = saved
        if len(layers) == 1:
            return self.portable.backward(saved, grad_y)
        self._counts.record(layers, self.width * x.element_size(), reverse=True)
        rebuilt, grad_x, sums = self._backward(y.contiguous(), grad_y.contiguous(), weights.blocks, layers)
        return Gradients(grad_x, Weights(sums.sum(0), torch.zeros_like(weights.coupling)), drift_of(x, rebuilt))

    def _compile(self, dtype: torch.dtype) -> None:
        """Compile the passes, or read them from the cache, by a pass through no layer."""
        device = self.layer.layout.device
        x = torch.zeros(self.width, int(self.system.features.sum()), dtype=dtype, device=device)
        blocks = torch.zeros(self.system.layers.shape, dtype=dtype, device=device)
        y = self._forward(x, blocks, range(0))
        self._backward(y, x, blocks, range(0))

    def _forward(self, x: Tensor, blocks: Tensor, layers: range) -> Tensor:
        y = torch.empty_like(x)
        with torch.cuda.device_of(x):
            triton_passes.forward[self._tiles,](
                x, y, *self._operators(blocks), **self._about(x, layers), **self._constants, **self._options
            )
        return y

    def _backward(self, y: Tensor, grad_y: Tensor, blocks: Tensor, layers: range) -> tuple[Tensor, Tensor, Tensor]:
        """The rebuilt input, its gradient, and those of the blocks, program by program."""
        rebuilt, grad_x = torch.empty_like(y), torch.empty_like(y)
        sums = blocks.new_zeros(self._programs(blocks), *blocks.shape)
        with torch.cuda.device_of(y):
            triton_passes.backward[len(sums),](
                y, grad_y, rebuilt, grad_x, *self._operators(blocks), *self._operators(sums),
                layers=len(self.system.layers), **self._about(y, layers), **self._constants, **self._options,
            )  # fmt: skip
        return rebuilt, grad_x, sums

    def _operators(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """The views of (..., operators, size) that half-step 0 and half-step 1 work with."""
        first, second = self.layer.half_steps["operator"].tolist()
        return blocks.detach()[..., first, :], blocks.detach()[..., second, :]

    def _about(self, x: Tensor, layers: range) -> dict[str, Any]:
        """What both passes are told; x: (batch, features, positions...)."""
        first, second = self.layer.half_steps["scale"].tolist()
        return self._places | {
            "scale_0": first,
            "scale_1": second,
            "columns": self.width,
            "features": x.shape[1],
            "positions": self.width // x.shape[0],
            "stride": self.system.layers.operators * self.system.layers.layouts[0].size,
            "start": layers.start,
            "stop": layers.stop,
        }

    def _programs(self, blocks: Tensor) -> int:
        """How many programs share the tiles of a backward pass: it depends on shapes only, so the sums do too."""
        return min(self._tiles, max(1, SUMS // max(1, blocks.numel() * blocks.element_size())))


def misfit(system: System) -> str | None:
    """Why these passes cannot carry a network out, or ``None`` where they can."""
    halo, halves = system.layers.layouts[0].halo, system.architecture.layer
    if halo.agents.world.device.type != ("cpu" if INTERPRETED else "cuda"):
        return "it needs a CUDA device, or a CPU where TRITON_INTERPRET=1 was set before triton was imported"
    if system.architecture.simultaneous or not all(half.field.gradient for half in halves) or len(halves) != 2:
        return f"it knows two gradients that take turns, as in H2 and MS3, not {system.architecture.name}"
    if system.coupling.kind != "identity":
        return "it knows no X other than the identity"
    if halo.rows > LARGEST:
        return f"half of the state has {halo.rows} rows, and on chip is room for {LARGEST}"
    return None


def make(system: System, portable: Stepper, name: str) -> Propagator:
    """As ``Kernel`` says; ``name``: "triton", or "triton-bf16" for products of bfloat16."""
    return TritonStepper(system, portable, name)


def _places(layout: BlockLayout, half_steps: np.ndarray, parts: list[Tensor], rows: int) -> dict[str, Tensor]:
    """``K_place``, ``b_place`` and ``rows`` as the passes want them, padded with -1 to ``rows``."""
    row, column, bias_row = layout.positions()
    K_place, b_place = np.full((rows, rows), -1), np.full((2, rows), -1)
    K_place[row, column] = np.arange(len(row))
    b_place[:, bias_row] = half_steps["bias"][:, np.newaxis] + np.arange(len(bias_row))
    of_parts = np.full((2, rows), -1)
    of_parts[:, : layout.halo.rows] = [parts[target].cpu().numpy() for target in half_steps["target"]]
    places = {"K_place": K_place, "b_place": b_place, "rows": of_parts}
    return {name: torch.as_tensor(place, dtype=torch.int32, device=layout.device) for name, place in places.items()}
