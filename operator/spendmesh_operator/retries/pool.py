"""
One RetryBudget of scope Cluster: how much all its sidecars may retry together, and each one's share of it. Pure.

The share of a sidecar is what it may withdraw in any `budget.interval`, leased for `leaseDuration` (Doorman's leases
and learning mode, youtube/doorman doc/design.md). Beyond Doorman, a sidecar counts with what it can still spend of
older grants and with what it withdrew within the last interval, so that a share that moves is not spent twice.

The law: when a share is granted, `Σ holds <= C`, so all withdrawals of any interval stay below the largest capacity C
of that interval and the lease before it. Without a coordinator each sidecar has its safe share, and these together are
at most the floor. What an earlier coordinator granted goes on while this one learns, and nothing is added to it but
safe shares; so in the worst case all withdrawals of an interval are C and the floor, at most 2 C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice

from msgspec import Struct
from msgspec.structs import replace

from spendmesh_operator.retries.fairness import fair_parts
from spendmesh_operator.retries.members import MAX_SHARE, Counted, Member
from spendmesh_sidecar.core.failures.retry_grants import FULL_RETRY, ShareGrant, ShareReport
from spendmesh_sidecar.core.specs import RetrySpec

LOST_SECONDS = 600.0
"""How long a silent sidecar's safe share is kept for it: it may be cut off and spend it."""
LOOK_SECONDS = 0.25
"""How often all sidecars are looked at anew; between two looks, sums follow each report, and time frees nothing."""
RESERVED = 2
"""Of what nobody wants, one part in so many is handed out in advance; the rest is for who suddenly wants it."""


class PoolView(Struct, frozen=True):
    """How one budget stands, for status and metrics. Amounts are hundredths of a retry in one interval."""

    name: str
    members: int
    """Sidecars that were heard of within a lease."""
    capacity: int
    granted: int
    """What they may withdraw, all together."""
    learning_seconds: float
    """How long shares of an earlier coordinator may still be about; 0: it knows what everybody holds."""


class Parts(Struct, frozen=True):
    """Fair parts in whole retries, and what they were made of."""

    whole: int = -1
    wants: Mapping[str, int] = {}
    parts: Mapping[str, int] = {}


