"""A rolling limit holds at every instant, in any history; and what it holds back is bounded."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis.strategies import booleans, integers, lists, sampled_from, tuples

from rolling_desk import PART_MS, Rolling
from spendmesh_operator.ledger.books.periods import ROLLING_PARTS

PODS = ("pod-a", "pod-b", "pod-c")
steps = tuples(
    sampled_from(["ask", "ask next", "spend", "report", "lose"]),
    sampled_from(PODS),
    integers(1, 700),
    integers(0, 3 * PART_MS),
    booleans(),
)


@settings(max_examples=100, deadline=None)
@given(lists(steps, min_size=10, max_size=120))
def test_no_window_of_real_time_holds_more_than_the_amount(history: list[tuple[str, str, int, int, bool]]) -> None:
    """Whatever is asked, spent, reported or lost, and whenever."""
    rolling = Rolling()
    for action, uid, amount, wait_ms, waits in history:
        if waits:
            rolling.pass_ms(wait_ms)
        if action == "ask":
            rolling.ask(uid, amount, amount)
        elif action == "ask next":
            rolling.ask(uid, 0, amount, "next")
        elif action == "spend":
            rolling.spend(uid, amount)
        elif action == "report":
            rolling.report(uid)
        else:
            rolling.desk.books.quarantine([uid], "silent")
    assert rolling.most_in_any_window() <= rolling.amount
    assert rolling.desk.books.take_alarms() == []


def test_under_steady_demand_all_but_a_twenty_fifth_is_spent() -> None:
    """The bound from the other side: over ten windows at least 24/25 of the amount in each, at most the amount."""
    rolling, rng = Rolling(amount=100_000), Random(5)
    windows = 10
    end_ms = rolling.desk.now_ms + windows * (ROLLING_PARTS + 1) * PART_MS
    while rolling.desk.now_ms < end_ms:
        for uid in PODS:
            rolling.report(uid)
            rolling.ask(uid, 1, 5_000)
            rolling.spend(uid, rng.randint(500, 5_000))
        rolling.pass_ms(PART_MS // 5)
    total = sum(amount for _, amount in rolling.spent)
    assert rolling.most_in_any_window() <= rolling.amount
    assert total >= windows * rolling.amount * 98 // 100
