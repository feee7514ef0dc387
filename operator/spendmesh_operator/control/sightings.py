"""
What sidecars say that only they see, by pod: accounts out of money, clients that retry on their own. `now` is given.

In the leader's memory only. A pod's last word counts for a few of its repetitions, so that nothing stays that nobody
says any more; a new leader has heard all of it after one. What a pod says is checked against its own policy, and only
names of that policy are kept: a pod may write anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spendmesh_sidecar.policy import Policy
from spendmesh_sidecar.protocol import MAX_OBSERVED, Observations

KEPT_SECONDS = 180.0
"""Three repetitions: two may be lost."""
HEARD_ALL_SECONDS = 90.0
"""After which a new leader has heard every pod: one repetition, and time to send it once more."""
HOW = ("marked", "unmarked")
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

    def hear(self, uid: str, policy: Policy, said: Observations, now: float) -> bool:
        """Keep a pod's word in place of its last one; answers whether it says something else."""
        refs = {provider.alias: provider.ref for provider in policy.providers}
        unpaid = {refs[one.provider]: _code(one.code) for one in said.unpaid[:MAX_OBSERVED] if one.provider in refs}
        retries = tuple(how for how in HOW if how in said.client_retries)
        before = self._words.pop(uid, None)
        if unpaid or retries:
            self._words[uid] = _Word(unpaid, retries, now + KEPT_SECONDS)
        return (unpaid, retries) != ((before.unpaid, before.client_retries) if before else ({}, ()))

    def keep_only(self, uids: Iterable[str]) -> None:
        """Forget all pods but these."""
        for uid in self._words.keys() - frozenset(uids):
            del self._words[uid]

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


def _code(text: str) -> str:
    return text if _CODE.fullmatch(text) else "unpaid"
