"""Faster ways through the pass, compiled for processors and GPUs, and the table that chooses one."""

from hdnn_dist.kernels.registry import KERNELS, Kernel, KernelWarning

__all__ = ["KERNELS", "Kernel", "KernelWarning"]
