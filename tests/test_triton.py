"""The passes in Triton do what the torch kernel does: in its interpreter, or on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from problems import Problem, relative_error
from test_cuda_graphs import GPU, OWN, RING, SMALL, UNEVEN_BLOCKS, WORLD, chosen, errors, needs_gpu, network, results
from torch import Tensor

from hdnn_dist import CommunicationGraph
from hdnn_dist.propagation.activations import ACTIVATIONS
from hdnn_dist.propagation.system import Weights

if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # has to be set before the kernels are imported
triton = pytest.importorskip("triton", reason="triton is not installed: torch's builds for CUDA bring it")
triton_stepper = pytest.importorskip("hdnn_dist.kernels.cuda.stepper", reason="numba cannot be imported here")

TOLERANCE = 5e-6  # float32 against float64: a few layers, sums of some 40 samples
LARGE = Problem(CommunicationGraph.path(5), (24, 26, 24, 24, 30), "MS3", layers=2, batch=19)
DEEP = Problem(RING, (2,) * 8, "H2", layers=32, batch=5, step=0.1)


def compare(problem: Problem, kernel: str = "triton") -> dict[str, float]:
    """The errors in float32 against the torch kernel in float64; what the ledger saw has to be the same."""
    net, exact = network(problem, kernel), network(problem, "torch", torch.float64)
    x = problem.inputs()
    assert net.kernel_for(x.numel() // x.shape[1]) == kernel
    found = errors(results(net, x), results(exact, x))
    seen, expected = (each.agents.ledger.traffic() for each in (net, exact))
    assert seen.messages == expected.messages > 0
    assert 2 * seen.bytes == expected.bytes
    return found


class TestTriton:
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("architecture", ["H2", "MS3"])
    def test_equals_the_torch_kernel(self, architecture: str, activation: str) -> None:
        problem = replace(UNEVEN_BLOCKS, architecture=architecture, activation=activation)
        assert max(compare(problem).values()) < TOLERANCE

    @pytest.mark.parametrize("problem", [SMALL, LARGE, DEEP], ids=["16 rows", "64 rows", "32 layers"])
    def test_sizes(self, problem: Problem) -> None:
        assert max(compare(problem).values()) < TOLERANCE

    @pytest.mark.parametrize("columns", [1, 15, 16, 17, 48])
    def test_batches_that_do_not_fill_their_tiles(self, columns: int) -> None:
        assert max(compare(replace(SMALL, batch=columns)).values()) < TOLERANCE

    def test_some_of_the_layers(self) -> None:
        x, some = SMALL.inputs(), slice(1, 3)
        given, expected = (results(network(SMALL, kernel), x, some) for kernel in ("triton", "torch"))
        assert max(errors(given, expected).values()) < TOLERANCE
        assert not given["weights"][[0, 3]].any()

    def test_layer_by_layer_a_nan_reaches_neighbours_only(self) -> None:
        net, x = network(SMALL, "triton"), SMALL.inputs().float().to(WORLD.device)
        x[3, 0] = torch.nan
        broken = net(x, slice(0, 1)).isnan()
        assert torch.equal(broken.any(0)[1::2].cpu(), torch.as_tensor(RING.matrix()[[0, 1, 7]].any(0)))
        assert not broken[4:].any()
        assert net(x).isnan()[3].all()

    def test_inputs_that_are_not_contiguous(self) -> None:
        x = SMALL.inputs().float().mT.contiguous().mT.to(WORLD.device)
        given, expected = (network(SMALL, kernel)(x) for kernel in ("triton", "torch"))
        assert relative_error(given.detach(), expected.detach()) < TOLERANCE

    @pytest.mark.parametrize("architecture", ["H2", "MS3"])
    def test_the_input_is_rebuilt(self, architecture: str) -> None:
        net = network(replace(UNEVEN_BLOCKS, architecture=architecture), "triton")
        results(net, UNEVEN_BLOCKS.inputs())
        assert net.drift is not None
        assert net.drift < 1e-6

    def test_drift_is_seen(self) -> None:
        net, x = network(SMALL, "triton"), SMALL.inputs().float().to(WORLD.device)
        stepper, weights = net._passes.stepper(len(x), torch.float32), Weights(net.weights, net.coupling)
        saved = stepper.forward(x, weights, range(4), store=True)
        saved.y[-1, -1] += 10
        assert stepper.backward(saved, saved.y).drift > 0.5

    def test_programs_that_take_several_tiles(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And bit for bit the same gradients each time."""
        problem = replace(SMALL, batch=90)
        expected = results(network(problem, "torch"), problem.inputs())
        monkeypatch.setattr(triton_stepper, "SUMS", 2 * network(problem, "torch").weights.numel() * 4)
        net = network(problem, "triton")
        given, again = (results(net, problem.inputs()) for _ in range(2))
        assert net._passes.stepper(90, torch.float32)._programs(net.weights) == 2
        assert max(errors(given, expected).values()) < TOLERANCE
        assert all(torch.equal(given[part], again[part]) for part in given)

    def test_tangents(self) -> None:
        x = SMALL.inputs().float().to(WORLD.device)
        given, expected = (network(SMALL, kernel).tangent(x, x) for kernel in ("triton", "torch"))
        assert torch.equal(given[1], expected[1])

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"architecture": "MS1"}, "it knows two gradients that take turns, as in H2 and MS3, not MS1"),
            ({"scheme": "euler"}, "it knows two gradients that take turns, as in H2 and MS3, not H2"),
            ({"coupling": "trained"}, "it knows no X other than the identity"),
            ({"activation": OWN}, "it does not know the activation 'own'"),
            ({"graphs": (RING, CommunicationGraph.path(8)) * 2}, "it needs all agents in one process"),
            ({"features": (18,) * 8}, "half of the state has 72 rows, and on chip is room for 64"),
        ],
        ids=str,
    )
    def test_what_it_does_not_serve(self, change: dict[str, object], reason: str) -> None:
        problem = replace(SMALL, **change)
        with pytest.raises(ValueError, match=f"^kernel 'triton' cannot be used: {reason}") as error:
            network(problem, "triton")(problem.inputs().float().to(WORLD.device))
        assert str(error.value).endswith("use 'auto' or 'torch'")
        assert "\n" not in str(error.value)

    def test_float64_is_left_to_torch(self) -> None:
        with pytest.raises(ValueError, match=r"it computes in float32, not in torch\.float64"):
            network(SMALL, "triton", torch.float64)(SMALL.inputs().to(WORLD.device))

    def test_a_kernel_that_cannot_be_compiled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("out of resource:\nshared memory")

        monkeypatch.setattr(triton_stepper.TritonStepper, "_compile", fail)
        with pytest.raises(ValueError, match=r"it could not be compiled \(out of resource: shared memory\)"):
            network(SMALL, "triton")(SMALL.inputs().float().to(WORLD.device))


