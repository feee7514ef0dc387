"""What a hostile client or provider tries: forged hints, requests to other hosts, keys and prompts in what is shown."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from msgspec.structs import replace

from sidecar_beside import Rogue, attributes, chat, eventually, message
from sidecar_manifests import provider, retries, routing
from sidecar_world import ANTHROPIC_KEY, OPENAI_KEY, World
from spendmesh_sidecar.limits import Limits
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

CHAT = "/openai/v1/chat/completions"


async def raw(world: World, head: str, body: str = "") -> bytes:
    """One request with exactly these header lines; everything that comes back."""
    address = world.sidecar.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    body = body or json.dumps(chat())
    writer.write(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer


# --- row 28: hints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [("x-spendmesh-task", "extract"), ("x-spendmesh-task", "chat")],
        [("x-spendmesh-user-plan", "enterprise"), ("X-Spendmesh-User-Plan", "free")],
        [("x-spendmesh-user", "u" * 129)],
        [("x-spendmesh-session", "s" * 9000)],
        [("x-spendmesh-feature", "a\tb")],
    ],
    ids=["twice", "twice in another case", "long", "huge", "control character"],
)
async def test_row_28_a_hint_that_cannot_be_believed_is_refused(shared_world: World, headers: Any) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    answer = await raw(shared_world, f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{lines}")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"request_invalid","param":"x-spendmesh-' in answer.replace(b'"type":"spendmesh",', b"")
    assert shared_world.provider_requests() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"x_spendmesh_user_plan": "enterprise"},
        {"x-spendmesh-user_plan": "enterprise"},
        {"spendmesh-user-plan": "enterprise"},
        {"x-spendmesh-userplan": "enterprise"},
    ],
)
async def test_row_28_a_spoofed_hint_under_another_name_has_no_effect(world: World, headers: dict[str, str]) -> None:
    async with world.http.post(world.url + CHAT, json=chat(), headers=headers) as got:
        assert got.headers["x-spendmesh-tier"] == "standard"
    assert "enterprise" not in repr(world.provider_requests())


async def test_row_28_a_hint_counts_in_its_composed_form(world: World) -> None:
    async with world.http.post(world.url + CHAT, json=chat(), headers={"x-spendmesh-task": "cafe\u0301"}) as got:
        assert got.status == 200
    await eventually(lambda: world.collector.spans)
    tasks = {attributes(span).get("spendmesh.task") for span in world.collector.spans}
    assert "caf\u00e9" in tasks and "cafe\u0301" not in tasks


async def test_row_28_invented_users_tasks_and_models_do_not_multiply_metrics(empty_world: World) -> None:
    world = await empty_world.start(sidecar=False)
    del world.objects[("ModelBudget", "team")]
    await world.apply()
    await world.start_sidecar()

    async def call(number: int) -> None:
        hints = {"x-spendmesh-user": f"canary-{number}", "x-spendmesh-task": f"canary-{number}"}
        asked = chat(model=f"invented-{number}")
        async with world.http.post(world.url + CHAT, json=asked, headers=hints) as got:
            assert got.status == 404

    for start in range(0, 250, 50):
        await asyncio.gather(*(call(number) for number in range(start, start + 50)))
    samples = await world.metrics()
    assert "canary" not in repr(samples)
    assert len([name for name in samples if name.startswith("spendmesh_attempts_total")]) <= 201
    assert await world.total("spendmesh_attempts_total", model="other") == 50


# --- row 29: requests to other hosts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://169.254.169.254/openai/v1/chat/completions",
        "http://localhost@169.254.169.254/openai/v1/chat/completions",
        "//169.254.169.254/openai/v1/chat/completions",
        "169.254.169.254:80",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "CONNECT"])
async def test_row_29_the_request_line_names_no_host(shared_world: World, method: str, target: str) -> None:
    answer = await raw(shared_world, f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n")
    assert int(answer.split()[1]) in (400, 403, 404)
    assert shared_world.provider_requests() == []


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xA9FEA9FE",
        "[::ffff:169.254.169.254]",
        "0.0.0.0",
        "0",
        "0x0",
        "[::]",
        "[::ffff:0.0.0.0]",
    ],
)
async def test_row_29_a_provider_at_a_metadata_or_any_address_is_never_connected_to(
    empty_world: World, host: str
) -> None:
    """`0.0.0.0` and its spellings would reach the stand-in, as a name that resolves to it would."""
    world = await empty_world.start(retries(attempts=0))
    policy = world.sidecar.plane.installed.policy
    first, *others = policy.providers
    assert first.alias == "openai"
    moved = replace(first, base_url=f"http://{host}:{world.standin.port}/v1")
    sent = world.publish(replace(policy, providers=(moved, *others)))
    await eventually(lambda: sent in world.control.hub.programmed())
    with pytest.raises(openai.InternalServerError) as refused:
        await world.openai.chat.completions.create(**chat())
    assert refused.value.code == "target_unavailable"
    assert world.provider_requests() == []
    assert await world.settled() == 0


async def test_row_29_a_key_goes_to_its_own_provider_only(empty_world: World) -> None:
    world, rogue = empty_world, Rogue(500)
    await world.start(sidecar=False)
    await world.serve(rogue)
    targets = [
        {"name": "first", "provider": "anthropic", "model": "medium-1"},
        {"name": "second", "provider": "openai", "model": "medium-1", "priority": 1},
    ]
    tiers = [{"name": "standard", "targets": targets}]
    await world.apply(
        provider("anthropic", f"{rogue.url}/v1"),
        routing("anthropic", "openai", tiers=tiers, rules=[], bounds=[], defaultTier="standard"),
        retries(attempts=1),
    )
    await world.start_sidecar()
    answer = await world.openai.chat.completions.with_raw_response.create(**chat())
    assert answer.headers["x-spendmesh-reason"] == "failover"
    (seen,) = rogue.headers
    assert seen["authorization"] == f"Bearer {ANTHROPIC_KEY}"
    assert OPENAI_KEY not in repr(seen)
    assert {request.account for request in world.provider_requests()} == {"openai"}


# --- rows 30 and 31: keys and prompts in what is shown -----------------------------------------------------

CANARY = "canary-5f2c"
PROMPT = f"{CANARY}-prompt [[out=30]]"
SENT = {
    "authorization": f"Bearer {CANARY}-client-key",
    "x-api-key": f"{CANARY}-client-key",
    "cookie": f"{CANARY}=1",
    "x-spendmesh-user": f"{CANARY}-user",
    "x-spendmesh-session": f"{CANARY}-session",
}
FAULTS: dict[str, FaultRule] = {
    "none": FaultRule("slow"),
    "echo": FaultRule("status", status=400, code=CANARY, type=CANARY, message=f"{CANARY} {OPENAI_KEY}"),
    "failing": FaultRule("status", status=500, code=CANARY, message=CANARY),
    "cut": FaultRule("reset_after_chunks", chunks=3),
    "reset": FaultRule("reset"),
    "error event": FaultRule("error_event", chunks=2, code=CANARY, type=CANARY, message=CANARY),
    "no usage": FaultRule("no_usage"),
    "hanging": FaultRule("hang"),
}
BROKEN = [
    f'{{"model":"auto","messages":[{{"role":"user","content":"{CANARY}"}}]',
    f'{{"model":"auto","{CANARY}":"{CANARY}","messages":[]}}',
    f'{{"model":"{CANARY}","messages":[{{"role":"user","content":"{CANARY}"}}]}}',
    f'{{"model":"auto","max_tokens":"{CANARY}","messages":[{{"role":"user","content":"{CANARY}"}}]}}',
    f'{{"model":"auto","tools":[{{"type":"{CANARY}"}}],"messages":[{{"role":"user","content":"{CANARY}"}}]}}',
]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_rows_30_and_31_no_key_and_no_prompt_is_shown_to_people(
    empty_world: World, fault: FaultRule, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs of all our parts at their most talkative, spans, metrics, status, and answers of our own making."""
    caplog.set_level(logging.DEBUG)
    world = await empty_world.start(limits=Limits(request_seconds=0.3))
    world.standin.faults(fault)
    own_words = ""
    for stream in (False, True):
        own_words += await said(world.openai.chat.completions.create, chat(PROMPT), stream)
        own_words += await said(world.anthropic.messages.create, message(PROMPT), stream)
    for body in BROKEN:
        async with world.http.post(world.url + CHAT, data=body, headers=SENT) as got:
            answer = await got.text()
        assert f"{CANARY}-" not in answer and OPENAI_KEY not in answer
    await mangled(world)
    await world.quiet()
    shown = own_words + await surfaces(world)
    await world.stop_sidecar()
    shown += json.dumps(world.collector.spans)
    ours = [record for record in caplog.records if record.name.split(".")[0] in ("spendmesh", "aiohttp", "asyncio")]
    shown += "".join(logging.Formatter().format(record) for record in ours)
    for secret in (f"{CANARY}-", OPENAI_KEY, ANTHROPIC_KEY, "token-of-the-pod"):
        assert secret not in shown
    assert len(world.collector.spans) >= 8


