"""Provider keys, read when they are used: a rotated Secret acts without a restart, and no key outlives a call here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class KeySource(Protocol):
    """Finds the key of a provider."""

    def get(self, name: str) -> str | None:
        """The key for `ProviderSpec.key_name`, or None when the pod does not have it."""
        ...


class FileKeys:
    """Keys mounted from Secrets: one file per provider, re-read when the kubelet swaps it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._paths: dict[str, Path] = {}
        self._cache: dict[str, tuple[int, str]] = {}

    def get(self, name: str) -> str | None:
        """See `KeySource.get`. A name with a path in it finds nothing."""
        path = self._paths.get(name)
        if path is None:
            if not name or "/" in name or name.startswith("."):
                return None
            path = self._paths[name] = self._directory / name
        try:
            changed = path.stat().st_mtime_ns
            cached = self._cache.get(name)
            if cached is None or cached[0] != changed:
                cached = self._cache[name] = (changed, path.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError):
            return None
        return cached[1] or None


class StaticKeys:
    """Keys handed in (`run`, `demo`, tests)."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = dict(keys)

    def get(self, name: str) -> str | None:
        """See `KeySource.get`."""
        return self._keys.get(name) or None

    def replace(self, keys: Mapping[str, str]) -> None:
        """Take these in place of the old ones: they act from the next attempt on."""
        self._keys = dict(keys)
