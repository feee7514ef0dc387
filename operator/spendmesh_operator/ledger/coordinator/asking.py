"""
From the wants of a request to the accounts that they are about: period, values, and what forbids an account. Pure.

How much is granted is `granting`'s; nothing is booked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from spendmesh_operator.ledger.books.accounts import Account, AccountKey, LimitInForce
from spendmesh_operator.ledger.books.granting import Asked as Asked, Refused
from spendmesh_operator.ledger.books.holdings import Holdings
from spendmesh_operator.ledger.books.partitions import candidates
from spendmesh_operator.ledger.books.periods import Span, span_after, span_at
from spendmesh_sidecar.core.ledger.rights import meaning_of
from spendmesh_sidecar.core.specs import WindowSpec
from spendmesh_sidecar.protocol import AccountRef, Want

LimitsOf = Callable[[AccountRef], LimitInForce | None]
Which = Literal["previous", "current", "next"]
"""A period, seen from now."""
ENDED_MARGIN_SECONDS = 60
"""A report took less to come, and clocks differ by less, than this; the shortest part of a rolling window is 150 s."""


def find_all(
    holdings: Holdings, domain: str, uid: str, wants: Iterable[Want], limits: LimitsOf, now_ms: int
) -> tuple[dict[AccountKey, Asked], list[tuple[Want, Refused]]]:
    """The accounts that the pod `uid` asks for, with the wants that meet in each, and the wants that have none."""
    found: dict[AccountKey, Asked] = {}
    refusals: list[tuple[Want, Refused]] = []
    drafts: dict[AccountKey, Account] = {}
    for want in wants:
        in_force = limits(want.account)
        try:
            account = account_for(holdings, drafts, domain, uid, want.account, want.period, in_force, now_ms)
        except Refused as refused:
            refusals.append((want, refused))
            continue
        assert in_force is not None  # account_for refuses then
        if account.key not in holdings.accounts:
            drafts[account.key] = account
        found.setdefault(account.key, Asked(account, in_force)).wants.append(want)
    return found, refusals


def account_for(
    holdings: Holdings,
    drafts: Mapping[AccountKey, Account],
    domain: str,
    uid: str,
    ref: AccountRef,
    which: Which,
    in_force: LimitInForce | None,
    now_ms: int,
    ended_seconds: int = 0,
) -> Account:
    """
    The account of a pod, or a draft (one of `drafts`, or new) that opens with its first lease. Raises Refused.

    Of several previous periods it is the one that ended `ended_seconds` ago.
    """
    if in_force is None or ref.override or len(ref.per) != len(in_force.limit.per):
        raise Refused("unknown")
    if not in_force.verifiable or in_force.differs:
        raise Refused("unverifiable", why=in_force.differs)
    limit = in_force.limit
    try:
        span = _span(which, limit.window, now_ms, ended_seconds)
    except ValueError as error:
        raise Refused("unverifiable") from error
    for other in holdings.period_samples(ref.budget, ref.limit):
        if other.counts_until * 1000 > now_ms and meaning_of(other.limit) != meaning_of(limit):
            # Contract §4: with another meaning it is another limit, which may not take this one's name before it ends.
            raise Refused("unverifiable", other)
    key = _key(holdings, drafts, domain, uid, ref, in_force, span)
    account = holdings.accounts.get(key)
    if account is not None and account.blank and meaning_of(account.limit) != meaning_of(limit):
        holdings.drop(account)  # rights were fetched ahead under the old meaning, and all came back unspent
        account = None
    if account is not None:
        if meaning_of(account.limit) != meaning_of(limit):
            raise Refused("unverifiable", account)
        holdings.refresh(account, in_force)
        return account
    if span.start <= holdings.forgotten_before.get((ref.budget, ref.limit), -1):
        raise Refused("unverifiable")
    opened_by = uid if limit.per else ""
    return drafts.get(key) or Account(key=key, end=span.end, limit=limit, mode=in_force.mode, opened_by=opened_by)


def _key(
    holdings: Holdings,
    drafts: Mapping[AccountKey, Account],
    domain: str,
    uid: str,
    ref: AccountRef,
    in_force: LimitInForce,
    span: Span,
) -> AccountKey:
    """The account that the asked values are counted on: the first that exists, or that may be opened."""
    limit = in_force.limit
    if not limit.per:
        return AccountKey(domain, ref.budget, ref.limit, (), span.start)
    keys = [
        AccountKey(domain, ref.budget, ref.limit, per, span.start) for per in candidates(limit, ref.per, in_force.place)
    ]
    division = holdings.division(ref.budget, ref.limit, span.start, span.end)
    mine = [key for key in drafts if key.budget == ref.budget and key.limit == ref.limit and key.start == span.start]
    room = division.has_room(limit, uid, len(mine))
    return next((key for key in keys if key in holdings.accounts or key in drafts or room), keys[-1])


def _span(which: Which, window: WindowSpec, now_ms: int, ended_seconds: int) -> Span:
    span = span_at(window, now_ms // 1000)
    if which == "previous":
        within = now_ms // 1000 - ended_seconds - ENDED_MARGIN_SECONDS if ended_seconds else span.start
        return span_at(window, min(span.start - 1, within))
    return span if which == "current" else span_after(window, span)
