"""How a RetryBudget of scope Cluster is divided among sidecars: fair, never twice, and learned anew by each leader."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from spendmesh_operator.retries.fairness import fair_parts
from spendmesh_operator.retries.members import MAX_GRANTS, MAX_SHARE
from spendmesh_operator.retries.pool import LOOK_SECONDS, LOST_SECONDS, Pool
from spendmesh_operator.retries.shares import RetryShares
from spendmesh_sidecar.core.failures.retry_grants import MAX_CALLS_PER_SECOND, ShareGrant, ShareReport
from spendmesh_sidecar.core.specs import ClusterShareSpec, RetrySpec

SPEC = RetrySpec(
    name="team/shared",
    scope="Cluster",
    cluster=ClusterShareSpec(lease_ms=15_000, refresh_ms=5_000),
    budget_percent=10,
    budget_interval_ms=30_000,
    min_retry_count=6,
    min_retry_interval_ms=30_000,
)
"""Six retries in 30 s, and a tenth of the calls that succeed."""
SIX = 600
LEASE, INTERVAL = 15.0, 30.0
EPOCH = 7


class Fleet:
    """A leader that has learned, and sidecars by name that hear every answer unless a test says otherwise."""

    def __init__(self, spec: RetrySpec = SPEC, learned: bool = True, epoch: int = EPOCH) -> None:
        self.spec = spec
        self.now = 100.0
        self.epoch = epoch
        self.shares = RetryShares(epoch, self.now - (LEASE if learned else 0.0))
        self.held: dict[str, ShareGrant] = {}
        self._sequences: dict[str, int] = {}

    @property
    def pool(self) -> Pool:
        return self.shares.pool(self.spec)

    def ask(self, pod: str, wants: int = 0, *, hears: bool = True, instance: str = "1", **report: int) -> ShareGrant:
        """One report and its answer."""
        held = self.held.get(pod)
        said: dict[str, int] = {"sequence": self._sequences.get(pod, 0) + 1}
        if held is not None:
            said |= {"epoch": held.epoch, "heard": held.number, "has": held.share}
        one = ShareReport(budget=self.spec.name, wants=wants, **(said | report))  # type: ignore[arg-type]
        self._sequences[pod] = one.sequence
        (grant,) = self.shares.ask({self.spec.name: self.spec}, pod, instance, [one], self.now)
        if hears:
            self.held[pod] = grant
        return grant

    def another_leader(self) -> None:
        self.epoch += 1
        self.shares = RetryShares(self.epoch, self.now)


@pytest.mark.parametrize(
    ("whole", "wants", "parts"),
    [
        (10, [3, 3, 20], [3, 3, 4]),
        (10, [1, 20, 20], [1, 5, 4]),
        (100, [1, 2, 3], [1, 2, 3]),
        (7, [7, 0, 0], [7, 0, 0]),
        (0, [1, 1], [0, 0]),
        (-5, [1], [0]),
        (5, [], []),
    ],
)
def test_nobody_gets_more_than_it_wants_while_another_wants_more(
    whole: int, wants: list[int], parts: list[int]
) -> None:
    assert fair_parts(whole, wants) == parts


def test_what_does_not_divide_goes_round() -> None:
    """Two retries for five sidecars: in five turns each has had two."""
    turns = [fair_parts(2, [1] * 5, turn) for turn in range(5)]
    assert [sum(each) for each in zip(*turns, strict=True)] == [2] * 5


def test_the_capacity_is_a_share_of_all_calls_and_one_floor() -> None:
    """The floor is the whole cluster's, however many pods there are."""
    fleet = Fleet()
    for pod in "abc":
        fleet.ask(pod, deposits=100)
    assert fleet.pool.capacity(fleet.now) == 10 * 300 + SIX


def test_calls_that_are_reported_again_count_once() -> None:
    """However often a sidecar reports: the last report is what counts."""
    fleet = Fleet()
    shares = {fleet.ask("a", wants=10**6, deposits=100).share for _ in range(5)}
    assert shares == {10 * 100 + SIX}


def test_who_alone_wants_retries_soon_has_nearly_all() -> None:
    """Others give up what they do not want within two refreshes."""
    fleet = Fleet()
    for _ in range(3):
        for pod in "abcd":
            fleet.ask(pod, wants=10_000 if pod == "d" else 0, deposits=100)
        fleet.now += 5.0
    capacity = fleet.pool.capacity(fleet.now)
    assert fleet.held["d"].share >= capacity - 400


def test_all_who_want_too_much_get_equal_parts() -> None:
    fleet = Fleet()
    for _ in range(4):
        for pod in "abc":
            fleet.ask(pod, wants=10_000)
        fleet.now += 5.0
    assert [fleet.held[pod].share for pod in "abc"] == [200, 200, 200]


def test_with_fewer_retries_than_sidecars_each_has_one_now_and_then() -> None:
    """Nobody starves because another came first."""
    fleet = Fleet(replace(SPEC, min_retry_count=1))
    had: set[str] = set()
    for _ in range(60):
        for pod in "abcde":
            if fleet.ask(pod, wants=500).share:
                had.add(pod)
        fleet.now += 5.0
    assert had == set("abcde")


