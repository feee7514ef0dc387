"""
What sidecars say that only they see, by pod: accounts out of money, clients that retry on their own, targets that they
have ejected. `now` is given.

In the leader's memory only. A pod's last word counts for a few of its repetitions, so that nothing stays that nobody
says any more; a new leader has heard all of it after one. What a pod says is checked against its own policy, and only
names of that policy are kept: a pod may write anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spendmesh_sidecar.policy import Policy
from spendmesh_sidecar.protocol import MAX_OBSERVED, Ejection, Observations

KEPT_SECONDS = 180.0
"""Three repetitions: two may be lost."""
HEARD_ALL_SECONDS = 90.0
"""After which a new leader has heard every pod: one repetition, and time to send it once more."""
WITNESSES = 2
"""Ejections that are kept of a target: one that is told to its own pod's peers, and one to that pod."""
HOW = ("marked", "unmarked")
Target = tuple[str, str]
"""`namespace/name` of a ModelProvider, and a model."""
_CODE = re.compile(r"[a-z0-9_.-]{1,64}")


@dataclass(frozen=True)
class Troubles:
    """What pods say now, as statuses need it."""

    unpaid: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """`namespace/name` of a ModelProvider -> uid of a pod -> what its account says there."""
    client_retries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Uid of a pod -> how its clients retry on their own."""


NO_TROUBLES = Troubles()


@dataclass(frozen=True, slots=True)
class _Word:
    unpaid: Mapping[str, str]
    client_retries: tuple[str, ...]
    until: float


class Sightings:
    """The last word of each pod that has something to say."""

    def __init__(self) -> None:
        self._words: dict[str, _Word] = {}
        self._ejected: dict[Target, dict[str, float]] = {}
        """Target -> uid -> until when, those that last longest."""

    def hear(self, uid: str, policy: Policy, said: Observations, now: float) -> bool:
        """Keep a pod's word in place of its last one; answers whether it says something else."""
        refs = {provider.alias: provider.ref for provider in policy.providers}
        unpaid = {refs[one.provider]: _code(one.code) for one in said.unpaid[:MAX_OBSERVED] if one.provider in refs}
        retries = tuple(how for how in HOW if how in said.client_retries)
        self._hear_ejections(uid, policy, said, now)
        before = self._words.pop(uid, None)
        if unpaid or retries:
            self._words[uid] = _Word(unpaid, retries, now + KEPT_SECONDS)
        return (unpaid, retries) != ((before.unpaid, before.client_retries) if before else ({}, ()))

    def keep_only(self, uids: Iterable[str]) -> None:
        """Forget all pods but these."""
        for uid in self._words.keys() - frozenset(uids):
            del self._words[uid]

    def _hear_ejections(self, uid: str, policy: Policy, said: Observations, now: float) -> None:
        known, longest = targets_of(policy), policy.retry.breaker.max_ejection_ms
        for ejection in said.ejected[:MAX_OBSERVED]:
            target = known.get(ejection.target)
            if target is None or ejection.reopens_in_ms <= 0:
                continue
            ejected = {one: until for one, until in self._ejected.get(target, {}).items() if until > now}
            ejected[uid] = now + min(ejection.reopens_in_ms, longest) / 1000
            kept = sorted(ejected.items(), key=lambda one: one[1])[-WITNESSES:]
            self._ejected[target] = dict(kept)

    @property
    def ejected(self) -> bool:
        """Whether there may be hints at all: asked for every report of every pod."""
        return bool(self._ejected)

    def hints(self, uid: str, policy: Policy, now: float) -> tuple[Ejection, ...]:
        """What other pods have ejected of the targets of this pod's policy, in that policy's words."""
        self._ejected = {target: by for target, by in self._ejected.items() if max(by.values()) > now}
        found: list[Ejection] = []
        for key, target in sorted(targets_of(policy).items()):
            until = max((until for one, until in self._ejected.get(target, {}).items() if one != uid), default=now)
            if until > now:
                found.append(Ejection(target=key, reopens_in_ms=int((until - now) * 1000)))
        return tuple(found[:MAX_OBSERVED])

    def troubles(self, now: float) -> Troubles:
        """What stands."""
        unpaid: dict[str, dict[str, str]] = {}
        retries: dict[str, tuple[str, ...]] = {}
        for uid, word in self._words.items():
            if word.until <= now:
                continue
            for ref, code in word.unpaid.items():
                unpaid.setdefault(ref, {})[uid] = code
            if word.client_retries:
                retries[uid] = word.client_retries
        return Troubles(unpaid, retries)


def targets_of(policy: Policy) -> dict[str, Target]:
    """By the policy's own name of each target (`alias/model`), what it is to all policies."""
    refs = {provider.alias: provider.ref for provider in policy.providers}
    named = ((key, *key.split("/", 1)) for key in policy.targets)
    return {key: (refs[alias], model) for key, alias, model in named if alias in refs}


def _code(text: str) -> str:
    return text if _CODE.fullmatch(text) else "unpaid"