class TestBf16:
    """Operands in bf16 have 8 bits: relative errors of 2^-9 each, which layers and sums carry on."""

    @pytest.mark.parametrize("problem", [UNEVEN_BLOCKS, replace(SMALL, architecture="MS3"), replace(DEEP, layers=16)],
                             ids=["uneven", "MS3", "16 layers"])  # fmt: skip
    def test_error(self, problem: Problem) -> None:
        found = compare(problem, "triton-bf16")
        assert 1e-4 < found["y"] < 1e-2
        assert 1e-4 < found["x"] < 2e-2
        assert 1e-4 < found["weights"] < 2e-2

    def test_the_state_is_rebuilt_to_float32(self) -> None:
        net = network(UNEVEN_BLOCKS, "triton-bf16")
        results(net, UNEVEN_BLOCKS.inputs())
        assert net.drift is not None
        assert net.drift < 1e-6

    def test_operands_are_rounded_and_sums_are_not(self) -> None:
        net, x = network(SMALL, "triton-bf16"), SMALL.inputs().float()
        p, q = x[:, 0::2], x[:, 1::2]
        for K, b in zip(*(part.cpu() for part in net.dense()[:2]), strict=True):
            p = p - SMALL.step * force(K[8:, 8:], b[8:], q)
            q = q + SMALL.step * force(K[:8, :8], b[:8], p)
        given = net(x.to(WORLD.device)).detach().cpu()
        assert relative_error(given, torch.stack([p, q], 2).flatten(1)) < 1e-4  # some round up here and down there


def force(K: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """K^T s(K x + b) for samples in rows, with operands in bf16."""
    K = rounded(K)
    return rounded((rounded(x) @ K.mT + b).tanh()) @ K


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().float()


COMPILE = """
import sys, triton
from triton.backends.compiler import GPUTarget
from hdnn_dist.kernels import triton_passes

known = {"ACTIVATION": "tanh", "OPERANDS": sys.argv[1], "N": 16, "T": 16}
kinds = {"x": "*fp32", "y": "*fp32", "grad_y": "*fp32", "rebuilt": "*fp32", "grad_x": "*fp32", "weights_0": "*fp32",
         "weights_1": "*fp32", "grads_0": "*fp32", "grads_1": "*fp32", "K_place": "*i32", "b_place": "*i32",
         "rows": "*i32", "scale_0": "fp32", "scale_1": "fp32"}
for kernel in (triton_passes.forward, triton_passes.backward):
    names = {name: "constexpr" if name in known else kinds.get(name, "i32") for name in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, names, known)
    code = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": 2}).asm
    assert len(code["cubin"]) > 1000
    print("mma" if "mma.sync" in code["ptx"] else "fma")
"""


@pytest.mark.slow  # 20 seconds
@pytest.mark.parametrize(("operands", "unit"), [("float32", "fma"), ("bf16", "mma")])
def test_it_compiles_for_a_gpu_that_is_not_here(operands: str, unit: str, tmp_path: os.PathLike[str]) -> None:
    """To machine code of an A100; bf16 on its matrix units."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    found = subprocess.run(
        [sys.executable, "-c", COMPILE, operands],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [unit, unit]


class TestWhatItServes:
    def test_what_fits(self) -> None:
        for kernel in ("auto", "fused", "triton"):
            assert chosen(SMALL, kernel).kernel == "triton"
        assert chosen(SMALL, "triton-bf16").kernel == "triton-bf16"

    def test_by_name(self) -> None:
        for kernel in ("triton", "triton-bf16"):
            assert network(SMALL, kernel).kernel_for(3) == kernel

    @needs_gpu
    def test_on_a_gpu(self) -> None:
        assert network(SMALL, "auto").kernel_for(9) == "triton"


@needs_gpu
@pytest.mark.parametrize("kernel", ["torch", "auto", "triton-bf16"])
def test_no_pass_waits_for_the_gpu(kernel: str) -> None:
    net, x = network(SMALL, kernel), SMALL.inputs().float().to(WORLD.device)
    net(x).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        net(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
