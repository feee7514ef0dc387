"""The revision of the books: whatever must become durable counts in it, by itself and never backwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from ledger_desk import HOUR_MS, Desk, holder
from ledger_samples import BUDGET, budget, report


def one_more_lease(desk: Desk) -> None:
    desk.grant(holder("pod-b"), 10)


def closed(desk: Desk) -> None:
    (lease,) = (lease.id for _, lease in desk.books.holdings.leases_of(["pod-a"]))
    desk.tell(holder(), report(lease, 100, closed=1))


def newer_epoch(desk: Desk) -> None:
    desk.books.raise_epoch(desk.books.epoch + 1)


def new_life(desk: Desk) -> None:
    desk.books.begin_life("bbbbbb-", desk.now_ms)


def new_meaning(desk: Desk) -> None:
    other = replace(budget(), name="team-b/team")
    desk.books.remember({other.name: other}, (BUDGET, other.name))


def forgotten_pod(desk: Desk) -> None:
    desk.books.pods.mark_gone("pod-c")
    desk.books.sweep(desk.now_ms, 0)


def an_hour_believed(desk: Desk) -> None:
    desk.books.holdings.believe(desk.now_ms + HOUR_MS - 1, HOUR_MS)


def dropped(desk: Desk) -> None:
    (account,) = desk.books.holdings.accounts.values()
    desk.books.holdings.drop(account)


@pytest.mark.parametrize(
    "change",
    [one_more_lease, closed, newer_epoch, new_life, new_meaning, forgotten_pod, an_hour_believed, dropped],
)
def test_each_change_that_must_become_durable_counts(change: Callable[[Desk], None]) -> None:
    """What is taken for durable is told; a change that does not count would be told before it is written."""
    desk = Desk()
    desk.grant(holder(), 100)
    lease = desk.grant(holder("pod-c"), 1)
    desk.tell(holder("pod-c"), report(lease.id, 1, closed=1))
    desk.pass_time(1)
    before = desk.books.revision

    change(desk)

    assert desk.books.revision > before


def test_an_epoch_that_the_books_have_already_is_no_change() -> None:
    """It is told with every message: it must not cost a write each time."""
    desk = Desk()
    desk.books.raise_epoch(7)
    before = desk.books.revision

    desk.books.raise_epoch(7)
    desk.books.raise_epoch(6)

    assert (desk.books.epoch, desk.books.revision) == (7, before)
