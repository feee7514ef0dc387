"""The stand-in's own endpoints and its use inside a test's event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from spendmesh_standin import DEFAULT_KEYS, FaultRule, Settings, StandIn

PROMPT: Any = [{"role": "user", "content": "[[in=100]][[out=20]]" + "x" * 100}]


def test_it_runs_inside_a_tests_own_loop() -> None:
    async def scenario() -> None:
        async with (
            StandIn() as standin,
            openai.AsyncOpenAI(base_url=standin.openai_url, api_key=DEFAULT_KEYS[0].secret, max_retries=1) as client,
        ):
            standin.faults(FaultRule("status", status=503, first=1, retry_after_ms=1))
            await client.chat.completions.create(model="small-1", messages=PROMPT)
            assert standin.invoice().cost_nanos == 13_000
            assert standin.invoice().cost_by(lambda line: line.reason) == {"error": 0, "ok": 13_000}
            assert standin.fault_counts() == [{"action": "status", "seen": 2, "applied": 1}]
            standin.reset()
            assert standin.invoice().lines == ()

    asyncio.run(scenario())


def test_a_stand_in_that_is_not_running_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="await start"):
        _ = StandIn().url


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/_standin/faults", 200),
        ("GET", "/_standin/health", 200),
        ("GET", "/_standin/nothing", 404),
        ("POST", "/_standin/invoice", 404),
        ("GET", "/_standin/invoice?after=x", 400),
        ("GET", "/_standin/invoice?lines=2", 400),
        ("POST", "/_standin/ack/req_0", 404),
    ],
)
def test_own_endpoints_answer_or_say_what_is_wrong(stage: Any, method: str, path: str, status: int) -> None:
    assert stage.raw(method, path, headers={}).status == status


def test_an_acknowledgement_must_be_a_number(stage: Any) -> None:
    stage.faults(FaultRule("withhold"))
    stream = stage.openai.chat.completions.create(model="small-1", messages=PROMPT, stream=True)
    identifier = next(iter(stream)).id
    assert stage.raw("POST", f"/_standin/ack/{identifier}?chunks=x", headers={}).status == 400
    assert stage.raw("POST", f"/_standin/ack/{identifier}?chunks=20", headers={}).status == 200
    assert len(list(stream)) == 20 + 1


def test_a_body_above_the_limit_is_refused(stage: Any) -> None:
    assert stage.raw("POST", "/v1/chat/completions", b" " * (33 * 1024 * 1024)).status == 413


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"input": "x", "dims": 5}, "dims"),
        ({"input": "x", "encoding_format": "hex"}, "hex"),
        ({"input": "x", "dimensions": 5000}, "dimensions"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["x", 5]}, "input"),
        ({"input": ["x"] * 2049}, "2048"),
        ({"input": [[1] * 8193]}, "8192"),
        ({"input": [[1] * 8000] * 40}, "300000"),
        ({}, "input"),
    ],
)
def test_embeddings_that_the_real_host_refuses_are_refused(stage: Any, body: Any, names: str) -> None:
    answer = stage.raw("POST", "/v1/embeddings", {"model": "text-embedding-3-small", **body})
    assert answer.status == 400 and names in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"chunk_tokens": 0}, "chunk_tokens"),
        ({"providers": {"b": "b"}}, "providers.b"),
        ({"disconnect_billing": "half"}, "disconnect_billing"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(settings: Any, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        Settings(**settings)


def test_a_free_operation_can_hang(stage: Any) -> None:
    stage.faults(FaultRule("hang", path="/v1/models"))
    with pytest.raises(openai.APITimeoutError):
        stage.openai.with_options(timeout=0.1).models.list()
    assert stage.lines() == ()
