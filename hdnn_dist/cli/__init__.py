"""The command line, ``hdnn-dist``."""

from hdnn_dist.cli.app import app, main

__all__ = ["app", "main"]
