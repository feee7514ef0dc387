"""What is settled is what was billed, a limit is never exceeded, and an exhausted one is used."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from sidecar_beside import anthropic_client, chat, eventually, message
from sidecar_manifests import budget, manifest, retries
from sidecar_world import World, exhaust
from spendmesh_sidecar.limits import Limits
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

NANOS = 10**9
HOUR: Any = {"type": "ephemeral", "ttl": "1h"}
MINUTES: Any = {"type": "ephemeral"}
OPENAI_CALLS: dict[str, dict[str, Any]] = {
    "short": chat(),
    "long answer": chat("[[out=3000]]"),
    "choices": chat(n=5),
    "reasoning": chat("[[reasoning=200]]", "gpt-5-mini"),
    "cached": chat("[[in=2000]] [[cached=1500]]" + "x" * 2000, "small-1"),
    "prediction": chat("[[rejected=20]]", "gpt-4o", prediction={"type": "content", "content": "word " * 60}),
    "priority": chat(model="gpt-4o", service_tier="priority"),
    "any tier": chat(model="gpt-4o", service_tier="auto"),
    "flex": chat(model="gpt-5-mini", service_tier="flex"),
}
ANTHROPIC_CALLS: dict[str, dict[str, Any]] = {
    "short": message(),
    "thinking": message(model="claude-haiku-4-5", thinking={"type": "enabled", "budget_tokens": 1024}),
    "five minutes": message(
        model="claude-haiku-4-5", system=[{"type": "text", "text": "s" * 8000, "cache_control": MINUTES}]
    ),
    "an hour": message(model="claude-haiku-4-5", system=[{"type": "text", "text": "s" * 8000, "cache_control": HOUR}]),
    "long context": message("[[in=150000]]" + "x" * 150_000, "claude-haiku-5-5"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("call", OPENAI_CALLS.values(), ids=OPENAI_CALLS)
async def test_an_openai_call_settles_exactly_at_the_invoice(world: World, call: dict[str, Any], stream: bool) -> None:
    answer: Any = await world.openai.chat.completions.create(**call, stream=stream)
    if stream:
        assert [chunk async for chunk in answer]
    await exactly_the_invoice(world)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("call", ANTHROPIC_CALLS.values(), ids=ANTHROPIC_CALLS)
async def test_an_anthropic_call_settles_exactly_at_the_invoice(
    world: World, call: dict[str, Any], stream: bool
) -> None:
    for _ in range(2):  # the second reads what the first has written to the cache
        answer: Any = await world.anthropic.messages.create(**call, stream=stream)
        if stream:
            assert [event async for event in answer]
    await exactly_the_invoice(world)


async def test_embeddings_settle_exactly_at_the_invoice(world: World) -> None:
    for text in ("one", ["one", "two"], [1, 2, 3]):
        await world.openai.embeddings.create(model="text-embedding-3-large", input=text)
    await exactly_the_invoice(world)


async def test_many_calls_at_once_settle_exactly_at_the_invoice(world: World) -> None:
    calls = [world.openai.chat.completions.create(**chat(f"[[out={n}]]"), stream=n % 2 == 0) for n in range(1, 41)]
    for answer in await asyncio.gather(*calls):
        if isinstance(answer, openai.AsyncStream):
            assert [chunk async for chunk in answer]
    assert len(world.standin.invoice().lines) == 40
    await exactly_the_invoice(world)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
async def test_a_failure_that_the_provider_bills_is_settled_at_least_at_the_invoice(world: World, status: int) -> None:
    world.standin.faults(FaultRule("status", status=status, bill="full"))
    with pytest.raises(openai.APIStatusError) as refused:
        await world.openai.chat.completions.create(**chat("[[out=300]]"))
    assert refused.value.status_code == status
    assert refused.value.response.headers["x-should-retry"] == "false"
    await at_least_the_invoice(world, attempts=2 if status == 500 else 3)


@pytest.mark.parametrize(
    "rule",
    [
        FaultRule("reset", bill="full"),
        FaultRule("reset_after_chunks", bill="full"),
        FaultRule("error_in_200", bill="full"),
    ],
    ids=lambda rule: rule.action,
)
async def test_an_answer_that_breaks_is_settled_at_least_at_the_invoice(world: World, rule: FaultRule) -> None:
    world.standin.faults(rule)
    try:
        await world.openai.chat.completions.create(**chat("[[out=300]]"))
    except openai.InternalServerError as error:
        assert error.code == "target_unavailable"
    await at_least_the_invoice(world)


@pytest.mark.parametrize(
    "rule", [FaultRule("hang", bill="full"), FaultRule("stall", bill="full")], ids=["head", "body"]
)
async def test_a_timeout_that_the_provider_bills_is_settled_at_least_at_the_invoice(
    empty_world: World, rule: FaultRule
) -> None:
    world = await empty_world.start(limits=Limits(request_seconds=1.0))  # time to reach the provider
    world.standin.faults(rule)
    with pytest.raises(openai.InternalServerError) as refused:
        await world.openai.chat.completions.create(**chat("[[out=300]]"))
    assert (refused.value.status_code, refused.value.code) == (504, "attempt_timeout")
    await at_least_the_invoice(world, attempts=1)


@pytest.mark.parametrize("status", [401, 403, 404, 413, 429, 529])
async def test_a_storm_of_free_refusals_leaves_the_budget_unchanged(world: World, status: int) -> None:
    world.standin.faults(FaultRule("status", status=status))
    calls = [world.openai.chat.completions.create(**chat()) for _ in range(20)]
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, openai.APIStatusError)
    assert await world.settled() == 0
    assert await world.close_the_books() == 0


async def test_a_provider_that_claims_more_than_is_possible_does_not_empty_the_budget(world: World) -> None:
    """Contract §4: recorded, alerted, the target is tripped, and the budget is charged at most what was held."""
    world.standin.faults(FaultRule("lying_usage", input_tokens=10, output_tokens=10_000_000, first=1))
    await world.openai.chat.completions.create(**chat("[[in=10]]" + "x" * 40, max_tokens=100))
    assert world.invoice_nanos <= await world.settled() <= NANOS // 1000
    assert world.rights.overrun == 0
    assert (await world.status())["breakers"]["openai/medium-1"] == "ejected"
    assert await world.total("spendmesh_overrun_nanos_total") > 10 * NANOS, "what was claimed is not forgotten"
    used = world.rights.used
    assert await world.total("spendmesh_cost_nanos_total") == used
    assert await world.close_the_books() == used
    assert world.collector.cost_nanos() == used


async def test_an_exhausted_limit_is_used_to_95_percent_and_never_exceeded(empty_world: World) -> None:
    world = await empty_world.start(budget("0.02"))
    limit = NANOS // 50
    error = await exhaust(world)
    assert error.status_code == 402 and error.code == "budget_exceeded"
    assert "team-a/team" in error.message and "resets in" in error.message
    settled = await exactly_the_invoice(world)
    assert 0.95 * limit <= settled <= limit


async def test_many_callers_at_once_exhaust_a_limit_and_never_exceed_it(empty_world: World) -> None:
    world = await empty_world.start(budget("0.02"))
    limit = NANOS // 50
    errors = await asyncio.gather(*(exhaust(world) for _ in range(8)))
    assert {error.status_code for error in errors} == {402}
    settled = await exactly_the_invoice(world)
    assert 0.95 * limit <= settled <= limit


async def test_a_storm_of_billed_failures_never_exceeds_the_limit(empty_world: World) -> None:
    world = await empty_world.start(budget("0.02"), retries(attempts=2, failures=0))
    world.standin.faults(
        FaultRule("status", status=500, probability=0.2, bill="full"),
        FaultRule("reset", probability=0.1, bill="full"),
        FaultRule("reset_after_chunks", chunks=4, probability=0.2, bill="full"),
        FaultRule("no_usage", probability=0.2),
    )
    outcomes: list[str] = []
    while outcomes[-20:] != ["402"] * 20:
        calls = (outcome(world, number % 2 == 0) for number in range(20))
        outcomes += await asyncio.gather(*calls)
    assert {"ok", "402"} < set(outcomes)
    used = await at_least_the_invoice(world)
    assert used <= NANOS // 50
    assert world.account().overrun == 0


async def test_both_sdks_raise_their_own_error_after_exactly_one_attempt(empty_world: World) -> None:
    world = await empty_world.start(budget("0.000001"))
    retrying = await world.client(f"{world.url}/openai/v1", max_retries=5)
    with pytest.raises(openai.APIStatusError) as from_openai:
        await retrying.chat.completions.create(**chat())
    async with anthropic_client(f"{world.url}/anthropic", max_retries=5) as other:
        with pytest.raises(anthropic.PaymentRequiredError) as from_anthropic:
            await other.messages.create(**message())
    for error in (from_openai.value, from_anthropic.value):
        assert error.status_code == 402
        assert error.response.headers["x-should-retry"] == "false"
        assert error.response.headers["x-spendmesh-error"] == "request_exceeds_budget"
    assert from_openai.value.type == "spendmesh" and from_openai.value.code == "request_exceeds_budget"
    assert from_anthropic.value.type == "billing_error"
    assert from_anthropic.value.body["error"]["message"].startswith("request_exceeds_budget: ")
    assert await world.total("spendmesh_refusals_total") == 2, "no SDK has tried again"
    assert world.provider_requests() == []


async def test_a_stream_that_is_refused_raises_before_it_begins(empty_world: World) -> None:
    world = await empty_world.start(budget("0.000001"))
    with pytest.raises(openai.APIStatusError):
        await world.openai.chat.completions.create(**chat(), stream=True)


@pytest.mark.parametrize(("unit", "amount"), [("TotalTokens", 6000), ("OutputTokens", 5000), ("Requests", 7)])
async def test_a_limit_in_another_unit_holds_too(empty_world: World, unit: str, amount: int) -> None:
    window = {"type": "Calendar", "period": "Day", "timeZone": "Etc/UTC"}
    limit = {"name": "monthly", "unit": unit, "amount": amount, "window": window}
    world = await empty_world.start(manifest("ModelBudget", "team", {"limits": [limit]}))
    error = await exhaust(world, 95, max_tokens=100)
    assert error.status_code == 402
    await world.close_the_books()
    assert 0.9 * amount <= world.account().state.settled <= amount


async def test_a_threshold_downgrades_what_the_policy_chooses_and_not_what_was_asked(empty_world: World) -> None:
    downgrade = {"percent": 30, "actions": [{"type": "Notify"}, {"type": "Downgrade", "maxTier": "economy"}]}
    world = await empty_world.start(budget("0.02", thresholds=[downgrade]))
    tiers: list[str] = []
    while "economy" not in tiers:
        answer = await world.openai.chat.completions.with_raw_response.create(**chat("[[out=300]]"))
        tiers.append(answer.headers["x-spendmesh-tier"])
    assert answer.headers["x-spendmesh-reason"] == "budget:team-a/team/monthly"
    assert tiers == ["standard"] * (len(tiers) - 1) + ["economy"]
    assert world.rights.used >= 0.3 * NANOS / 50
    asked = await world.openai.chat.completions.with_raw_response.create(**chat(model="medium-1", max_tokens=100))
    assert asked.headers["x-spendmesh-model"] == "openai/medium-1"


async def test_an_observed_budget_refuses_nothing_and_counts(empty_world: World) -> None:
    window = {"type": "Calendar", "period": "Day", "timeZone": "Etc/UTC"}
    limit = {"name": "monthly", "currency": "USD", "amount": "0.00001", "window": window}
    world = await empty_world.start(manifest("ModelBudget", "team", {"mode": "Observe", "limits": [limit]}))
    for _ in range(5):
        assert (await world.openai.chat.completions.create(**chat("[[out=300]]"))).choices
    await world.stop_sidecar()
    assert world.account().state.settled == world.invoice_nanos > 10_000
    assert world.account().would_block > 0


async def test_without_a_budget_a_call_is_metered_and_unlimited(empty_world: World) -> None:
    world = await empty_world.start(sidecar=False)
    del world.objects[("ModelBudget", "team")]
    await world.apply()
    await world.start_sidecar()
    answer = await world.openai.chat.completions.with_raw_response.create(**chat())
    assert "x-spendmesh-cost" in answer.headers
    await world.stop_sidecar()
    assert world.collector.cost_nanos() == world.invoice_nanos > 0


async def test_an_unpriced_model_is_refused_under_a_budget_in_money(world: World) -> None:
    with pytest.raises(openai.PermissionDeniedError) as refused:
        await world.openai.chat.completions.create(**chat(model="model-of-nobody"))
    assert refused.value.code == "model_unpriced"
    assert "model-of-nobody" in refused.value.message
    assert world.provider_requests() == []


async def outcome(world: World, stream: bool) -> str:
    try:
        answer: Any = await world.openai.chat.completions.create(**chat("[[out=60]]", max_tokens=300), stream=stream)
        if stream:
            assert [chunk async for chunk in answer]
    except openai.APIStatusError as error:
        return str(error.status_code)
    except (openai.APIError, httpx2.TransportError) as error:
        return type(error).__name__
    return "ok"


async def exactly_the_invoice(world: World) -> int:
    """Books of the sidecar, of the coordinator, spans and metrics all say what the provider bills."""
    used = await world.settled()
    assert used == world.invoice_nanos > 0
    assert await world.total("spendmesh_cost_nanos_total") == used
    assert await world.close_the_books() == used
    assert world.collector.cost_nanos() == used
    return used


async def at_least_the_invoice(world: World, attempts: int | None = None) -> int:
    used = await world.settled()
    await eventually(lambda: not world.standin.in_flight)
    assert used >= world.invoice_nanos > 0
    if attempts is not None:
        assert len(world.provider_requests()) == attempts
    assert await world.close_the_books() == used
    assert world.collector.cost_nanos() == used
    return used
