"""
What was applied before a pod is known when that pod is injected, though the watch may tell it later.

`kubectl apply` of policy and workload in one go makes the pod a moment after its ModelProvider; a pod that is injected
without the Secret which that names has to be made anew. So the webhook reads the pod's namespace first. Many pods at
once share a read, as singleflight does (golang.org/x/sync), but never one that began before they came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from spendmesh_operator.kube.client import KubeError

PATIENCE_SECONDS: Final = 2.0
"""The API server gives the webhook 5 s; a pod is better made with what is known than not at all."""
SPACING_SECONDS: Final = 0.1
"""Between the beginnings of two reads: a roll-out of a thousand pods costs the API server ten reads a second."""

log = logging.getLogger(__name__)


class CatchUp:
    """Call it with a namespace; it returns when that was read, or after PATIENCE_SECONDS."""

    def __init__(self, read: Callable[[Collection[str]], Awaitable[None]], monotonic: Callable[[], float]) -> None:
        """`read` takes in what some namespaces hold; may raise KubeError, alone or in a group."""
        self._read = read
        self._monotonic = monotonic
        self._one_at_a_time = asyncio.Lock()
        self._not_before = 0.0
        self._gathering: set[str] = set()
        self._next: asyncio.Task[None] | None = None

    async def __call__(self, namespace: str) -> None:
        self._gathering.add(namespace)
        if self._next is None:
            self._next = asyncio.create_task(self._round(), name="catch up")
        try:
            await asyncio.wait_for(asyncio.shield(self._next), PATIENCE_SECONDS)
        except TimeoutError:
            log.warning("namespace %s could not be read in time: pods get the policy as it was known", namespace)

    async def _round(self) -> None:
        async with self._one_at_a_time:
            await asyncio.sleep(self._not_before - self._monotonic())
            # Who comes from here on may come after something that this read no longer sees.
            namespaces, self._gathering, self._next = self._gathering, set(), None
            self._not_before = self._monotonic() + SPACING_SECONDS
            try:
                await self._read(namespaces)
            except* KubeError as errors:
                log.warning("pods get the policy as it was known: %s", errors.exceptions[0])
