"""One report merged into one lease: what is taken over, which values no lease can have, and what shows a copy."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ledger_desk import holder
from ledger_samples import report
from spendmesh_operator.ledger.books.accounts import MAX_AMOUNT, BadRequest, Lease
from spendmesh_operator.ledger.books.merging import check_values, merge
from spendmesh_sidecar.protocol import LeaseReport

LEASE = Lease("l", holder(), granted=100)


def merged(*reports: LeaseReport, lease: Lease = LEASE) -> Lease:
    """The lease after these reports, none of which shows a second history."""
    for one in reports:
        result = merge(lease, one)
        assert result.verdict == ""
        lease = result.lease
    return lease


def history(*used: int, copy: str = "") -> list[LeaseReport]:
    """Reports of one holder; those of another history have had another refusal each."""
    told: list[LeaseReport] = []
    for each in used:
        told.append(report("l", each, after=told[-1] if told else None, would_block=len(copy)))
    return told


@pytest.mark.parametrize("name", ["used", "held", "released", "overrun", "would_block", "unheld", "granted"])
def test_each_amount_is_read_up_to_the_largest(name: str) -> None:
    """10^18 is the largest limit that a manifest may say."""
    largest = replace(report("l", MAX_AMOUNT if name == "overrun" else 0), **{name: MAX_AMOUNT})
    check_values(largest)
    for beyond in (MAX_AMOUNT + 1, -1):
        with pytest.raises(BadRequest, match=f"{name} {beyond} is not between"):
            check_values(replace(largest, **{name: beyond}))


def test_sequences_are_read_from_one_to_the_largest() -> None:
    for sequence in (1, MAX_AMOUNT):
        check_values(replace(report("l", 0), sequence=sequence))
    for sequence in (0, MAX_AMOUNT + 1):
        with pytest.raises(BadRequest, match=f"sequence {sequence} is not a positive number"):
            check_values(replace(report("l", 0), sequence=sequence))


def test_rights_may_all_be_given_back() -> None:
    """A holder that is idle keeps the lease, without any."""
    assert merged(report("l", 0, released=100)).rights == 0


def test_no_more_is_given_back_than_was_granted() -> None:
    assert merged(report("l", 0, released=101)).released == 100


def test_a_late_report_of_the_same_history_changes_nothing() -> None:
    """Also one that tells of as much use as the newest."""
    told = history(10, 10, 10)
    lease = merged(*told)
    assert merged(*reversed(told), lease=lease) == lease


def test_an_older_report_cannot_tell_of_more_use_than_the_newest() -> None:
    """Where its digest is not known: a lease that was taken back after a restore has no trail."""
    lease = replace_trail(merged(*history(1, 2, 3, 4, 5)), ())
    assert merge(lease, history(1, 2, 3, 5)[-1]).verdict == ""
    assert merge(lease, history(1, 2, 3, 6)[-1]).verdict == "fork"


def replace_trail(lease: Lease, trail: tuple[str, ...]) -> Lease:
    return Lease("l", lease.holder, granted=lease.granted, used=lease.used, sequence=lease.sequence, trail=trail)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_another_history_shows_as_long_as_its_report_is_remembered(number: int) -> None:
    """Four reports back, by the digest alone: the copy spent as much."""
    lease = merged(*history(1, 2, 3, 4))
    assert merge(lease, history(1, 2, 3, 4, copy="copy")[number]).verdict == "fork"


def test_a_report_that_never_came_is_known_by_the_one_that_followed() -> None:
    """It names its predecessor: another one in that place is of another history."""
    _, second = history(1, 2)
    lease = merged(second)
    assert merged(history(1)[0], lease=lease) == lease
    assert merge(lease, history(1, copy="copy")[0]).verdict == "fork"


def test_what_was_never_seen_takes_no_room_in_the_books() -> None:
    """The trail is stored with each lease: it ends with the oldest report that is known."""
    first, second, third = history(1, 2, 3)
    assert [len(merged(first).trail), len(merged(second).trail), len(merged(first, third).trail)] == [1, 2, 3]
