"""A provider that the pod has no key for: nobody failed, nothing was sent, and another provider may answer."""

from __future__ import annotations

from msgspec.structs import replace

from exchange_world import ANTHROPIC, BACKUP, OPENAI, RETRY, ROUTING, World, chat, failure, policy, success
from spendmesh_sidecar.core.outcome import broken
from spendmesh_sidecar.core.specs import TargetSpec
from spendmesh_sidecar.core.types import Attempt, Kind, Outcome

MISSING = broken(Kind.KEY_MISSING)
STANDARD = tuple(
    TargetSpec(name=f"{alias}-{model}", provider=alias, model=model, priority=place)
    for place, (alias, model) in enumerate(
        [("openai", "medium-1"), ("openai", "large-1"), ("backup", "medium-2")],
    )
)


def world(**retry: int) -> World:
    """Two targets of one provider, then one of another."""
    tiers = tuple(replace(tier, targets=STANDARD) if tier.name == "standard" else tier for tier in ROUTING.tiers)
    secret = replace(OPENAI, secret="model-keys/openai")
    providers = (secret, BACKUP, ANTHROPIC)
    return World(policy(routing=replace(ROUTING, tiers=tiers), providers=providers, retry=replace(RETRY, **retry)))


def backup_only(attempt: Attempt) -> Outcome:
    return success() if attempt.provider.alias == "backup" else MISSING


def test_another_provider_is_tried_at_once_and_no_other_target_of_this_one() -> None:
    run = world().run(chat(), backup_only)
    assert run.models == ["openai/medium-1", "backup/medium-2"] and run.waits == []
    assert [one.source for one in run.exchange.decision.settlements] == ["void", "exact"]


def test_that_costs_no_retry_since_nothing_was_sent() -> None:
    """Neither of the call's own, nor of what a failing provider is spared by."""
    meagre = world(attempts=0, budget_percent=0, min_retry_count=0)
    for _ in range(20):
        assert meagre.run(chat(), backup_only).models[-1] == "backup/medium-2"
    one = world(attempts=1).run(chat(), [MISSING, failure(502), success()])
    assert one.models == ["openai/medium-1", "backup/medium-2", "backup/medium-2"]


def test_the_target_is_not_ejected_and_serves_as_soon_as_the_key_is_there() -> None:
    pod = world()
    for _ in range(20):
        pod.run(chat(), backup_only)
    assert {breaker.state(pod.now) for _, breaker in pod.breakers.items()} == {"serving"}
    assert pod.run(chat(), [success()]).models == ["openai/medium-1"]


def test_without_another_provider_the_refusal_names_provider_and_secret() -> None:
    pod = world()
    run = pod.run(chat("named-1"), [MISSING])
    assert (run.code, len(run.attempts), run.exchange.retry_denied) == ("target_unavailable", 1, "no_target")
    for named in ("ModelProvider team-a/openai", "item 'openai'", "Secret 'model-keys'"):
        assert named in run.message
    assert run.respond is not None and run.respond.refusal is not None
    assert run.respond.refusal.retry_after_seconds == 60
    assert pod.used() == pod.held == 0


def test_a_policy_of_an_operator_that_names_no_secret_is_obeyed_too() -> None:
    run = World().run(chat("named-1"), [MISSING])
    assert "the Secret that its auth names" in run.message and "''" not in run.message
