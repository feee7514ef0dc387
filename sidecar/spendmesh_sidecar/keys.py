"""Provider keys, read when they are used: a rotated Secret acts without a restart, and no key outlives a call here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

LOOK_AGAIN_SECONDS = 1.0
"""A new key acts after this; the kubelet itself takes a minute or two to bring it."""


class KeySource(Protocol):
    """Finds the key of a provider."""

    def get(self, name: str) -> str | None:
        """The key for `ProviderSpec.key_name`, or None when the pod does not have it."""
        ...


class FileKeys:
    """Keys mounted from Secrets: one file per provider, re-read when the kubelet has swapped it."""

    def __init__(self, directory: Path, now: Callable[[], float]) -> None:
        self._directory = directory
        self._now = now
        self._read: dict[str, tuple[float, int, str]] = {}

    def get(self, name: str) -> str | None:
        """See `KeySource.get`. A name with a path in it finds nothing."""
        now = self._now()
        known = self._read.get(name)
        if known is not None and now < known[0]:
            return known[2] or None
        if not name or "/" in name or name.startswith("."):
            return None
        path = self._directory / name
        try:
            changed = path.stat().st_mtime_ns
            key = known[2] if known is not None and known[1] == changed else path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            self._read.pop(name, None)
            return None
        self._read[name] = now + LOOK_AGAIN_SECONDS, changed, key
        return key or None


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