async def test_rows_30_and_31_a_process_tells_nothing_in_its_log_at_its_worst(empty_world: World) -> None:
    """As a container runs it, killed by a signal that leaves a trace."""
    world = await empty_world.start(retries(failures=0), sidecar=False)
    child = await world.start_sidecar_process(PYTHONFAULTHANDLER="1", PYTHONASYNCIODEBUG="1")
    for fault in FAULTS.values():
        if fault.action == "hang":
            continue
        world.standin.faults(fault)
        await said(world.openai.chat.completions.create, chat(PROMPT), True)
    world.standin.faults(FaultRule("hang"))
    hanging = asyncio.create_task(said(world.openai.chat.completions.create, chat(PROMPT), True))
    await eventually(lambda: world.standin.in_flight)
    os.kill(child.pid, signal.SIGABRT)
    await hanging
    await child.stop()
    log = world.log.read_text()
    assert "Fatal Python error" in log
    for secret in (CANARY, OPENAI_KEY, ANTHROPIC_KEY, "token-of-the-pod"):
        assert secret not in log


async def said(create: Any, asked: dict[str, Any], stream: bool) -> str:
    """Make a call with everything in it that must not be seen; answers our own refusal, if that is what came."""
    try:
        answer = await create(**asked, stream=stream, extra_headers=SENT)
        if stream:
            async for _ in answer:
                pass
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        return error.response.text if "x-spendmesh-error" in error.response.headers else ""
    except (openai.APIError, anthropic.APIError, httpx2.TransportError):
        pass  # cut, hanging or an error event: what is shown of it is looked at elsewhere
    return ""


async def mangled(world: World) -> None:
    """No HTTP at all, with a key in it."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization {CANARY}-\x00: {OPENAI_KEY}\r\n"
    answer = await raw(world, head, CANARY)
    assert CANARY.encode() not in answer and OPENAI_KEY.encode() not in answer


async def surfaces(world: World) -> str:
    found = ""
    urls = [f"{world.admin_url}/{page}" for page in ("healthz", "readyz", "metrics", "status", "debug", "")]
    for url in (*urls, f"{world.url}/spendmesh/v1/status"):
        async with world.http.get(url) as response:
            found += repr(response.headers) + await response.text()
    return found
