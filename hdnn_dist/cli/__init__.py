"""The command line, ``hdnn-dist``."""

from hdnn_dist.cli.commands import app, main

__all__ = ["app", "main"]
