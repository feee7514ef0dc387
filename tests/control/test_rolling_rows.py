"""What counts beside one part of a rolling window: every row of 25 parts with it, and nothing outside of them."""

from __future__ import annotations

import pytest

from ledger_desk import holder
from ledger_samples import BUDGET, START_MS, limit
from rolling_desk import HOUR, PART_MS
from spendmesh_operator.ledger.books.accounts import Account, AccountKey, Lease
from spendmesh_operator.ledger.books.rolling import NOTHING, Beside, beside, frees_at, running, window_key
from spendmesh_sidecar.core.specs import WindowSpec

START, SECONDS = START_MS // 1000, PART_MS // 1000
SPEC = limit(window=HOUR)


def part(number: int = 0, charged: int = 0) -> Account:
    """The part that begins so many parts after the running one, with a lease that is charged this."""
    start = START + number * SECONDS
    account = Account(AccountKey("test", BUDGET, "hourly", (), start), start + SECONDS, SPEC)
    if charged:
        account.put(Lease(f"l{number}", holder(), granted=charged, used=charged // 2))
    return account


def around(charges: dict[int, int]) -> Beside:
    """Beside the running part, which has a charge of its own that does not count here."""
    parts = [part(number, charged) for number, charged in (charges | {0: 1000}).items()]
    return beside({each.key: each for each in parts}, part())


@pytest.mark.parametrize(
    ("charges", "counted"),
    [
        ({}, 0),
        ({-24: 5}, 5),
        ({-25: 5}, 0),
        ({24: 5}, 5),
        ({25: 5}, 0),
        ({-24: 7, 1: 5}, 7),
        ({-23: 5, 1: 7}, 12),
        ({-12: 5, 12: 7}, 12),
        ({-13: 5, 12: 7}, 7),
        ({-1: 5, 24: 7}, 7),
        ({-1: 5, 23: 7}, 12),
        ({-24: 1, -12: 2, -1: 4, 1: 8, 12: 16, 24: 32}, 56),
    ],
)
def test_the_fullest_row_of_25_parts_with_it_counts(charges: dict[int, int], counted: int) -> None:
    """A window of real time touches at most 25 of its 24ths."""
    assert around(charges).charged == counted


def test_what_was_spent_is_of_the_24_parts_before() -> None:
    found = around({-25: 2, -24: 4, -1: 8, 1: 16})
    assert [each.key.start for each in found.before] == [START - 24 * SECONDS, START - SECONDS]
    assert found.settled == 6


@pytest.mark.parametrize(("later_ms", "settled"), [(-1, 6), (0, 4)])
def test_a_part_is_in_the_window_until_24_parts_after_its_end(later_ms: int, settled: int) -> None:
    """Also where nobody has opened a part since."""
    assert around({-24: 4, -1: 8}).at((START + SECONDS) * 1000 + later_ms).settled == settled


@pytest.mark.parametrize(("opened", "parts"), [((), 25), ((-1,), 25), ((1, 3), 1), ((24, 3), 3)])
def test_a_part_is_followed_by_the_next_one_that_is_open(opened: tuple[int, ...], parts: int) -> None:
    """Without one it speaks for the window until it counts no more."""
    assert around(dict.fromkeys(opened, 5)).followed_at == START + parts * SECONDS


def test_of_another_meaning_nothing_counts() -> None:
    other = part(-1, 8)
    other.limit = limit(window=WindowSpec(type="Rolling", duration_seconds=7200))
    found = beside({other.key: other}, part())
    assert (found.before, found.charged) == (NOTHING.before, NOTHING.charged)


def test_beside_a_calendar_period_there_is_nothing() -> None:
    assert (NOTHING.before, NOTHING.charged, NOTHING.settled, NOTHING.quarantined) == ((), 0, 0, 0)
    hour = Account(AccountKey("test", BUDGET, "hourly", (), START), START + 3600, limit())
    assert beside({hour.key: hour, part(-1, 8).key: part(-1, 8)}, hour) == NOTHING


def test_all_parts_of_a_window_have_one_name_and_periods_their_own() -> None:
    """Who waits in one part waits in its neighbors."""
    assert window_key(part(0)) == window_key(part(1))
    hours = [Account(AccountKey("test", BUDGET, "hourly", (), start), start + 3600, limit()) for start in (0, 3600)]
    assert window_key(hours[0]) != window_key(hours[1])


def test_something_comes_free_when_the_oldest_charge_leaves_the_window() -> None:
    """24 parts after its end, or at the running part's end if nothing is charged."""
    assert frees_at(part(), around({-24: 5, -3: 5})) == START + SECONDS
    assert frees_at(part(), around({-3: 5})) == START + (24 - 3 + 1) * SECONDS
    assert frees_at(part(), NOTHING) == START + SECONDS


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (-1, []),
        (0, [START]),
        (SECONDS - 1, [START]),
        (SECONDS, [START + SECONDS]),
        (25 * SECONDS - 1, [START + 24 * SECONDS]),
        (25 * SECONDS, []),
    ],
)
def test_a_part_runs_until_its_end_and_is_followed_by_empty_ones_while_it_counts(after: int, found: list[int]) -> None:
    assert [each.key.start for each in running([part(0, 5)], (START + after) * 1000)] == found


@pytest.mark.parametrize(("after", "found"), [(-1, []), (0, [START]), (3599, [START]), (3600, [])])
def test_a_calendar_period_runs_from_its_start_to_before_its_end(after: int, found: list[int]) -> None:
    hour = Account(AccountKey("test", BUDGET, "hourly", (), START), START + 3600, limit())
    assert [each.key.start for each in running([hour], (START + after) * 1000)] == found
