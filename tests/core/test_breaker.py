"""The breaker's transition table, row by row; its laws are in tests/properties."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from spendmesh_sidecar.core.failures.breaker import (
    FORCED_RETRY_SECONDS,
    MAX_BREAKERS,
    Breaker,
    BreakerError,
    Breakers,
    Permit,
    Verdict,
)
from spendmesh_sidecar.core.failures.breaker_states import TRANSITIONS, Event
from spendmesh_sidecar.core.specs import BreakerSpec

SPEC = BreakerSpec(consecutive_5xx_errors=3, base_ejection_ms=5_000, max_ejection_ms=30_000)
RATIO = BreakerSpec(consecutive_5xx_errors=1_000, failure_percent=50, failure_interval_ms=10_000, min_requests=4)
GOOD, BAD, SOFT = Verdict.SUCCESS, Verdict.FAILURE, Verdict.SOFT_FAILURE


class Fixed:
    """Chance that always draws the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


NONE = Fixed(0.0)


def result(breaker: Breaker, verdict: Verdict, now: float) -> None:
    permit = breaker.permit(now)
    assert permit is not None
    breaker.settle(permit, verdict, now, NONE)


def ejected(now: float = 0.0) -> Breaker:
    breaker = Breaker(SPEC)
    for _ in range(3):
        result(breaker, Verdict.FAILURE, now)
    return breaker


def probe(breaker: Breaker, now: float) -> Permit:
    permit = breaker.permit(now)
    assert permit is not None and permit.probe
    return permit


@pytest.mark.parametrize(("failures", "state"), [(2, "serving"), (3, "ejected")])
def test_the_nth_consecutive_failure_ejects(failures: int, state: str) -> None:
    breaker = Breaker(SPEC)
    for _ in range(failures):
        result(breaker, Verdict.FAILURE, 0.0)
    assert breaker.state(0.0) == state


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker = Breaker(SPEC)
    for verdict in (Verdict.FAILURE, Verdict.FAILURE, Verdict.SUCCESS, Verdict.FAILURE, Verdict.FAILURE):
        result(breaker, verdict, 0.0)
    assert breaker.state(0.0) == "serving"


def test_a_neutral_result_neither_counts_nor_resets() -> None:
    breaker = Breaker(SPEC)
    for verdict in (Verdict.FAILURE, Verdict.FAILURE, Verdict.NEUTRAL, Verdict.FAILURE):
        result(breaker, verdict, 0.0)
    assert breaker.state(0.0) == "ejected"


def test_an_ejected_target_has_no_permit_until_its_time_is_over() -> None:
    breaker = ejected()
    assert breaker.permit(4.9) is None and breaker.reopens_in(4.0) == 1.0
    assert breaker.state(5.0) == "probing"
    assert probe(breaker, 5.0) and breaker.permit(5.0) is None


def test_a_good_probe_serves_again_and_a_bad_one_ejects_twice_as_long() -> None:
    good, bad = ejected(), ejected()
    good.settle(probe(good, 5.0), Verdict.SUCCESS, 5.0, NONE)
    bad.settle(probe(bad, 5.0), Verdict.FAILURE, 5.0, NONE)
    assert good.state(5.0) == "serving"
    assert (bad.state(5.0), bad.reopens_in(5.0)) == ("ejected", 10.0)


def test_ejections_grow_up_to_the_maximum_whatever_the_jitter() -> None:
    breaker, now, lengths = Breaker(SPEC), 0.0, []
    for _ in range(3):
        result(breaker, Verdict.FAILURE, now)
    for _ in range(6):
        lengths.append(breaker.reopens_in(now))
        now += breaker.reopens_in(now)
        breaker.settle(probe(breaker, now), Verdict.FAILURE, now, Fixed(0.999))
    assert lengths == pytest.approx([5.0, 14.995, 29.99, 30.0, 30.0, 30.0])


def test_jitter_spreads_ejections() -> None:
    rng = random.Random(1)
    lengths = set()
    for _ in range(20):
        breaker = Breaker(SPEC)
        breaker.trip(0.0, rng, "dishonest_usage")
        lengths.add(breaker.reopens_in(0.0))
    assert len(lengths) == 20 and min(lengths) >= 5.0 and max(lengths) <= 7.5


def test_a_quiet_time_forgets_earlier_ejections() -> None:
    breaker = ejected()
    breaker.settle(probe(breaker, 5.0), Verdict.SUCCESS, 5.0, NONE)
    result(breaker, Verdict.SUCCESS, 10.0)
    for _ in range(3):
        result(breaker, Verdict.FAILURE, 10.0)
    assert breaker.reopens_in(10.0) == 5.0


def test_failing_soon_after_the_way_back_ejects_longer() -> None:
    breaker = ejected()
    breaker.settle(probe(breaker, 5.0), Verdict.SUCCESS, 5.0, NONE)
    result(breaker, Verdict.SUCCESS, 9.9)
    for _ in range(3):
        result(breaker, Verdict.FAILURE, 9.9)
    assert breaker.reopens_in(9.9) == pytest.approx(10.0)


