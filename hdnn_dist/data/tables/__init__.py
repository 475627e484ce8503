"""Vertically split tables: a file for each agent, aligned by the samples' ids."""

from __future__ import annotations