def test_a_share_is_free_only_when_its_holder_has_heard_that_it_is_smaller() -> None:
    """An answer that was lost leaves the old share in force, so nobody else gets it."""
    fleet = Fleet()
    assert fleet.ask("a", wants=SIX).share == SIX
    fleet.now += 5.0
    assert fleet.ask("a", wants=0, hears=False).share < SIX
    assert fleet.ask("b", wants=SIX).share == 0
    fleet.now += 5.0
    fleet.ask("a", wants=0)
    assert fleet.ask("b", wants=SIX).share == 0
    fleet.now += 5.0
    fleet.ask("a", wants=0)
    assert fleet.ask("b", wants=SIX).share >= 300


def test_what_was_withdrawn_within_the_interval_is_not_granted_again() -> None:
    """Else a share that moves is spent twice in one interval."""
    fleet = Fleet()
    fleet.ask("a", wants=SIX)
    for _ in range(3):
        fleet.now += 5.0
        fleet.ask("a", wants=0, withdrawals=500)
        assert fleet.ask("b", wants=SIX).share <= 100
    fleet.now += 5.0
    fleet.ask("a", wants=0, withdrawals=0)
    assert fleet.ask("b", wants=SIX).share == SIX


def test_the_share_of_a_sidecar_that_vanishes_comes_back_after_lease_and_interval() -> None:
    """It may have withdrawn all of it just before its lease ran out."""
    fleet = Fleet()
    fleet.ask("a", wants=SIX)
    fleet.now += LEASE + INTERVAL - LOOK_SECONDS
    assert fleet.ask("b", wants=SIX).share == 0
    fleet.now += LOOK_SECONDS
    assert fleet.ask("b", wants=SIX).share == SIX


def test_a_sidecar_that_leaves_gives_back_all_but_what_it_withdrew() -> None:
    fleet = Fleet()
    fleet.ask("a", wants=SIX)
    fleet.ask("a", leaving=True, withdrawals=200)
    assert fleet.ask("b", wants=SIX).share == SIX - 200


def test_a_new_process_of_a_pod_gets_no_second_share() -> None:
    """What the process before it may have spent counts until that is over."""
    fleet = Fleet()
    fleet.ask("a", wants=SIX)
    fleet.held.clear()
    assert fleet.ask("a", wants=SIX, instance="2", sequence=1).share == 0
    fleet.now += LEASE + INTERVAL
    assert fleet.ask("a", wants=SIX, instance="2").share == SIX


def test_a_repeated_or_late_report_changes_nothing_and_prolongs_nothing() -> None:
    fleet = Fleet()
    first = fleet.ask("a", wants=SIX, sequence=5)
    fleet.now += 4.0
    for sequence in (5, 4):
        again = fleet.ask("a", wants=0, sequence=sequence, hears=False, leaving=True)
        assert again == replace(first, expires_in_ms=first.expires_in_ms - 4000)


@pytest.mark.parametrize("claim", [-1, 10**30])
def test_absurd_reports_are_bounded(claim: int) -> None:
    """What a stranger claims neither breaks the sums nor makes them larger than one sidecar can be."""
    fleet = Fleet()
    fleet.ask("liar", wants=claim, deposits=claim, withdrawals=claim, has=claim, heard=claim)
    most = SPEC.budget_percent * MAX_CALLS_PER_SECOND * int(INTERVAL) + SIX
    assert SIX <= fleet.pool.capacity(fleet.now) <= most
    assert 0 <= fleet.pool.holds(fleet.now) <= most


def test_claimed_withdrawals_keep_nothing_from_others() -> None:
    """A sidecar cannot have withdrawn what it was never granted."""
    fleet = Fleet()
    for round_ in range(14):
        fleet.ask("liar", withdrawals=10**6 if round_ > 9 else 0)
        fleet.ask("b")
        fleet.now += 5.0
    assert fleet.ask("b", wants=SIX).share >= 300


def test_answers_that_are_never_heard_do_not_pile_up() -> None:
    """However often a sidecar asks, what is kept of it stays small, and counts at its largest."""
    fleet = Fleet()
    largest = max(fleet.ask("a", wants=SIX * (turn % 2), hears=False).share for turn in range(10 * MAX_GRANTS))
    assert fleet.pool.holds(fleet.now) == largest == SIX


def test_an_answer_that_was_lost_long_ago_still_counts_while_it_may_be_spent() -> None:
    fleet = Fleet()
    assert fleet.ask("a", wants=SIX, hears=False).share == SIX
    for _ in range(3 * MAX_GRANTS):
        fleet.ask("a", hears=False)
    assert fleet.pool.holds(fleet.now) == SIX


def test_a_new_process_waits_for_what_the_last_one_left_behind_beside_what_others_hold() -> None:
    """Else both would be granted once more: its own past, and what another has not heard that it lost."""
    fleet = Fleet()
    for _ in range(3):
        fleet.now += 5.0
        for pod in "ab":
            fleet.ask(pod, wants=300)
    assert [fleet.held[pod].share for pod in "ab"] == [300, 300]
    fleet.ask("b", wants=0, hears=False)
    fleet.held.pop("a")
    assert fleet.ask("a", wants=SIX, instance="2", sequence=1).share == 0


