"""Faster ways through the pass, compiled for processors and GPUs, and the table that chooses one."""
