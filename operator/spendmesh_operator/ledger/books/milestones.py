"""
What an account has reached and people must hear exactly once: thresholds, exhaustion, too much in quarantine. Pure.

A milestone is kept with the books, so that a restart or another leader neither forgets nor repeats it. A threshold
that was reached stays reached while the amount is not raised: rights that leave quarantine do not make it flap. When
the amount is raised above what it was reached at, it is left if spend is below it then, and told anew if reached again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from spendmesh_operator.ledger.books.accounts import Account, Milestone
from spendmesh_operator.ledger.books.extra import NO_EXTRA, Extra
from spendmesh_operator.ledger.books.rolling import NOTHING, Beside
from spendmesh_sidecar.core.specs import LimitSpec

QUARANTINE: Final = "quarantine"
EXHAUSTED: Final = "100"
QUARANTINE_PERCENT: Final = 5
"""Contract §4: more than this share of a limit in quarantine alerts."""
QUARANTINE_OVER_PERCENT: Final = 4
"""At this share the alert ends; between the two it stays as it is, so that one pod cannot make it flap."""

ROLLED_BELOW_PERCENT: Final = 5
"""A rolling window has no new period: a threshold is left when spend is so many points below it."""


def spent(account: Account, others: Beside = NOTHING, extra: Extra = NO_EXTRA) -> int:
    """What counts towards thresholds."""
    settled = account.settled + others.settled + extra.settled
    return settled + account.totals.quarantined + others.quarantined + extra.quarantined


def reaches(percent: int, amount: int, used: int) -> bool:
    """Whether `used` is at least `percent` of `amount`; of nothing, all is used."""
    return used * 100 >= percent * amount


def stands(account: Account, limit: LimitSpec, percent: int, used: int) -> bool:
    """Whether a threshold acts now: it is reached, or was reached at an amount that has not been raised since."""
    if reaches(percent, limit.amount, used):
        return True
    known = account.milestones.get(str(percent))
    return known is not None and known.amount >= limit.amount


def standing(milestones: Mapping[str, Milestone], limit: LimitSpec) -> tuple[str, ...]:
    """Names of milestones that are not left, in order."""
    return tuple(
        sorted(name for name, known in milestones.items() if name == QUARANTINE or known.amount >= limit.amount)
    )


def note_reached(account: Account, others: Beside, now_ms: int, extra: Extra = NO_EXTRA) -> bool:
    """
    Note what is reached now and was not before, and the end of a quarantine alert. Answers whether that is news.

    An override has no milestones of its own: while it runs it is `extra` to those of its limit, and when it is over
    they are left unless the limit reaches them without it.
    """
    if account.key.override:
        return False
    news = False
    if account.limit.window.type == "Rolling":
        if not account.key.start * 1000 <= now_ms < others.followed_at * 1000:
            return False  # its milestones are, or will be, those of the newest part that is open and has begun
        others = others.at(now_ms)
        news = _roll(account, others, extra)
    amount, used = account.limit.amount + extra.amount, spent(account, others, extra)
    for percent in (*(step.percent for step in account.limit.thresholds), 100):
        known, reached = account.milestones.get(str(percent)), reaches(percent, amount, used)
        if known is not None and known.extra > extra.amount:
            if reached:
                account.milestones[str(percent)] = replace(known, amount=amount, extra=extra.amount)
            else:
                del account.milestones[str(percent)]
            news = True
        elif reached and (known is None or known.amount < amount):
            account.milestones[str(percent)] = Milestone(amount, now_ms, extra=extra.amount)
            news = True
    return _note_quarantine(account, others, now_ms) or news


def amount_changed(account: Account, others: Beside = NOTHING) -> None:
    """The limit has another amount: what is reached at that too was not left, and is not told again."""
    for name, known in list(account.milestones.items()):
        higher = name != QUARANTINE and known.amount < account.limit.amount
        if higher and reaches(int(name), account.limit.amount, spent(account, others)):
            account.milestones[name] = replace(known, amount=account.limit.amount)


def corrected(account: Account, others: Beside = NOTHING, extra: Extra = NO_EXTRA) -> None:
    """A correction took spend back: what is no longer reached is left, and told anew if it is reached again."""
    for name in list(account.milestones):
        if name != QUARANTINE and not _reaches(account, int(name), others, extra):
            del account.milestones[name]


def _reaches(account: Account, percent: int, others: Beside, extra: Extra) -> bool:
    """By the limit's own amount, or with what overrides add: neither must be told again when they begin or end."""
    with_extra = reaches(percent, account.limit.amount + extra.amount, spent(account, others, extra))
    return with_extra or reaches(percent, account.limit.amount, spent(account, others))


def _roll(account: Account, others: Beside, extra: Extra) -> bool:
    """A rolling window goes on: milestones move with it, and are left when spend has rolled well below them."""
    before = dict(account.milestones)
    for part in others.before:
        account.milestones = part.milestones | account.milestones
        part.milestones = {}
    for name in list(account.milestones):
        if name != QUARANTINE and not _reaches(account, int(name) - ROLLED_BELOW_PERCENT, others, extra):
            del account.milestones[name]
    return account.milestones != before


def _note_quarantine(account: Account, others: Beside, now_ms: int) -> bool:
    amount, quarantined = account.limit.amount, account.totals.quarantined + others.quarantined
    if QUARANTINE not in account.milestones:
        if quarantined * 100 <= QUARANTINE_PERCENT * amount:
            return False
        account.milestones[QUARANTINE] = Milestone(amount, now_ms)
        return True
    if quarantined * 100 <= QUARANTINE_OVER_PERCENT * amount:
        del account.milestones[QUARANTINE]
        return True
    return False