def test_a_begun_probe_serves_at_once_and_a_broken_end_still_counts() -> None:
    breaker = ejected()
    rest = breaker.begun(probe(breaker, 5.0), 5.0, NONE)
    assert breaker.state(5.0) == "serving" and not rest.probe
    breaker.settle(rest, Verdict.FAILURE, 60.0, NONE)
    for _ in range(2):
        result(breaker, Verdict.FAILURE, 60.0)
    assert breaker.state(60.0) == "ejected"


def test_a_begun_answer_of_a_serving_target_keeps_its_permit() -> None:
    breaker = Breaker(SPEC)
    permit = breaker.permit(0.0)
    assert permit is not None and breaker.begun(permit, 0.0, NONE) is permit and not permit.settled


def test_a_permit_settles_once() -> None:
    breaker = Breaker(SPEC)
    permit = breaker.permit(0.0)
    assert permit is not None
    breaker.settle(permit, Verdict.NEUTRAL, 0.0, NONE)
    with pytest.raises(BreakerError):
        breaker.settle(permit, Verdict.NEUTRAL, 0.0, NONE)


def test_zero_switches_ejection_off_also_for_what_is_ejected() -> None:
    off = BreakerSpec(consecutive_5xx_errors=0)
    breakers = Breakers()
    for _ in range(50):
        result(breakers.of("a/m", off), Verdict.FAILURE, 0.0)
    breakers.of("a/m", off).trip(0.0, NONE, "dishonest_usage")
    assert breakers.of("a/m", off).state(0.0) == "serving"
    for _ in range(3):
        result(breakers.of("b/m", SPEC), Verdict.FAILURE, 0.0)
    assert breakers.of("b/m", SPEC).reopens_in(0.0) > 0
    assert breakers.of("b/m", off).reopens_in(0.0) == 0
    assert breakers.of("b/m", off).permit(0.0) is not None
    assert dict(breakers.items()).keys() == {"a/m", "b/m"}


# --- the table ------------------------------------------------------------------------------------------------


def test_the_table_is_what_the_documentation_of_breakers_says() -> None:
    """Every pair of state and event, so that a row that is added or lost is seen."""
    serving: dict[Event, str] = {Event.TRIPPED: "ejected"}
    ejected: dict[Event, str] = {Event.DUE: "probing", Event.SWITCHED_OFF: "serving"}
    probing = {
        Event.RECOVERED: "serving",
        Event.RELAPSED: "ejected",
        Event.TRIPPED: "ejected",
        Event.SWITCHED_OFF: "serving",
    }
    rows = {"serving": serving, "ejected": ejected, "probing": probing}
    assert {(state, event): after for state, row in rows.items() for event, after in row.items()} == TRANSITIONS


# --- the share of bad calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "state"),
    [
        ([GOOD, BAD, GOOD, BAD], "ejected"),
        ([GOOD, GOOD, BAD], "serving"),
        ([BAD, BAD, BAD], "serving"),
        ([GOOD, GOOD, GOOD, BAD], "serving"),
        ([BAD, BAD, GOOD, GOOD], "serving"),
        ([BAD, BAD, GOOD, GOOD, BAD], "ejected"),
        ([GOOD, SOFT, GOOD, SOFT], "ejected"),
        ([GOOD, BAD, Verdict.NEUTRAL, Verdict.NEUTRAL, BAD], "serving"),
    ],
    ids=["half", "a third", "too few", "a quarter", "ends well", "then badly", "throttled", "neutral is none"],
)
def test_a_share_of_bad_calls_ejects_when_one_more_is_bad(verdicts: list[Verdict], state: str) -> None:
    breaker = Breaker(RATIO)
    for verdict in verdicts:
        result(breaker, verdict, 0.0)
    assert breaker.state(0.0) == state
    assert breaker.ejected_for == ({"ratio": 1} if state == "ejected" else {})


def test_bad_calls_that_are_older_than_the_interval_do_not_count() -> None:
    breaker = Breaker(RATIO)
    for _ in range(3):
        result(breaker, BAD, 0.0)
    for _ in range(3):
        result(breaker, GOOD, 10.0)
    result(breaker, BAD, 10.0)
    assert breaker.state(10.0) == "serving"


def test_zero_percent_ejects_by_no_share() -> None:
    breaker = Breaker(BreakerSpec(consecutive_5xx_errors=1_000, failure_percent=0, min_requests=1))
    for _ in range(500):
        result(breaker, BAD, 0.0)
    assert breaker.state(0.0) == "serving"


def test_throttling_never_counts_in_a_row() -> None:
    """A provider that throttles lives: only a share of such answers ejects."""
    breaker = Breaker(SPEC)
    for verdict in (BAD, BAD, SOFT, SOFT, SOFT, SOFT):
        result(breaker, verdict, 0.0)
    assert breaker.state(0.0) == "serving"


def test_a_target_that_came_back_begins_with_an_empty_count() -> None:
    breaker = Breaker(RATIO)
    for verdict in (GOOD, BAD, BAD, BAD):
        result(breaker, verdict, 0.0)
    breaker.settle(probe(breaker, 5.0), GOOD, 5.0, NONE)
    for verdict in (GOOD, BAD, BAD):
        result(breaker, verdict, 5.0)
    assert breaker.state(5.0) == "serving"


