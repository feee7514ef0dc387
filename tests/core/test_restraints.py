"""What providers ask of us beyond one call: a pause holds for all calls, an account without money is asked seldom."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import BACKUP, OPENAI, RETRY, World, chat, failure, policy, success, throttled
from spendmesh_sidecar.core.failures.restraints import MAX_PAUSE_SECONDS, MAX_PAUSED, Restraints, account_of
from spendmesh_sidecar.core.types import Kind, Outcome

UNPAID = Outcome(Kind.UNPAID, 429, error_code="insufficient_quota", complete=True)
ECONOMY = "spendmesh/economy"
PROBE_SECONDS = RETRY.unpaid_probe_ms / 1000
SAME_ACCOUNT = replace(BACKUP, base_url=OPENAI.base_url)
"""Another alias for the account of `openai`: same key, same host."""


def alone(**changes: object) -> World:
    """A world without retries, so that each call is one attempt."""
    return World(policy(retry=replace(RETRY, attempts=0, **changes)))


# --- pauses -----------------------------------------------------------------------------------------------


def test_a_hint_pauses_the_target_for_every_call() -> None:
    world = alone()
    world.run(chat(model=ECONOMY), [throttled(30.0)])
    run = world.run(chat(model=ECONOMY), [success()])
    assert len(run.waits) == 1 and 30.0 <= run.waits[0] <= 33.0
    assert run.exchange.retries == 0, "it is a first try all the same, and nothing pays for it"


def test_another_target_takes_the_calls_of_a_paused_one() -> None:
    world = alone()
    world.run(chat(), [throttled(30.0)])
    run = world.run(chat(), [success()])
    assert (run.models, run.waits) == (["backup/medium-2"], [])


def test_another_model_of_the_same_key_is_not_paused() -> None:
    world = alone()
    world.run(chat(model=ECONOMY), [throttled(30.0)])
    assert world.run(chat(model="spendmesh/premium"), [success()]).waits == []


def test_another_alias_of_the_same_key_is_paused_for_the_same_model() -> None:
    restraints = Restraints()
    restraints.pause(OPENAI, "small-1", 30.0, 0.0)
    assert restraints.paused_for(SAME_ACCOUNT, "small-1", 1.0) == 29.0
    assert restraints.paused_for(BACKUP, "small-1", 1.0) == 0.0


def test_a_pause_longer_than_the_policy_waits_is_refused_with_the_time_to_come_back() -> None:
    world = alone()
    world.run(chat(model=ECONOMY), [throttled(200.0)])
    run = world.run(chat(model=ECONOMY))
    assert (run.code, run.attempts, run.waits) == ("target_unavailable", [], [])
    assert run.exchange.refusal is not None
    assert run.exchange.refusal.retry_after_seconds == pytest.approx(200.0)
    assert "asked not to be called for 200.0 s more" in run.message


def test_no_call_waits_past_its_deadline() -> None:
    world = alone()
    world.run(chat(model=ECONOMY), [throttled(30.0)])
    run = world.run(chat(model=ECONOMY), deadline_seconds=20.0)
    assert (run.code, run.waits) == ("target_unavailable", [])


def test_a_pause_that_others_prolong_is_not_waited_for_without_end() -> None:
    """Each waits at most `maxWait` in all, however often the provider asks anew."""
    world = alone()
    world.run(chat(model=ECONOMY), [throttled(40.0)])
    waiting = world.exchange(chat(model=ECONOMY))
    first = waiting.begin(world.now, 0)
    assert first.seconds >= 40.0  # type: ignore[union-attr]
    world.now += first.seconds  # type: ignore[union-attr]
    world.restraints.pause(OPENAI, "small-1", 40.0, world.now)
    waiting.resume(world.now, 0)
    assert waiting.refusal is not None and waiting.refusal.code == "target_unavailable"
    waiting.close(world.now)


def test_a_retry_that_waits_respects_a_pause_that_came_meanwhile() -> None:
    """Parked retries do not all fire into the pause that the first of them was told of."""
    world = World()
    exchange = world.sent(chat(model=ECONOMY))
    step = exchange.observe(throttled(3.0), world.now, 0)
    world.now += step.seconds  # type: ignore[union-attr]
    world.restraints.pause(OPENAI, "small-1", 5.0, world.now)
    again = exchange.resume(world.now, 0)
    assert again.seconds >= 5.0  # type: ignore[union-attr]
    exchange.close(world.now)


def test_a_stranger_s_hint_holds_others_back_for_a_bounded_time() -> None:
    restraints = Restraints()
    restraints.pause(OPENAI, "small-1", 86_400.0, 0.0)
    assert restraints.paused_for(OPENAI, "small-1", 0.0) == MAX_PAUSE_SECONDS
    restraints.pause(OPENAI, "small-1", 1.0, 0.0)
    assert restraints.paused_for(OPENAI, "small-1", 0.0) == MAX_PAUSE_SECONDS, "a shorter one takes nothing away"


def test_an_observed_policy_pauses_nothing() -> None:
    world = alone(mode="Observe")
    world.run(chat(model=ECONOMY), [throttled(30.0)])
    world.run(chat(model=ECONOMY), [UNPAID])
    assert world.run(chat(model=ECONOMY), [success()]).waits == []


def test_model_names_from_clients_do_not_pile_up() -> None:
    restraints = Restraints()
    for number in range(3 * MAX_PAUSED):
        restraints.pause(OPENAI, f"m-{number}", 30.0, 0.0)
    held = sum(restraints.paused_for(OPENAI, f"m-{number}", 0.0) > 0 for number in range(3 * MAX_PAUSED))
    assert held == MAX_PAUSED


@pytest.mark.parametrize("outcome", [failure(400, 30.0, Kind.NON_RETRYABLE), failure(401, 30.0, Kind.NON_RETRYABLE)])
def test_a_hint_beside_the_request_s_own_fault_pauses_nobody(outcome: Outcome) -> None:
    world = alone()
    world.run(chat(model=ECONOMY), [outcome])
    assert world.run(chat(model=ECONOMY), [success()]).waits == []


# --- accounts without money -----------------------------------------------------------------------------------


def test_a_spent_account_answers_at_once_where_there_is_no_other() -> None:
    run = World().run(chat(model=ECONOMY), [UNPAID])
    assert run.respond is not None and run.respond.refusal is None
    assert (len(run.attempts), run.waits, run.exchange.retry_denied) == (1, [], "")


def test_a_spent_account_is_left_for_another_one_at_once() -> None:
    run = World().run(chat(), [UNPAID, success()])
    assert (run.models, run.waits) == (["openai/medium-1", "backup/medium-2"], [])


def test_another_target_of_the_same_account_is_no_way_out() -> None:
    world = World(policy(providers=(OPENAI, SAME_ACCOUNT)))
    run = world.run(chat(), [UNPAID])
    assert run.models == ["openai/medium-1"]


def test_a_spent_account_is_called_once_in_each_interval_whatever_is_asked() -> None:
    world = alone()
    world.attempt_seconds = 0.0
    asked = 0
    for _ in range(1_000):
        asked += len(world.run(chat(model=ECONOMY), [UNPAID]).attempts)
        world.now += 1.0
    assert asked == 1 + 999 // PROBE_SECONDS


def test_calls_that_meet_a_spent_account_are_told_when_it_is_asked_again() -> None:
    world = alone()
    world.run(chat(model=ECONOMY), [UNPAID])
    run = world.run(chat(model="spendmesh/premium"))
    assert (run.code, run.attempts) == ("target_unavailable", [])
    assert run.exchange.refusal is not None and run.exchange.refusal.retry_after_seconds == PROBE_SECONDS
    assert "out of money" in run.message


def test_one_call_that_is_served_opens_the_account_again() -> None:
    world = alone()
    world.run(chat(model=ECONOMY), [UNPAID])
    world.now += PROBE_SECONDS
    probe = world.sent(chat(model=ECONOMY))
    assert world.run(chat(model=ECONOMY)).code == "target_unavailable", "only one asks"
    probe.observe(success(), world.now, 0)
    probe.close(world.now)
    assert world.run(chat(model=ECONOMY), [success()]).models == ["openai/small-1"]


@pytest.mark.parametrize("outcome", [failure(502), failure(400, kind=Kind.NON_RETRYABLE), Outcome(Kind.CLIENT_GONE)])
def test_a_call_that_was_not_served_leaves_the_account_closed(outcome: Outcome) -> None:
    world = alone()
    world.run(chat(model=ECONOMY), [UNPAID])
    world.now += PROBE_SECONDS
    world.run(chat(model=ECONOMY), [outcome])
    assert world.run(chat(model=ECONOMY)).code == "target_unavailable"


def test_a_call_that_began_before_proves_nothing() -> None:
    """A stream that was paid for ends well after the account was spent."""
    world = alone()
    early = world.sent(chat(model=ECONOMY))
    world.run(chat(model=ECONOMY), [UNPAID])
    early.observe(success(), world.now, 0)
    early.close(world.now)
    assert world.run(chat(model=ECONOMY)).code == "target_unavailable"


def test_only_the_last_call_that_asked_speaks_for_the_account() -> None:
    """One that asked an interval ago may have been served before the account was found spent again."""
    world = alone()
    world.run(chat(model=ECONOMY), [UNPAID])
    world.now += PROBE_SECONDS
    slow = world.sent(chat(model=ECONOMY))
    world.now += PROBE_SECONDS
    world.run(chat(model=ECONOMY), [UNPAID])
    slow.observe(success(), world.now, 0)
    slow.close(world.now)
    assert world.run(chat(model=ECONOMY)).code == "target_unavailable"


def test_an_account_is_a_key_at_a_host() -> None:
    assert account_of(OPENAI) == account_of(SAME_ACCOUNT) != account_of(BACKUP)
    assert account_of(OPENAI) != account_of(replace(OPENAI, key_name="other"))