class Pool:
    """Members by the uid of their pod. `spec` is the newest one that a caller brought."""

    def __init__(self, spec: RetrySpec, epoch: int, started_at: float) -> None:
        self.spec = spec
        self._epoch = epoch
        self._started_at = started_at
        self._members: dict[str, Member] = {}
        self._looked_at = -math.inf
        self._sums = Counted()
        self._parts = Parts()

    def ask(self, spec: RetrySpec, uid: str, instance: str, report: ShareReport, now: float) -> ShareGrant:
        """Take a report and answer a grant; a repeated or late one gets the last answer again, not a longer lease."""
        self.spec = spec
        self._look(now)
        member = self._member(uid, instance, now)
        if member.answer is not None and report.sequence <= member.sequence:
            left_ms = max(0, int((member.answer_expires_at - now) * 1000))
            return replace(member.answer, expires_in_ms=left_ms)
        member.take(report, self._epoch, now)
        self._count(member, now)
        safe = 0 if report.leaving else self._safe(uid)
        share = 0 if report.leaving else self._share(uid, report, safe, now)
        expires_at = now + spec.cluster.lease_ms / 1000
        member.answer_expires_at = expires_at
        member.answer = ShareGrant(
            budget=spec.name,
            epoch=self._epoch,
            number=member.grant(share, safe, expires_at),
            interval_ms=spec.budget_interval_ms,
            share=share,
            safe=safe,
            expires_in_ms=spec.cluster.lease_ms,
            refresh_in_ms=spec.cluster.refresh_ms,
        )
        self._count(member, now)
        return member.answer

    # --- how it stands ----------------------------------------------------------------------------------------

    def learning(self, now: float) -> bool:
        """Whether sidecars may still hold shares of an earlier coordinator that this one has not heard of."""
        return now < self._started_at + self._lease_seconds

    def capacity(self, now: float) -> int:
        """What all may withdraw in an interval: a share of the calls that earn, and the floor of the whole cluster."""
        return self._capacity(sum(each.deposits for each in self._members.values() if self._present(each, now)))

    @property
    def floor(self) -> int:
        """The part of the capacity that needs no calls."""
        spec = self.spec
        return FULL_RETRY * spec.min_retry_count * spec.budget_interval_ms // spec.min_retry_interval_ms

    def holds(self, now: float) -> int:
        """The most that all can have withdrawn within the last interval, or may withdraw under their shares."""
        return sum(each.holds(now) for each in self._members.values())

    def safe(self) -> int:
        """What all may withdraw in an interval without a coordinator."""
        return sum(each.safe for each in self._members.values())

    def view(self, now: float) -> PoolView:
        """For people."""
        members = [each for each in self._members.values() if self._present(each, now)]
        return PoolView(
            name=self.spec.name,
            members=len(members),
            capacity=self.capacity(now),
            granted=sum(each.share(now) for each in members),
            learning_seconds=max(0.0, self._started_at + self._lease_seconds - now),
        )

    def empty(self, now: float) -> bool:
        """Whether nobody has asked for so long that nothing is worth keeping."""
        self._looked_at = -math.inf
        self._look(now)
        return not self._members

    # --- parts ------------------------------------------------------------------------------------------------

    @property
    def _lease_seconds(self) -> float:
        return self.spec.cluster.lease_ms / 1000

    def _present(self, member: Member, now: float) -> bool:
        return now < member.last_heard + self._lease_seconds

    def _member(self, uid: str, instance: str, now: float) -> Member:
        member = self._members.get(uid)
        if member is None:
            member = self._members[uid] = Member(self.spec.budget_interval_ms / 1000, instance)
        elif member.instance != instance:
            member.restart(instance, now)
        return member

    def _look(self, now: float) -> None:
        """Forget who is over, and take all sums anew, if the last time is a while ago."""
        if now < self._looked_at + LOOK_SECONDS:
            return
        self._looked_at, self._sums, self._parts = now, Counted(), Parts()
        for uid in [uid for uid, member in self._members.items() if self._over(member, now)]:
            del self._members[uid]
        for member in self._members.values():
            member.counted = Counted()
            self._count(member, now)

    def _count(self, member: Member, now: float) -> None:
        """Bring the sums up to date with one sidecar."""
        before, total = member.counted, self._sums
        deposits = member.deposits if self._present(member, now) else 0
        after = member.counted = Counted(member.holds(now), member.safe, deposits)
        self._sums = Counted(
            total.holds + after.holds - before.holds,
            total.safe + after.safe - before.safe,
            total.deposits + after.deposits - before.deposits,
        )

    def _capacity(self, earned: int) -> int:
        return min(MAX_SHARE, self.spec.budget_percent * earned + self.floor)

    def _share(self, uid: str, report: ShareReport, safe: int, now: float) -> int:
        """Its fair share, as far as that is free of what all others, and its own past, can spend."""
        member = self._members[uid]
        if self.learning(now):
            return self._learned(member, report, now) or safe
        capacity, left_behind = self._capacity(self._sums.deposits), member.left_behind(now)
        free = capacity - (self._sums.holds - member.counted.holds) - left_behind
        part = FULL_RETRY * self._part(uid, capacity // FULL_RETRY, now)
        return max(0, min(part - left_behind, free)) // FULL_RETRY * FULL_RETRY

    def _learned(self, member: Member, report: ShareReport, now: float) -> int:
        """What this or an earlier coordinator granted goes on."""
        earlier = min(report.has, MAX_SHARE) if 0 < report.epoch < self._epoch else 0
        return member.newest_share(now) or max(0, earlier)

    def _part(self, uid: str, whole: int, now: float) -> int:
        """
        Its fair part in retries: first of what all want, then some of the rest in equal parts.

        Parts are kept until something changes that matters; they may be a little old, since what is free bounds them.
        """
        wants, known = _whole(self._members[uid].wants), self._parts
        if known.wants.get(uid) != wants or abs(whole - known.whole) * 16 > known.whole:
            present = {key: _whole(each.wants) for key, each in self._members.items() if self._present(each, now)}
            turn = int(now * 1000) // self.spec.budget_interval_ms
            wanted = fair_parts(whole, list(present.values()), turn)
            spare = (whole - sum(wanted)) // RESERVED
            ahead = fair_parts(spare, [spare] * len(present), turn)
            parts = {key: want + more for key, want, more in zip(present, wanted, ahead, strict=True)}
            known = self._parts = Parts(whole, present, parts)
        return known.parts[uid]

    def _safe(self, uid: str) -> int:
        """Whole retries of the floor in equal parts; what does not divide goes to who came first."""
        floor = self.floor // FULL_RETRY
        each, over = divmod(floor, len(self._members))
        early = any(key == uid for key in islice(self._members, over))
        taken = self._sums.safe - self._members[uid].counted.safe
        return max(0, min(FULL_RETRY * (each + early), FULL_RETRY * floor - taken))

    def _over(self, member: Member, now: float) -> bool:
        if member.holds(now) or self._present(member, now):
            return False
        return not member.safe or now >= member.last_heard + LOST_SECONDS


def _whole(amount: int) -> int:
    """In whole retries, rounded up."""
    return -(-amount // FULL_RETRY)
