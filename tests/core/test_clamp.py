"""Clamp: from a threshold on no call may ask for more output, whichever model it names."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import (
    OPENAI,
    USD,
    World,
    budget,
    chat,
    limit,
    policy,
    success,
)
from spendmesh_sidecar.core.ledger.rights import AccountState, Lease
from spendmesh_sidecar.core.specs import LimitSpec, ThresholdSpec
from spendmesh_sidecar.core.types import Bounds

STEPS = (ThresholdSpec(percent=50, max_output_tokens=400), ThresholdSpec(percent=80, max_output_tokens=300))


def clamped(name: str = "monthly", amount: int = USD, **changes: object) -> LimitSpec:
    return replace(limit(name, amount, steps=STEPS), **changes)


def spent(percent: int, *limits: LimitSpec, mode: str = "Enforce") -> World:
    """A world whose limits (one of a dollar) are spent to so much, by what the coordinator says of them."""
    mesh = World(policy(budgets=(budget(*(limits or (clamped(),)), mode=mode),)))
    for account in list(mesh.ledger.accounts.values()):
        assert account.limit is not None
        amount = account.limit.amount
        state = AccountState(amount=amount, settled=amount * percent // 100, charged=amount, resets_in_ms=10**7)
        mesh.ledger.merge(
            Lease(
                id=account.ref.limit, nonce="holder", account=account.ref, unit=account.limit.unit,
                currency=account.limit.currency, granted=amount // 20, ends_in_ms=10**7, state=state,
            ),
            mesh.now,
        )  # fmt: skip
    return mesh


@pytest.mark.parametrize(
    ("percent", "asked", "sent"),
    [
        (49, 1_000, None),
        (50, 1_000, 400),
        (50, 401, 400),
        (50, 400, None),
        (50, 100, None),
        (79, 1_000, 400),
        (80, 1_000, 300),
        (50, None, 400),
        (49, None, 1_000),
    ],
)
def test_what_is_asked_or_injected_is_lowered_to_the_least_reached_step(
    percent: int, asked: int | None, sent: int | None
) -> None:
    """A smaller wish stays as it is; None: the request's own maximum is not touched."""
    run = spent(percent).run(chat("medium-1", maximum=asked), [success()])
    assert [attempt.max_output_tokens for attempt in run.attempts] == [sent]


def test_the_reservation_is_of_the_lowered_maximum() -> None:
    """Otherwise a nearly spent budget would refuse what it can pay for."""
    mesh = spent(50)
    exchange = mesh.sent(chat("medium-1", maximum=1_000))
    assert mesh.held == 1_000 * 2_000 + 400 * 8_000
    exchange.close(mesh.now)


@pytest.mark.parametrize("model", ["auto", "medium-1"])
def test_claimed_and_unclaimed_models_are_clamped_and_the_reason_says_so(model: str) -> None:
    """An explicit model is never downgraded, but it is clamped (contract §1)."""
    run = spent(50).run(chat(model, maximum=1_000), [success()])
    assert run.headers["x-spendmesh-reason"] == "clamp:team-a/team/monthly"


def test_a_call_that_is_not_lowered_keeps_its_reason() -> None:
    run = spent(50).run(chat("medium-1", maximum=100), [success()])
    assert run.headers["x-spendmesh-reason"] == "asked"


def test_only_calls_that_the_limit_counts_are_clamped() -> None:
    mesh = spent(50, clamped(models=("large-*",)))
    assert mesh.run(chat("medium-1", maximum=1_000), [success()]).attempts[0].max_output_tokens is None
    assert mesh.run(chat("large-1", maximum=1_000), [success()]).attempts[0].max_output_tokens == 400


def test_a_limit_of_requests_clamps_as_well() -> None:
    """No bound of the output is needed for it, and yet one is sent."""
    mesh = spent(50, replace(clamped(), unit="Requests", currency="", amount=1_000))
    assert mesh.run(chat("medium-1", maximum=None), [success()]).attempts[0].max_output_tokens == 400


def test_the_least_of_several_limits_counts() -> None:
    """And the reason names it."""
    other = limit("other", USD, steps=(ThresholdSpec(percent=10, max_output_tokens=350),))
    run = spent(50, clamped(), other).run(chat("medium-1", maximum=1_000), [success()])
    assert run.attempts[0].max_output_tokens == 350
    assert run.headers["x-spendmesh-reason"] == "clamp:team-a/team/other"


def test_what_the_coordinator_says_counts_before_our_own_use_reaches_it() -> None:
    """It also counts other sidecars' use and quarantined rights."""
    mesh = spent(0)
    [account] = mesh.ledger.accounts.values()
    [lease] = account.leases.values()
    assert lease.state is not None
    lease.state = replace(lease.state, max_output_tokens=300)
    assert mesh.run(chat("medium-1", maximum=1_000), [success()]).attempts[0].max_output_tokens == 300


def test_an_observed_limit_clamps_nothing() -> None:
    mesh = spent(90, mode="Observe")
    assert mesh.run(chat("medium-1", maximum=1_000), [success()]).attempts[0].max_output_tokens is None


def test_an_operation_without_output_has_nothing_to_clamp() -> None:
    bounds = Bounds(input_tokens=10, max_output_tokens=None, output_field="")
    run = spent(90).run(replace(chat("medium-1"), bounds=bounds), [success(10, 0)])
    assert (run.code, run.attempts[0].max_output_tokens) == ("", None)
    assert OPENAI.alias in run.headers["x-spendmesh-model"]
