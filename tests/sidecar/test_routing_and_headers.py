"""What a call's hints and policy choose, what the client is told, and what never reaches the provider."""

from __future__ import annotations

import re
from typing import Any

import anthropic
import openai
import pytest

from sidecar_beside import Rogue, chat, message
from sidecar_manifests import provider, routing
from sidecar_world import ANTHROPIC_KEY, OPENAI_KEY, POD, World

pytestmark = pytest.mark.anyio

CREDENTIALS = {"authorization", "x-api-key", "api-key", "cookie", "proxy-authorization"}


def ours(response: Any) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("x-spendmesh-")}


async def ask(world: World, model: str = "auto", **hints: str) -> Any:
    headers = {f"x-spendmesh-{name.replace('_', '-')}": value for name, value in hints.items()}
    return await world.openai.chat.completions.with_raw_response.create(**chat(model=model), extra_headers=headers)


@pytest.mark.parametrize(
    ("model", "hints", "tier", "answered", "reason"),
    [
        ("auto", {}, "standard", "openai/medium-1", "default"),
        ("spendmesh/auto", {}, "standard", "openai/medium-1", "default"),
        ("auto", {"task": "extract"}, "economy", "openai/small-1", "rule:extract"),
        ("auto", {"task": "classify"}, "economy", "openai/small-1", "rule:extract"),
        ("auto", {"task": "poetry"}, "standard", "openai/medium-1", "default"),
        ("auto", {"user_plan": "enterprise"}, "premium", "openai/large-1", "bound:vip"),
        ("auto", {"user_plan": "enterprise", "task": "extract"}, "premium", "openai/large-1", "bound:vip"),
        ("spendmesh/economy", {}, "economy", "openai/small-1", "asked"),
        ("spendmesh/premium", {}, "premium", "openai/large-1", "asked"),
        ("gpt-4o", {"task": "extract"}, None, "openai/gpt-4o", "asked"),
    ],
)
async def test_the_tier_follows_task_plan_and_the_model_that_was_asked(
    shared_world: World, model: str, hints: dict[str, str], tier: str | None, answered: str, reason: str
) -> None:
    response = await ask(shared_world, model, **hints)
    told = ours(response)
    assert (told.get("x-spendmesh-tier"), told["x-spendmesh-model"], told["x-spendmesh-reason"]) == (
        tier,
        answered,
        reason,
    )
    assert response.parse().model.startswith(answered.partition("/")[2])


async def test_each_dialect_gets_a_target_that_speaks_it(shared_world: World) -> None:
    answer = await shared_world.anthropic.messages.with_raw_response.create(
        **message(), extra_headers={"x-spendmesh-task": "extract"}
    )
    assert ours(answer)["x-spendmesh-model"] == "anthropic/small-1"


async def test_without_a_target_that_speaks_the_client_s_dialect_the_call_is_refused(empty_world: World) -> None:
    world = await empty_world.start(sidecar=False)
    await world.apply(routing("openai"))
    await world.start_sidecar()
    with pytest.raises(anthropic.BadRequestError, match="no_capable_target: "):
        await world.anthropic.messages.create(**message())
    assert world.provider_requests() == []


async def test_a_provider_can_be_named_in_the_path(empty_world: World) -> None:
    world = empty_world
    await world.start(sidecar=False)
    await world.apply(provider("backup", world.standin.openai_url), routing("openai", "anthropic", "backup"))
    await world.start_sidecar()
    named = await world.client(f"{world.url}/providers/backup")
    answer = await named.chat.completions.with_raw_response.create(**chat(model="small-1"))
    assert ours(answer)["x-spendmesh-model"] == "backup/small-1"


