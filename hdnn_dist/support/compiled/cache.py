"""Compiled code on the disk, right whoever compiles at the same time, and made anew where it is damaged.

numba numbers the files of one function in the order in which they are saved. Two processes that save at once give two
signatures one number, and later runs execute the code of the other. Here a file is named after its signature and the
machine it is for, and written before the index names it; an entry that is lost on the way is compiled once more.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import IndexDataCacheFile

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("numba compiles nothing, as NUMBA_DISABLE_JIT is set")

log = logging.getLogger("hdnn_dist")


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
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        return f"{self._index_name.removesuffix('.nbi')}.{digest}.nbc"


def shared(dispatcher: Any) -> Any:
    """A function compiled with ``cache=True``, kept in a ``SharedCacheFile``."""
    dispatcher._cache._cache_file.__class__ = SharedCacheFile
    return dispatcher
