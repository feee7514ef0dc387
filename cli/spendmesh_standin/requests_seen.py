"""What the stand-in saw arrive: method, path, headers without secrets, the body's hash; bodies only where asked."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

_SECRET_HEADERS = frozenset(("authorization", "x-api-key", "api-key", "cookie", "proxy-authorization"))
_KEPT = 10_000  # of the newest; a demo's worth, some 20 MB


@dataclass(slots=True)
class SeenRequest:
    """One request. `status` stays None while it is being answered and 0 where it ended without headers."""

    id: str
    time: float
    provider: str
    account: str | None
    method: str
    path: str
    headers: list[tuple[str, str]]
    body_sha256: str = ""
    body_bytes: int = 0
    body: Any = None
    status: int | None = None

    def read(self, raw: bytes, *, keep: bool) -> None:
        """Note the body; its JSON only where `keep` says so."""
        self.body_sha256, self.body_bytes = sha256(raw).hexdigest(), len(raw)
        if keep:
            try:
                self.body = json.loads(raw)
            except ValueError:
                self.body = None  # not JSON: hash and size say what can be said

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class SeenRequests:
    """The newest requests, oldest first."""

    def __init__(self) -> None:
        self._items: deque[SeenRequest] = deque(maxlen=_KEPT)

    def add(
        self, identifier: str, now: float, provider: str, method: str, path: str, headers: Iterable[tuple[str, str]]
    ) -> SeenRequest:
        shown = []
        for name, value in headers:
            shown.append((name.lower(), "***" if name.lower() in _SECRET_HEADERS else value))
        seen = SeenRequest(identifier, now, provider, None, method, path, shown)
        self._items.append(seen)
        return seen

    def all(self) -> tuple[SeenRequest, ...]:
        return tuple(self._items)

    def clear(self) -> None:
        self._items.clear()