async def test_an_answer_carries_the_decision_its_cost_and_what_is_left(world: World) -> None:
    told = ours(await ask(world, task="extract"))
    assert set(told) == {
        "x-spendmesh-request-id",
        "x-spendmesh-policy",
        "x-spendmesh-tier",
        "x-spendmesh-model",
        "x-spendmesh-reason",
        "x-spendmesh-attempts",
        "x-spendmesh-cost",
        "x-spendmesh-budget-remaining",
    }
    assert told["x-spendmesh-policy"] == "team-a/support@1"
    assert told["x-spendmesh-attempts"] == "1"
    amount, currency = told["x-spendmesh-cost"].split()
    assert (round(float(amount) * 10**6), currency) == (-(-world.invoice_nanos // 1000), "USD")
    assert re.fullmatch(r"99\.99 USD; team-a/team/monthly", told["x-spendmesh-budget-remaining"])


async def test_a_stream_s_head_carries_the_decision_without_a_cost(world: World) -> None:
    stream = await world.openai.chat.completions.with_raw_response.create(**chat(), stream=True)
    told = ours(stream)
    assert told["x-spendmesh-model"] == "openai/medium-1"
    assert "x-spendmesh-cost" not in told
    assert [chunk async for chunk in stream.parse()]


async def test_a_refusal_says_each_header_once(world: World) -> None:
    async with world.http.post(f"{world.url}/openai/v1/chat/completions", json=chat(model="no-such-model")) as response:
        names = [name.lower() for name, _ in response.raw_headers]
    assert response.status == 403
    assert len(names) == len(set(names))


async def test_the_provider_sees_its_own_key_and_nothing_that_was_the_client_s(world: World) -> None:
    smuggled = {
        "x-spendmesh-task": "extract",
        "x-spendmesh-user": "canary-user",
        "x_spendmesh_task": "canary-underscore",
        "x-spendmesh-forged": "canary-forged",
        "openai-organization": "canary-org",
        "openai-project": "canary-project",
        "x-api-key": "canary-key",
        "api-key": "canary-key",
        "cookie": "canary=cookie",
        "proxy-authorization": "Basic canary",
        "x-forwarded-for": "canary-address",
        "forwarded": "for=canary",
        "connection": "x-canary",
        "x-canary": "canary",
        "te": "trailers, canary",
    }
    await world.openai.chat.completions.create(**chat(), extra_headers=smuggled)
    await world.anthropic.messages.create(**message(), extra_headers={**smuggled, "authorization": "Bearer canary"})
    openai_request, anthropic_request = world.provider_requests()
    assert "canary" not in repr((openai_request, anthropic_request))
    for request, account, header in (
        (openai_request, "openai", "authorization"),
        (anthropic_request, "anthropic", "x-api-key"),
    ):
        names = [name for name, _ in request.headers]
        assert request.account == account
        assert CREDENTIALS.intersection(names) == {header}
        assert not [name for name in names if "spendmesh" in name]
    assert {line.account for line in world.standin.invoice().lines} == {"openai", "anthropic"}


async def test_headers_that_the_sdk_needs_upstream_pass(world: World) -> None:
    await world.anthropic.messages.create(**message())
    await world.openai.chat.completions.create(**chat(), extra_headers={"idempotency-key": "once"})
    anthropic_request, openai_request = (dict(request.headers) for request in world.provider_requests())
    assert "anthropic-version" in anthropic_request
    assert openai_request["idempotency-key"] == "once"
    assert "x-stainless-lang" in openai_request
    assert openai_request["accept-encoding"] == anthropic_request["accept-encoding"] == "identity"


async def test_an_untouched_body_arrives_byte_for_byte(world: World) -> None:
    raw = b'{"messages" : [{"role":"user",  "content":"caf\\u00e9 [[out=2]]"}],\n "model":"small-1", "max_tokens": 300}'
    async with world.http.post(
        f"{world.url}/openai/v1/chat/completions", data=raw, headers={"content-type": "application/json"}
    ) as response:
        assert response.status == 200
    (seen,) = world.provider_requests()
    assert seen.body_bytes == len(raw)


async def test_forged_headers_of_a_provider_are_dropped_and_a_redirect_leads_nowhere(empty_world: World) -> None:
    world = empty_world
    rogue = Rogue(
        307,
        {
            "x-spendmesh-cost": "0 USD",
            "x-spendmesh-budget-remaining": "1000000 USD",
            "X_Spendmesh_Tier": "premium",
            "location": "http://169.254.169.254/latest/meta-data",
            "x-own": "passes",
        },
    )
    await world.start(sidecar=False)
    await world.serve(rogue)
    await world.apply(provider("openai", f"{rogue.url}/v1"))
    await world.start_sidecar()
    async with world.http.post(
        f"{world.url}/openai/v1/chat/completions", json=chat(), allow_redirects=False
    ) as response:
        headers = response.headers
    assert (response.status, headers["x-own"]) == (307, "passes")
    assert headers["x-spendmesh-tier"] == "standard"
    assert headers.get("x-spendmesh-cost") != "0 USD"
    assert "location" not in headers
    assert not [name for name in headers if name.lower() == "x_spendmesh_tier"]
    assert len(rogue.headers) == 1


async def test_no_key_is_in_anything_that_a_client_gets(world: World) -> None:
    answer = await ask(world)
    shown = repr(answer.headers) + answer.text
    assert OPENAI_KEY not in shown and ANTHROPIC_KEY not in shown


async def test_a_missing_key_is_named_to_the_client_and_to_the_coordinator(empty_world: World) -> None:
    world = empty_world
    await world.start(sidecar=False)
    await world.apply(provider("keyless", world.standin.openai_url), routing("keyless"))
    await world.start_sidecar()
    with pytest.raises(openai.InternalServerError, match=r"no usable key .* team-a/keyless: put one into item '\w+'"):
        await ask(world)
    assert world.control.hub.missing_keys() == {POD.identity.uid: ("keyless",)}
    assert world.provider_requests() == []
