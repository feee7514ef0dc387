"""What pods hold is not what others lack: idle pods, killed ones, failing providers, a coordinator that is away."""

from __future__ import annotations

from random import Random

import pytest

from ledger_fleet import Fleet, Pod, fleet_of
from ledger_samples import START_MS, budget
from spendmesh_operator.ledger.books.accounts import Account
from spendmesh_operator.ledger.books.grants import ACCOUNT_DIVISOR, POD_DIVISOR, WORKLOAD_DIVISOR
from spendmesh_sidecar.core.ledger.demand import FIRST_WANT_DIVISOR

USD = 10**9
LIMIT = 100 * USD
GIVEN_BACK_SECONDS = 30.0


# --- idle pods ------------------------------------------------------------------------------------------------


def test_five_hundred_pods_that_never_called_leave_three_quarters_of_the_limit_free() -> None:
    """A first want is a hundredth of the limit, but all of them together hold a quarter of it at most."""
    fleet = fleet_of(LIMIT)
    for _ in range(500):
        fleet.start("Deployment team-a/" + "abcdefghij"[len(fleet.pods) % 10])

    assert LIMIT // FIRST_WANT_DIVISOR <= fleet.account.charged <= LIMIT // ACCOUNT_DIVISOR
    assert fleet.start().call(LIMIT // 100, LIMIT // 200)

    fleet.run(GIVEN_BACK_SECONDS)
    assert fleet.account.charged <= LIMIT // 100 + 2 * (LIMIT // 100)


@pytest.mark.parametrize("workloads", [1, 500])
def test_five_hundred_idle_pods_of_a_hundredth_each_do_not_stop_the_next_one(workloads: int) -> None:
    """Each has made one call whose worst case is a hundredth of the limit, and keeps what it did not cost."""
    fleet = fleet_of(LIMIT)
    worst = LIMIT // 100
    calling = [fleet.start(f"Deployment team-a/w{number % workloads}") for number in range(500)]
    waited = _serve_all(fleet, calling, worst)
    assert waited <= GIVEN_BACK_SECONDS

    late = fleet.start("Deployment team-a/late")
    assert _serve_all(fleet, [late], worst) <= GIVEN_BACK_SECONDS

    fleet.run(GIVEN_BACK_SECONDS)
    assert fleet.start().call(worst, 1), "once the others are idle, one question is enough"
    assert fleet.false_refusals == []


def _serve_all(fleet: Fleet, pods: list[Pod], worst: int) -> float:
    """Let each make one call, asking again about every second; the longest that one had to wait."""
    began, waiting = fleet.now, list(pods)
    while waiting and fleet.now - began < 300:
        waiting = [pod for pod in waiting if not pod.call(worst, worst // 100_000)]
        fleet.run(1.0)
    return fleet.now - began


# --- killed pods ----------------------------------------------------------------------------------------------


def stranded(fleet: Fleet, account: Account) -> int:
    """Charged, and certainly never billed."""
    return account.charged - fleet.truly_spent


@pytest.mark.parametrize("own_workload", [False, True])
def test_two_thousand_jobs_killed_before_their_first_call_strand_a_stated_share(own_workload: bool) -> None:
    """One workload a tenth of the limit, all together a quarter; and whoever comes next is served at once."""
    fleet = fleet_of(LIMIT)
    for number in range(2_000):
        fleet.kill(fleet.start(f"Job team-a/j{number if own_workload else 0}"))

    assert 0 < stranded(fleet, fleet.account) <= LIMIT // (ACCOUNT_DIVISOR if own_workload else WORKLOAD_DIVISOR)
    assert fleet.start().call(LIMIT // 2, 1)


def test_two_thousand_jobs_killed_in_the_middle_of_a_call_strand_no_more_than_these_calls() -> None:
    """What a call reserved may have been billed, so it stays charged; beyond that the caps hold."""
    fleet, rng = fleet_of(LIMIT), Random(1)
    worst = LIMIT // 10_000
    for number in range(2_000):
        job = fleet.start(f"Job team-a/j{number}")
        for _ in range(rng.randrange(3)):
            assert job.call(worst, worst // 10)
        assert job.begin(worst)
        fleet.run(0.25)
        fleet.kill(job)

    in_flight = 2_000 * worst
    assert stranded(fleet, fleet.account) <= LIMIT // ACCOUNT_DIVISOR + in_flight
    assert fleet.start().call(worst, 1)
    assert fleet.false_refusals == []


def test_incarnations_of_one_pod_share_its_cap() -> None:
    """A pod that loses its log again and again gets no fresh share of the limit each time."""
    fleet = fleet_of(LIMIT)
    pod = fleet.start()
    for number in range(50):
        again = Pod(fleet, 1, "")
        again.holder = type(pod.holder)(pod.holder.uid, pod.holder.name, f"life-{number}")
        again.ledger.adopt(again.holder.nonce)
        again.top_up()

    assert 0 < fleet.account.charged <= LIMIT // POD_DIVISOR


def test_a_call_beyond_every_cap_still_fits_while_the_limit_has_room() -> None:
    """Caps are for rights ahead of use: what one call needs is given as long as it is free."""
    fleet = fleet_of(LIMIT)
    for number in range(2_000):
        fleet.kill(fleet.start(f"Job team-a/j{number}"))
    free = fleet.account.remaining
    pod = fleet.start("Job team-a/j0")

    assert free > LIMIT // 2
    assert pod.call(free, free)
    assert fleet.account.charged == LIMIT


def test_what_is_stranded_is_released_by_a_final_report_and_by_no_clock() -> None:
    """A day of silence changes nothing; the holder's own last word frees it to the unit."""
    fleet = Fleet(budget(LIMIT), began_ms=START_MS)
    pod = fleet.start()
    assert pod.call(LIMIT // 4, USD)
    pod.report()
    fleet.kill(pod)
    charged = fleet.account.charged
    account = fleet.account

    fleet.now += 3599 - fleet.now
    fleet.books.sweep(fleet.now_ms, 3_599_000)
    assert account.charged == charged > USD

    pod.ledger.drain()
    pod.report()
    assert account.charged == account.settled == USD


def test_a_new_period_starts_without_what_the_last_one_stranded() -> None:
    """A period's end is the other proof: rights of the old period spend nothing in the new one."""
    fleet = fleet_of(LIMIT)
    for number in range(100):
        fleet.kill(fleet.start(f"Job team-a/j{number}"))
    fleet.now = 3600.0

    assert fleet.start().call(LIMIT, LIMIT)


# --- failing providers ----------------------------------------------------------------------------------------


def test_a_ten_minute_storm_of_free_failures_leaves_used_unchanged() -> None:
    """429 costs nothing: ten pods that fail for ten minutes have spent what they had spent before."""
    fleet = fleet_of(LIMIT)
    pods = [fleet.start("Deployment team-a/app") for _ in range(10)]
    for pod in pods:
        assert pod.call(USD // 100, USD // 200)
    fleet.run(4.0)
    before = fleet.account.settled

    def storm() -> None:
        for pod in pods:
            assert pod.call(USD // 100, None)

    fleet.run(600.0, storm)

    assert fleet.account.settled == before == fleet.truly_spent
    assert sum(pod.served for pod in pods) == 10 + 10 * 2_400
    assert all(pod.call(LIMIT // 20, 1) for pod in pods)


# --- a coordinator that is away -------------------------------------------------------------------------------


def test_a_coordinator_away_over_the_end_of_a_period_refuses_nothing_that_it_had_granted() -> None:
    """Rights of the next period are there before it begins: calls go on over the boundary without a question."""
    fleet = fleet_of(LIMIT)
    pods = [fleet.start("Deployment team-a/app") for _ in range(10)]
    worst = USD // 1000

    def work() -> None:
        for pod in pods:
            assert pod.call(worst, worst)

    fleet.now = 3_480.0
    fleet.run(100.0, work)
    fleet.away = True
    asked = sum(pod.round_trips for pod in pods)
    fleet.run(40.0, work)

    assert fleet.now > 3_600
    assert sum(pod.round_trips for pod in pods) == asked
    fleet.away = False
    fleet.run(10.0, work)
    assert fleet.account.key.start * 1000 == START_MS + 3_600_000
    assert sum(account.settled for account in fleet.books.holdings.accounts.values()) <= fleet.truly_spent


def test_idle_pods_are_given_nothing_of_the_next_period() -> None:
    """Else every boundary would hand out rights to all pods that ever called."""
    fleet = fleet_of(LIMIT)
    for _ in range(100):
        fleet.start()
    fleet.run(60.0)
    fleet.now = 3_540.0
    fleet.run(70.0)

    assert fleet.books.current(fleet.now_ms) == []