# --- slow first bytes -----------------------------------------------------------------------------------------

SLOW = BreakerSpec(consecutive_5xx_errors=1_000, min_requests=4, slow_first_byte_ms=2_000)


@pytest.mark.parametrize(("waited", "state"), [(2.0, "serving"), (2.001, "ejected")])
def test_answers_that_begin_late_eject_by_their_share(waited: float, state: str) -> None:
    breaker = Breaker(SLOW)
    for _ in range(4):
        permit = breaker.permit(0.0)
        assert permit is not None
        breaker.settle(breaker.begun(permit, 0.0, NONE, waited_seconds=waited), GOOD, 0.0, NONE)
    assert breaker.state(0.0) == state


def test_a_probe_that_begins_late_brings_nothing_back() -> None:
    breaker = Breaker(SLOW)
    breaker.trip(0.0, NONE, "ratio")
    rest = breaker.begun(probe(breaker, 5.0), 5.0, NONE, waited_seconds=3.0)
    assert breaker.state(5.0) == "ejected"
    breaker.settle(rest, GOOD, 9.0, NONE)
    assert breaker.state(9.0) == "ejected", "its good end decides nothing any more"


# --- modes ----------------------------------------------------------------------------------------------------


def test_forced_open_gives_no_leave_and_forgets_nothing() -> None:
    breaker = Breaker(SPEC)
    result(breaker, BAD, 0.0)
    breaker.obey(replace(SPEC, mode="ForcedOpen"))
    assert breaker.permit(0.0) is None and breaker.state(0.0) == "ejected" and breaker.hard
    assert breaker.reopens_in(0.0) == FORCED_RETRY_SECONDS
    breaker.obey(SPEC)
    for _ in range(2):
        result(breaker, BAD, 0.0)
    assert breaker.ejected_for == {"consecutive": 1}


def test_a_call_beside_the_ejection_decides_nothing() -> None:
    breaker = ejected()
    for verdict in (GOOD, BAD):
        breaker.settle(breaker.bypass(), verdict, 1.0, NONE)
    assert (breaker.state(1.0), breaker.reopens_in(1.0), breaker.bypasses) == ("ejected", 4.0, 2)


def test_a_new_spec_keeps_counts_unless_its_interval_is_another() -> None:
    for changed, state in (
        (replace(RATIO, min_requests=3), "ejected"),
        (replace(RATIO, failure_interval_ms=60_000), "serving"),
    ):
        breaker = Breaker(RATIO)
        for _ in range(3):
            result(breaker, BAD, 0.0)
        breaker.obey(changed)
        result(breaker, BAD, 0.0)
        assert breaker.state(0.0) == state


def test_what_no_other_target_excuses_is_hard_until_it_is_over() -> None:
    breaker = Breaker(SPEC)
    breaker.trip(0.0, NONE, "dishonest_usage")
    assert breaker.hard
    breaker.settle(probe(breaker, 5.0), BAD, 5.0, NONE)
    assert breaker.hard and breaker.ejected_for == {"dishonest_usage": 2}
    breaker.settle(probe(breaker, 20.0), GOOD, 20.0, NONE)
    for _ in range(3):
        result(breaker, BAD, 20.0)
    assert not breaker.hard


def test_names_that_clients_invent_are_forgotten_before_what_has_failed() -> None:
    """Model names come from clients: thousands of them leave a bounded number of breakers, and no ejection goes."""
    breakers = Breakers()
    for _ in range(3):
        result(breakers.of("policy/target", SPEC), Verdict.FAILURE, 0.0)
    result(breakers.of("policy/shaky", SPEC), Verdict.FAILURE, 0.0)
    for number in range(2 * MAX_BREAKERS):
        breakers.of(f"made-up/{number}", SPEC)
    assert len(dict(breakers.items())) == MAX_BREAKERS
    assert {"policy/target", "policy/shaky", f"made-up/{2 * MAX_BREAKERS - 1}"} <= dict(breakers.items()).keys()
    for number in range(2 * MAX_BREAKERS):
        result(breakers.of(f"failing/{number}", SPEC), Verdict.FAILURE, 0.0)
    assert len(dict(breakers.items())) == MAX_BREAKERS
    assert breakers.of("policy/target", SPEC).state(0.0) == "ejected"


def test_a_target_that_its_own_probe_found_well_forgets_what_others_said() -> None:
    """What one has seen oneself is newer than a hint, even one that was to last longer."""
    breaker = Breaker(RATIO)
    breaker.hint(60.0)
    result(breaker, Verdict.FAILURE, 0.0)
    assert breaker.state(0.0) == "ejected", "one failure of one call, where four are needed without a hint"
    breaker.settle(probe(breaker, 5.0), Verdict.SUCCESS, 5.0, NONE)
    result(breaker, Verdict.FAILURE, 6.0)
    assert breaker.state(6.0) == "serving"
