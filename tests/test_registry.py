"""Which kernel serves, and what is said of it."""

from __future__ import annotations

import time

import pytest

from hdnn_dist.kernels import registry as propagators


def test_compiling_is_announced_once_in_a_process(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many kernels, for other types or kinds of layers, are compiled one after the other."""
    monkeypatch.setattr(propagators, "QUICK", 0.0)
    propagators._announce.cache_clear()
    for _ in range(3):
        with propagators._announced():
            time.sleep(0.05)
    assert [record.message.partition(" ")[0] for record in caplog.records] == ["compiling"]


def test_a_kernel_from_the_cache_is_not_announced(caplog: pytest.LogCaptureFixture) -> None:
    propagators._announce.cache_clear()
    with propagators._announced():
        pass
    assert not caplog.records
