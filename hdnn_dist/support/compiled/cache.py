"""Compiled code on the disk: one process compiles for all, what is read is right, and what is damaged is made anew.

numba numbers the files of one function in the order in which they are saved. Two processes that save at once give two
signatures one number, and later runs execute the code of the other. Here a file is named after its signature and the
machine it is for, and written before the index names it; an entry that is lost on the way is compiled once more.

Ranks of a host need the same code at the same moment. One compiles a signature, under a lock of the file system, and
the others read what it has written.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import IndexDataCacheFile

from hdnn_dist.support.locks import one_at_a_time

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("numba compiles nothing, as NUMBA_DISABLE_JIT is set")

log = logging.getLogger("hdnn_dist")

PATIENCE = 120.0  # seconds in which another process, which may have been stopped, is waited for


class SharedCacheFile(IndexDataCacheFile):  # type: ignore[misc]
    """The index of one function and the files that it names."""

    def save(self, key: Any, data: Any) -> None:
        """As numba's, under the name of the key."""
        name = self._name_of(key)
        self._save_data(name, data)
        self._save_index({**self._sound_index(), key: name})

    def load(self, key: Any) -> Any:
        """As numba's; ``None``, so that it is compiled, where there is none, or a damaged one, which is removed."""
        name = self._sound_index().get(key)
        if name != self._name_of(key):
            return None
        try:
            return self._load_data(name)
        except FileNotFoundError:
            return None
        except Exception as error:  # unpickling raises errors of many kinds for what is cut off
            self._remove(name, error)
            return None

    @contextmanager
    def alone(self, signature: Any) -> Iterator[None]:
        """One process at a time for a signature, where the file system has locks; who waits is told of compiling."""
        folder = Path(self._cache_path)
        path = folder / f"{self._index_name}.{_digest(signature)}.lock"
        with ExitStack() as held:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(one_at_a_time(path, PATIENCE, _as_if_compiling))
            except OSError as error:
                log.debug("%s is not locked, so other processes may compile the same: %s", path, error)
            yield

    def _sound_index(self) -> dict[Any, str]:
        try:
            index: dict[Any, str] = self._load_index()
        except Exception as error:
            self._remove(self._index_name, error)
            return {}
        return index

    def _remove(self, name: str, error: Exception) -> None:
        path = Path(self._cache_path) / name
        log.warning("%s is damaged (%s: %s): removed, and compiled again", path, type(error).__name__, error)
        path.unlink(missing_ok=True)

    def _name_of(self, key: Any) -> str:
        return f"{self._index_name.removesuffix('.nbi')}.{_digest(key)}.nbc"


def shared(dispatcher: Any) -> Any:
    """A function compiled with ``cache=True``, kept in a ``SharedCacheFile``."""
    file, compiled = dispatcher._cache._cache_file, dispatcher.compile
    file.__class__ = SharedCacheFile

    def compile_alone(signature: Any) -> Any:
        with file.alone(signature):
            return compiled(signature)

    dispatcher.compile = compile_alone
    return dispatcher


def _digest(key: Any) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]


def _as_if_compiling() -> AbstractContextManager[object]:
    told: AbstractContextManager[object] = event.trigger_event("numba:compile", data={})
    return told
