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

from msgspec import Struct
from msgspec.structs import replace

from spendmesh_operator.retries.fairness import fair_parts
from spendmesh_operator.retries.members import MAX_SHARE, Member
from spendmesh_sidecar.core.retry_grants import FULL_RETRY, ShareGrant, ShareReport
from spendmesh_sidecar.core.specs import RetrySpec

LOST_SECONDS = 600.0
"""How long a silent sidecar's safe share is kept for it: it may be cut off and spend it."""
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


class Pool:
    """Members by the uid of their pod. `spec` is the newest one that a caller brought."""

    def __init__(self, spec: RetrySpec, epoch: int, started_at: float) -> None:
        self.spec = spec
        self._epoch = epoch
        self._started_at = started_at
        self._members: dict[str, Member] = {}

    def ask(self, spec: RetrySpec, uid: str, instance: str, report: ShareReport, now: float) -> ShareGrant:
        """Take a report and answer a grant; a repeated or late one gets the last answer again, not a longer lease."""
        self.spec = spec
        self._forget(now)
        member = self._member(uid, instance, now)
        if member.answer is not None and report.sequence <= member.sequence:
            left_ms = max(0, int((member.answer_expires_at - now) * 1000))
            return replace(member.answer, expires_in_ms=left_ms)
        member.take(report, self._epoch, now)
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
        return member.answer

    # --- how it stands ----------------------------------------------------------------------------------------

    def learning(self, now: float) -> bool:
        """Whether sidecars may still hold shares of an earlier coordinator that this one has not heard of."""
        return now < self._started_at + self._lease_seconds

    def capacity(self, now: float) -> int:
        """What all may withdraw in an interval: a share of the calls that earn, and the floor of the whole cluster."""
        earned = sum(each.deposits for each in self._members.values() if self._present(each, now))
        return min(MAX_SHARE, self.spec.budget_percent * earned + self.floor)

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
        self._forget(now)
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

    def _share(self, uid: str, report: ShareReport, safe: int, now: float) -> int:
        """Its fair share, as far as that is free of what all others, and its own past, can spend."""
        member = self._members[uid]
        if self.learning(now):
            return self._learned(member, report, now) or safe
        others = sum(each.holds(now) for key, each in self._members.items() if key != uid)
        free = self.capacity(now) - others - member.left_behind(now)
        return max(0, min(self._parts(now)[uid] - member.left_behind(now), free)) // FULL_RETRY * FULL_RETRY

    def _learned(self, member: Member, report: ShareReport, now: float) -> int:
        """What this or an earlier coordinator granted goes on."""
        earlier = min(report.has, MAX_SHARE) if 0 < report.epoch < self._epoch else 0
        return member.newest_share(now) or max(0, earlier)

    def _parts(self, now: float) -> dict[str, int]:
        """Fair shares of all that are there: first of what they want, then some of the rest in equal parts."""
        present = {uid: each for uid, each in self._members.items() if self._present(each, now)}
        whole, turn = self.capacity(now) // FULL_RETRY, int(now * 1000) // self.spec.budget_interval_ms
        wanted = fair_parts(whole, [-(-each.wants // FULL_RETRY) for each in present.values()], turn)
        spare = (whole - sum(wanted)) // RESERVED
        ahead = fair_parts(spare, [spare] * len(present), turn)
        return {uid: FULL_RETRY * (want + more) for uid, want, more in zip(present, wanted, ahead, strict=True)}

    def _safe(self, uid: str) -> int:
        """Whole retries of the floor in equal parts; what does not divide goes to who came first."""
        floor = self.floor // FULL_RETRY
        each, over = divmod(floor, len(self._members))
        place = next(place for place, key in enumerate(self._members) if key == uid)
        taken = sum(member.safe for key, member in self._members.items() if key != uid)
        return max(0, min(FULL_RETRY * (each + (place < over)), FULL_RETRY * floor - taken))

    def _forget(self, now: float) -> None:
        for uid in [uid for uid, member in self._members.items() if self._over(member, now)]:
            del self._members[uid]

    def _over(self, member: Member, now: float) -> bool:
        if member.holds(now) or self._present(member, now):
            return False
        return not member.safe or now >= member.last_heard + LOST_SECONDS
