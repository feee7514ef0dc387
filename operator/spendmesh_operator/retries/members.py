"""What one sidecar holds of a shared retry budget, as far as its coordinator can know. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.structs import replace

from spendmesh_sidecar.core.failures.retry_grants import MAX_CALLS_PER_SECOND, ShareGrant, ShareReport

MAX_SHARE = 10_000_000
"""Hundredths of a retry that a report may claim to hold or to want."""
MAX_GRANTS = 16
"""Grants kept apart; a sidecar that hears every third answer has fewer open."""


class Granted(Struct, frozen=True):
    """One grant that may be spent from, or may be on its way, or was not long ago."""

    number: int
    share: int
    safe: int
    expires_at: float
    over_at: float = math.inf
    """When its sidecar said that it obeys a newer one."""


class Counted(Struct, frozen=True):
    """What a sidecar counts with in the sums of its budget, or such a sum."""

    holds: int = 0
    safe: int = 0
    deposits: int = 0


@dataclass(slots=True)
class Member:
    """
    One sidecar. Numbers in reports come from strangers: each is bounded by what was granted or what is possible.
    """

    interval_seconds: float
    instance: str
    """Its process. A new one of the same pod knows nothing of what the last one spent."""
    sequence: int = 0
    wants: int = 0
    deposits: int = 0
    last_heard: float = 0.0
    answer: ShareGrant | None = None
    answer_expires_at: float = 0.0
    counted: Counted = field(default_factory=Counted)
    """In the sums of its budget: what it counted with when they were taken."""
    _number: int = 0
    _withdrawn: int = 0
    _withdrawn_until: float = 0.0
    _granted: list[Granted] = field(default_factory=list)
    _left_behind: int = 0
    """What processes before this one may have withdrawn, or may yet."""
    _left_behind_until: float = 0.0

    def take(self, report: ShareReport, epoch: int, now: float) -> None:
        """Keep what a report says, and close grants that its sidecar never spends from again."""
        self.sequence, self.last_heard = report.sequence, now
        self.wants = _bounded(report.wants, MAX_SHARE)
        self.deposits = _bounded(report.deposits, int(self.interval_seconds * MAX_CALLS_PER_SECOND))
        # Under an earlier coordinator: nothing is known of what it had.
        ceiling = self._ceiling(now) if self._number or not report.epoch else MAX_SHARE
        self._withdrawn = _bounded(report.withdrawals, ceiling)
        self._withdrawn_until = now + self.interval_seconds
        heard = min(report.heard, self._number) if report.epoch == epoch else 0
        self._granted = [
            replace(each, over_at=now) if (report.leaving or each.number < heard) and each.over_at > now else each
            for each in self._granted
            if self._matters(each, now)
        ]

    def restart(self, instance: str, now: float) -> None:
        """Another process of the pod: what the last one had counts until it is surely over."""
        held = self.holds(now)
        self._left_behind = held
        self._left_behind_until = max(
            [now, self._left_behind_until, self._withdrawn_until] + [self._counts_until(each) for each in self._granted]
        )
        self.instance, self.sequence, self.answer = instance, 0, None
        self._withdrawn = 0
        self._granted.clear()

    def grant(self, share: int, safe: int, expires_at: float) -> int:
        """Note one more grant; its number."""
        self._number += 1
        self._granted.append(Granted(self._number, share, safe, expires_at))
        if len(self._granted) > MAX_GRANTS:
            first, second = self._granted[:2]
            self._granted[:2] = [
                Granted(
                    second.number,
                    max(first.share, second.share),
                    max(first.safe, second.safe),
                    max(first.expires_at, second.expires_at),
                    max(first.over_at, second.over_at),
                )
            ]
        return self._number

    def holds(self, now: float) -> int:
        """The most that it can have withdrawn within the last interval, or may withdraw."""
        spendable = (each.share for each in self._granted if each.over_at > now < self._counts_until(each))
        withdrawn = self._withdrawn if now < self._withdrawn_until else 0
        return max(withdrawn, max(spendable, default=0)) + self.left_behind(now)

    def left_behind(self, now: float) -> int:
        """The part of `holds` that an earlier process of its pod had."""
        return self._left_behind if now < self._left_behind_until else 0

    def share(self, now: float) -> int:
        """The most that it may withdraw in an interval now."""
        return max((each.share for each in self._granted if each.over_at > now < each.expires_at), default=0)

    def newest_share(self, now: float) -> int:
        """Of the last grant, while that lasts."""
        return self._granted[-1].share if self._granted and now < self._granted[-1].expires_at else 0

    @property
    def safe(self) -> int:
        """The most that it may withdraw in an interval once its share has run out; no clock ends that."""
        return max((each.safe for each in self._granted if each.over_at == math.inf), default=0)

    def _counts_until(self, granted: Granted) -> float:
        """What was withdrawn just before its end counts for an interval more."""
        return granted.expires_at + self.interval_seconds

    def _matters(self, granted: Granted, now: float) -> bool:
        """Whether something may be withdrawn under it, or was not long ago; the newest tells what is safe."""
        if granted.over_at < math.inf:
            return now < granted.over_at + self.interval_seconds
        return now < self._counts_until(granted) or granted.number == self._number

    def _ceiling(self, now: float) -> int:
        """What can have been withdrawn within the last interval."""
        return max((max(each.share, each.safe) for each in self._granted if self._matters(each, now)), default=0)


def _bounded(claimed: int, most: int) -> int:
    return min(max(0, claimed), most)
