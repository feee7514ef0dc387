"""
What every sidecar should obey now, who obeys it, and who is told when it changes. In memory; one event loop.

The hub of each replica holds the whole compiled view. Only the leader's knows the acknowledgements, because
followers forward them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from spendmesh_operator.control.sightings import Sightings
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.coordinator.operations import PolicyInForce
from spendmesh_sidecar.protocol import Ack, Observations, ReportReply


class PublishedPolicy(PolicyInForce, Protocol):
    """One class's policy, ready to be sent; `compile.CompiledPolicy` is one."""

    @property
    def encoded(self) -> bytes: ...

    @property
    def digest(self) -> str: ...


_DIGEST_CHARS = 64
_SENTENCE_CHARS = 500
_NAME_CHARS = 253
_KEYS = 32
"""What is kept of an acknowledgement: it ends up in a status, and a pod may write anything."""


@dataclass(frozen=True)
class PolicyView:
    """One result of compile, as the control server needs it."""

    policy_of: Callable[[str], PublishedPolicy | None] = lambda _: None
    """By pod uid; None for a pod that is not known."""
    digests: frozenset[str] = frozenset()
    """Of all classes."""
    price_tables: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Nack:
    """A policy that a pod refused; it obeys its last one."""

    pod: str
    """`namespace/name`."""
    digest: str
    error: str


class Hub:
    """Current view, its listeners, and what pods acknowledge and see."""

    def __init__(self) -> None:
        self.view = PolicyView()
        self._version = 0
        self._changed = asyncio.Event()
        self._programmed: dict[str, str] = {}
        self._nacks: dict[str, Nack] = {}
        self._missing_keys: dict[str, tuple[str, ...]] = {}
        self._listeners: list[Callable[[], None]] = []
        self.sightings = Sightings()

    # --- policy down --------------------------------------------------------------------------------------

    def publish(self, view: PolicyView) -> None:
        """A new result of compile: every stream whose policy changed sends it."""
        self.view = view
        self.wake()

    def wake(self) -> None:
        """Make every stream look again: the view, the epoch, or which pods exist has changed."""
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def policy_of(self, pod: PodIdentity) -> PublishedPolicy | None:
        """What a pod should obey; the `policy_of` of the coordinator too."""
        return self.view.policy_of(pod.uid)

    async def wait_known(self, pod: PodIdentity, seconds: float) -> PublishedPolicy | None:
        """The pod's policy, waiting for the pod to become known."""
        try:
            async with asyncio.timeout(seconds):
                while (policy := self.policy_of(pod)) is None:
                    await self._changed.wait()
        except TimeoutError:
            return None
        return policy

    @property
    def version(self) -> int:
        """Counts changes; pass it to `wait_changed`."""
        return self._version

    async def wait_changed(self, version: int, seconds: float) -> bool:
        """Wait until something changed after `version`; False when nothing did in time."""
        if self._version != version:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    # --- acknowledgements up ------------------------------------------------------------------------------

    def acknowledge(self, pod: PodIdentity, ack: Ack) -> None:
        """Note what a pod did with a snapshot; the last word counts."""
        digest = ack.digest[:_DIGEST_CHARS]
        if ack.error:
            self._nacks[pod.uid] = Nack(f"{pod.namespace}/{pod.name}", digest, ack.error[:_SENTENCE_CHARS])
        else:
            self._nacks.pop(pod.uid, None)
            self._programmed[pod.uid] = digest
        if ack.missing_keys:
            self._missing_keys[pod.uid] = tuple(name[:_NAME_CHARS] for name in ack.missing_keys[:_KEYS])
        else:
            self._missing_keys.pop(pod.uid, None)
        self._tell()

    def observe(self, pod: PodIdentity, said: Observations, now: float) -> bool:
        """Note what only a pod's sidecar sees; the last word counts. False: the pod is not known (yet)."""
        if (policy := self.policy_of(pod)) is None:
            return False
        if self.sightings.hear(pod.uid, policy.policy, said, now):
            self._tell()
        return True

    def with_hints(self, reply: ReportReply, pod: PodIdentity, now: float) -> ReportReply:
        """The answer to a report, and what other pods have ejected that concerns this one."""
        policy = self.policy_of(pod) if self.sightings.ejected else None
        hints = self.sightings.hints(pod.uid, policy.policy, now) if policy is not None else ()
        return msgspec.structs.replace(reply, hints=hints) if hints else reply

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._programmed.pop(uid, None)
        self._nacks.pop(uid, None)
        self._missing_keys.pop(uid, None)
        self._tell()

    def keep_only(self, uids: Iterable[str]) -> None:
        """Forget all pods but these (after a relist)."""
        known = frozenset(uids)
        self.sightings.keep_only(known)
        for uid in {*self._programmed, *self._nacks, *self._missing_keys} - known:
            self.forget(uid)

    def programmed(self) -> dict[str, frozenset[str]]:
        """Digest -> uids of the pods that obey it."""
        found: dict[str, set[str]] = {}
        for uid, digest in self._programmed.items():
            found.setdefault(digest, set()).add(uid)
        return {digest: frozenset(uids) for digest, uids in found.items()}

    def nacks(self) -> dict[str, Nack]:
        """By pod uid."""
        return dict(self._nacks)

    def missing_keys(self) -> dict[str, tuple[str, ...]]:
        """Pod uid -> names of provider keys that the pod does not have."""
        return dict(self._missing_keys)

    def on_acknowledged(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change of what pods say."""
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