# --- without a coordinator, and a new one -----------------------------------------------------------------------------


def test_safe_shares_are_whole_retries_and_together_no_more_than_the_floor() -> None:
    """Also while sidecars come that the floor was divided without."""
    fleet = Fleet()
    for pods in ("ab", "abcde", "abcdefgh", "abcdefgh", "abcdefgh"):
        for pod in pods:
            fleet.ask(pod)
            assert fleet.pool.safe() <= SIX
    assert sorted(grant.safe for grant in fleet.held.values()) == [0, 0, 100, 100, 100, 100, 100, 100]


def test_a_lost_sidecars_safe_share_is_kept_for_it_for_ten_minutes() -> None:
    """It may only be cut off, and spend it."""
    fleet = Fleet()
    fleet.ask("a")
    fleet.now += LOST_SECONDS - 1
    assert fleet.ask("b").safe == 0
    fleet.now += 1
    assert fleet.ask("b").safe == SIX


def test_a_new_leader_repeats_what_it_is_told_and_gives_newcomers_their_safe_share() -> None:
    """For one lease; nobody gets more than before, and nobody nothing."""
    fleet = Fleet(learned=True)
    fleet.ask("a", wants=400)
    fleet.another_leader()
    assert fleet.ask("a", wants=10_000).share == 500  # 400 wanted, and half of the rest in advance
    newcomer = fleet.ask("new", wants=10_000)
    assert (newcomer.share, newcomer.epoch) == (newcomer.safe, EPOCH + 1)
    fleet.now += 5.0
    assert fleet.ask("a", wants=10_000).share == 500


def test_learning_ends_after_one_lease() -> None:
    fleet = Fleet(learned=False)
    assert fleet.ask("a", wants=10_000, deposits=1000).share == SIX
    assert fleet.pool.view(fleet.now).learning_seconds == LEASE
    fleet.now += LEASE
    assert fleet.ask("a", wants=10**6, deposits=1000).share == 10 * 1000 + SIX
    assert fleet.pool.view(fleet.now).learning_seconds == 0


def test_a_claim_from_before_is_believed_while_learning_only() -> None:
    """Later, whatever an earlier coordinator granted has run out."""
    fleet = Fleet()
    assert fleet.ask("a", epoch=EPOCH - 1, has=5 * SIX, heard=9).share <= SIX
    fleet.another_leader()
    assert fleet.ask("b", epoch=EPOCH, has=5 * SIX, heard=9).share == 5 * SIX
    assert fleet.ask("liar", epoch=EPOCH, has=10**30, heard=9).share == MAX_SHARE


@pytest.mark.parametrize("epoch", [EPOCH + 1, EPOCH + 2])
def test_a_claim_of_this_epoch_or_a_later_one_is_not_believed(epoch: int) -> None:
    """This coordinator would know what it granted, and a later one does not speak here."""
    fleet = Fleet()
    fleet.another_leader()
    assert fleet.ask("liar", epoch=epoch, has=5 * SIX, heard=9).share == SIX  # the safe share of the first one


def test_what_was_heard_of_an_earlier_coordinator_closes_nothing_of_this_one() -> None:
    """Its numbers are others: an answer that is on its way may still be spent."""
    fleet = Fleet()
    fleet.another_leader()
    before = {"epoch": EPOCH, "heard": 9, "has": SIX}
    assert fleet.ask("a", hears=False, **before).share == SIX
    fleet.now += LEASE
    assert fleet.ask("a", hears=False, **before).share < SIX
    fleet.ask("a", hears=False, **before)
    assert fleet.pool.holds(fleet.now) == SIX


def test_a_budget_that_is_not_in_the_pods_policy_gets_no_answer() -> None:
    """A sidecar names budgets; which ones it has is the server's to know."""
    report = ShareReport(budget="other/budget", sequence=1, wants=100)
    assert Fleet().shares.ask({SPEC.name: SPEC}, "a", "1", [report], 100.0) == ()


def test_an_edit_acts_at_the_next_report_and_another_interval_begins_anew() -> None:
    fleet = Fleet()
    fleet.ask("a", wants=10_000)
    fleet.spec = replace(SPEC, min_retry_count=12)
    assert fleet.ask("a", wants=10_000).share == 2 * SIX
    fleet.spec = replace(SPEC, budget_interval_ms=60_000)
    grant = fleet.ask("a", wants=10_000)
    assert (grant.interval_ms, grant.share) == (60_000, 2 * SIX)


def test_a_budget_that_nobody_asks_about_any_more_is_forgotten() -> None:
    fleet = Fleet()
    fleet.ask("a", wants=SIX)
    fleet.shares.tidy(fleet.now)
    assert [view.members for view in fleet.shares.views(fleet.now)] == [1]
    fleet.shares.tidy(fleet.now + LOST_SECONDS)
    assert fleet.shares.views(fleet.now + LOST_SECONDS) == ()
