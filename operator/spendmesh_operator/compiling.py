"""
From "something changed" to what is in force: compiles a moment later, publishes, and tells who wants to know.

Runs on the loop that also changes the index, so that a compilation sees one consistent state. What compile means is
`compile`'s; where changes come from is the informer's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from spendmesh_operator.compile import Compiled, CompiledPolicy, CompileSettings, compile_index
from spendmesh_operator.control.hub import Hub, PolicyView
from spendmesh_operator.index import Index
from spendmesh_operator.prices import BuiltInPrices
from spendmesh_sidecar.core.specs import BudgetSpec

DEBOUNCE_SECONDS: Final = 0.1
"""Enough for the objects of one `kubectl apply`; Istio waits as long (PILOT_DEBOUNCE_AFTER)."""

IDLE_SHARE: Final = 4
"""The loop rests this many times as long as the last compilation took: webhook and streams share it."""
DEBOUNCE_SECONDS_MAX: Final = 2.0
"""A new pod's sidecar waits 4 s for its policy (KNOWN_SECONDS)."""

log = logging.getLogger(__name__)


def pause_after(took_seconds: float) -> float:
    """How long to gather changes before the next compilation, when the last one took so long."""
    return min(max(DEBOUNCE_SECONDS, IDLE_SHARE * took_seconds), DEBOUNCE_SECONDS_MAX)


class Compiling:
    """The newest compilation, and the loop that makes it."""

    def __init__(self, index: Index, settings: CompileSettings, prices: BuiltInPrices, hub: Hub) -> None:
        self._index = index
        self._settings = settings
        self._prices = prices
        self._hub = hub
        self._dirty = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._took_seconds = 0.0
        self._objects_version = -1
        self.remembered: Mapping[str, BudgetSpec] = {}
        """What the books know of budgets that became unreadable before this process began."""
        self.compiled: Compiled | None = None
        self.done = asyncio.Event()
        """There is a compilation."""

    def mark_dirty(self) -> None:
        """Something in the index changed."""
        self._dirty.set()

    def on_compiled(self, listener: Callable[[], None]) -> None:
        """Call after each compilation."""
        self._listeners.append(listener)

    def policy_of(self, uid: str) -> CompiledPolicy | None:
        """Of a known pod."""
        return self.compiled.policy_of(uid) if self.compiled is not None else None

    async def run(self) -> None:
        """Compile for ever, each time that something changed."""
        loop = asyncio.get_running_loop()
        while True:
            await self._dirty.wait()
            await asyncio.sleep(pause_after(self._took_seconds))
            self._dirty.clear()
            began = loop.time()
            self.compile_now()
            self._took_seconds = loop.time() - began

    def catch_up(self) -> None:
        """Compile now if an object has changed since, rather than a moment later: a new pod is waiting for it."""
        if self._objects_version != self._index.objects_version:
            self.compile_now()

    def compile_now(self) -> None:
        """Compile what the index holds, publish it, tell the listeners."""
        self._objects_version = self._index.objects_version
        compiled = compile_index(self._index, self._settings, self._prices, self.compiled, self.remembered)
        for key, verdict in compiled.verdicts.items():
            if verdict.cause:
                log.error("%s breaks compile, its last good meaning stays: %s", key, verdict.cause)
        self.compiled = compiled
        digests = frozenset(policy.digest for policy in compiled.policies.values())
        self._hub.publish(PolicyView(compiled.policy_of, digests, compiled.price_tables))
        self._hub.keep_only(self._index.pod_uids())
        self.done.set()
        for listener in self._listeners:
            listener()
