"""Each fault switch does what it says, to the client and to the invoice."""

from __future__ import annotations

import email.utils
import json
from typing import Any

import anthropic
import openai
import pytest

from spendmesh_standin import FaultRule

# 100 tokens in, 20 out: small-1 costs 100 × 50 + 20 × 400.
FULL_NANOS, INPUT_NANOS = 13_000, 5_000


def ask(model: str = "small-1", **more: Any) -> Any:
    return {"model": model, "messages": [{"role": "user", "content": "[[in=100]][[out=20]]" + "x" * 100}], **more}


def ask_anthropic(**more: Any) -> Any:
    return ask("claude-haiku-4-5", max_tokens=100, **more)


def chat(stage: Any, **more: Any) -> Any:
    return stage.openai.chat.completions.create(**ask(**more))


def message(stage: Any, **more: Any) -> Any:
    return stage.anthropic.messages.create(**ask_anthropic(**more))


@pytest.mark.parametrize(
    ("status", "for_openai", "for_anthropic", "kind"),
    [
        (400, openai.BadRequestError, anthropic.BadRequestError, "invalid_request_error"),
        (401, openai.AuthenticationError, anthropic.AuthenticationError, "authentication_error"),
        (402, openai.APIStatusError, anthropic.APIStatusError, "billing_error"),
        (403, openai.PermissionDeniedError, anthropic.PermissionDeniedError, "permission_error"),
        (404, openai.NotFoundError, anthropic.NotFoundError, "not_found_error"),
        (408, openai.APIStatusError, anthropic.APIStatusError, "timeout_error"),
        (409, openai.ConflictError, anthropic.ConflictError, "invalid_request_error"),
        (413, openai.APIStatusError, anthropic.APIStatusError, "request_too_large"),
        (422, openai.UnprocessableEntityError, anthropic.UnprocessableEntityError, "invalid_request_error"),
        (429, openai.RateLimitError, anthropic.RateLimitError, "rate_limit_error"),
        (500, openai.InternalServerError, anthropic.InternalServerError, "api_error"),
        (502, openai.InternalServerError, anthropic.InternalServerError, "api_error"),
        (503, openai.InternalServerError, anthropic.InternalServerError, "api_error"),
        (504, openai.InternalServerError, anthropic.InternalServerError, "timeout_error"),
        (529, openai.InternalServerError, anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_a_status_becomes_the_error_that_the_sdks_know(
    stage: Any, status: int, for_openai: Any, for_anthropic: Any, kind: str
) -> None:
    stage.faults(FaultRule("status", status=status))
    with pytest.raises(for_openai) as from_openai:
        chat(stage)
    with pytest.raises(for_anthropic) as from_anthropic:
        message(stage)
    assert from_openai.value.status_code == from_anthropic.value.status_code == status
    assert from_anthropic.value.body["error"]["type"] == kind
    assert [line.cost_nanos for line in stage.lines()] == [0, 0]


@pytest.mark.parametrize(
    ("status", "bill", "nanos", "reason"),
    [
        (500, "none", 0, "error"),
        (500, "input", INPUT_NANOS, "error"),
        (503, "full", FULL_NANOS, "error"),
        (408, "full", FULL_NANOS, "timeout"),
        (504, "full", FULL_NANOS, "timeout"),
    ],
)
def test_a_failed_attempt_costs_what_the_rule_says(stage: Any, status: int, bill: Any, nanos: int, reason: str) -> None:
    stage.faults(FaultRule("status", status=status, bill=bill))
    assert stage.raw("POST", "/v1/chat/completions", ask()).status == status
    line = stage.line()
    assert (line.cost_nanos, line.reason, line.billed, line.status) == (nanos, reason, bill, status)


def test_advice_on_when_to_retry_is_sent_in_every_form(stage: Any) -> None:
    def headers(**more: Any) -> dict[str, str]:
        stage.faults(FaultRule("status", status=429, **more))
        sent: dict[str, str] = stage.raw("POST", "/v1/chat/completions", ask()).headers
        return sent

    assert headers(retry_after=7)["retry-after"] == "7"
    assert headers(retry_after="NaN")["retry-after"] == "NaN"
    assert headers(retry_after_ms=250)["retry-after-ms"] == "250"
    assert email.utils.parsedate_to_datetime(headers(retry_after_date_seconds=60)["retry-after"]) is not None
    assert headers(should_retry=False)["x-should-retry"] == "false"
    assert "retry-after" not in headers()


def test_an_error_may_have_a_code_of_its_own(stage: Any) -> None:
    stage.faults(FaultRule("status", status=429, type="insufficient_quota", code="credit_balance_exhausted"))
    with pytest.raises(openai.RateLimitError) as caught:
        chat(stage)
    assert (caught.value.type, caught.value.code) == ("insufficient_quota", "credit_balance_exhausted")


def test_the_sdk_recovers_from_a_failure_that_ends(stage: Any) -> None:
    stage.faults(FaultRule("status", status=503, first=1, retry_after_ms=1))
    answer = stage.openai.with_options(max_retries=1).chat.completions.create(**ask())
    assert answer.usage.completion_tokens == 20
    assert [line.status for line in stage.lines()] == [503, 200]


@pytest.mark.parametrize("bill", ["none", "full"])
def test_a_reset_before_headers_is_a_connection_error(stage: Any, bill: Any) -> None:
    stage.faults(FaultRule("reset", bill=bill))
    with pytest.raises(openai.APIConnectionError):
        chat(stage)
    line = stage.line()
    assert (line.reason, line.cost_nanos) == ("error", FULL_NANOS if bill == "full" else 0)


@pytest.mark.parametrize("clean", [False, True])
def test_a_stream_may_be_cut_after_some_chunks(stage: Any, clean: bool) -> None:
    stage.faults(FaultRule("reset_after_chunks", chunks=5, clean=clean))
    seen = 0
    with pytest.raises(openai.APIConnectionError):
        for chunk in chat(stage, stream=True):
            seen += bool(chunk.choices[0].delta.content)
    # A reset may overtake what was written before it, a clean end may not.
    assert seen == 5 if clean else seen <= 5
    line = stage.line()
    assert (line.reason, line.billed, line.tokens.output) == ("error", "streamed", 5)
    assert line.cost_nanos == INPUT_NANOS + 5 * 400


def test_a_body_may_be_cut_in_its_middle_and_is_billed_whole(stage: Any) -> None:
    stage.faults(FaultRule("reset_after_chunks", clean=True))
    with pytest.raises(openai.APIConnectionError):
        chat(stage)
    assert stage.line().cost_nanos == FULL_NANOS


@pytest.mark.parametrize("bill", [None, "none", "input"])
def test_a_call_that_is_never_answered_costs_what_the_rule_says(stage: Any, bill: Any) -> None:
    stage.faults(FaultRule("hang", bill=bill))
    with pytest.raises(openai.APITimeoutError):
        stage.openai.with_options(timeout=0.1).chat.completions.create(**ask())
    line = stage.line()
    assert line.reason == "timeout"
    assert line.cost_nanos == {None: FULL_NANOS, "none": 0, "input": INPUT_NANOS}[bill]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_hangs_for_a_while_is_answered_after_it(stage: Any, stream: bool) -> None:
    stage.faults(FaultRule("hang", seconds=0.01), FaultRule("stall", chunks=3, seconds=0.01))
    answer = stage.raw("POST", "/v1/chat/completions", ask(stream=stream))
    assert answer.status == 200
    assert (stage.line().reason, stage.line().cost_nanos) == ("ok", FULL_NANOS)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stalled_answer_is_billed_when_its_client_gives_up(stage: Any, stream: bool) -> None:
    stage.faults(FaultRule("stall", chunks=3, bill="streamed"))
    got = b""
    with stage.socket(ask(stream=stream)) as client:
        while (content_chunks(got) < 3) if stream else (b"\r\n\r\n" not in got):
            got += client.recv(65_536)
    line = stage.line()
    assert (line.reason, line.tokens.output) == ("timeout", 3 if stream else 0)


def content_chunks(stream: bytes) -> int:
    """How many chunks of a stream carry text; the first one says only who speaks."""
    return stream.count(b'"content":"') - stream.count(b'"content":""')


@pytest.mark.parametrize("rule", [FaultRule("slow", ttft_seconds=60), FaultRule("slow", chunk_seconds=60)])
def test_slowness_outlasts_an_impatient_client_and_is_billed(stage: Any, rule: FaultRule) -> None:
    stage.faults(rule)
    with pytest.raises(openai.APITimeoutError):
        list(stage.openai.with_options(timeout=0.2).chat.completions.create(**ask(stream=True)))
    assert (stage.line().reason, stage.line().cost_nanos) == ("disconnect", FULL_NANOS)


def test_a_slow_stream_is_the_same_stream(stage: Any) -> None:
    quick = [chunk.choices[0].delta for chunk in chat(stage, stream=True)]
    stage.faults(FaultRule("slow", ttft_seconds=0.001, chunk_seconds=0.001))
    assert [chunk.choices[0].delta for chunk in chat(stage, stream=True)] == quick


def test_an_error_event_ends_a_stream_after_its_200(stage: Any) -> None:
    stage.faults(FaultRule("error_event", chunks=2))
    seen = 0
    with pytest.raises(openai.APIError) as from_openai:
        for chunk in chat(stage, stream=True):
            seen += bool(chunk.choices[0].delta.content)
    with pytest.raises(anthropic.APIStatusError) as from_anthropic:
        list(message(stage, stream=True))
    assert seen == 2 and from_openai.value.type == "server_error"
    assert from_anthropic.value.body["error"]["type"] == "overloaded_error"
    assert [(line.status, line.reason, line.tokens.output) for line in stage.lines()] == [(200, "error", 2)] * 2


def test_an_error_object_may_come_with_status_200(stage: Any) -> None:
    stage.faults(FaultRule("error_in_200", bill="input"))
    answer = stage.raw("POST", "/v1/chat/completions", ask())
    assert answer.status == 200 and "error" in answer.json()
    assert stage.line().cost_nanos == INPUT_NANOS


def final_usages(stage: Any) -> list[Any]:
    """What usage the four ways of asking show."""
    streamed = list(chat(stage, stream=True, stream_options={"include_usage": True}))
    with stage.anthropic.messages.stream(**ask_anthropic()) as stream:
        final = stream.get_final_message()
    return [chat(stage).usage, streamed[-1].usage, message(stage).usage, final.usage]


def test_usage_may_be_left_out_and_is_billed_all_the_same(stage: Any) -> None:
    stage.faults(FaultRule("no_usage"))
    assert chat(stage).usage is None
    assert not any(chunk.usage for chunk in chat(stage, stream=True, stream_options={"include_usage": True}))
    headers = {"x-api-key": "sk-ant-standin", "anthropic-version": "2023-06-01"}
    for streams in (False, True):
        assert b'"usage"' not in stage.raw("POST", "/v1/messages", ask_anthropic(stream=streams), headers).body
    assert [line.cost_nanos for line in stage.lines()] == [FULL_NANOS, FULL_NANOS, 200_000, 200_000]


def test_usage_may_be_zero_and_is_billed_all_the_same(stage: Any) -> None:
    stage.faults(FaultRule("zero_usage"))
    usages = final_usages(stage)
    assert [usage.prompt_tokens + usage.completion_tokens for usage in usages[:2]] == [0, 0]
    assert [usage.input_tokens + usage.output_tokens for usage in usages[2:]] == [0, 0]
    assert all(line.cost_nanos in (FULL_NANOS, 200_000) for line in stage.lines())


def test_usage_may_come_twice_in_a_stream(stage: Any) -> None:
    stage.faults(FaultRule("double_usage"))
    chunks = list(chat(stage, stream=True, stream_options={"include_usage": True}))
    events = list(message(stage, stream=True))
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [20, 20]
    assert [event.usage.output_tokens for event in events if event.type == "message_delta"] == [20, 20]
    assert [line.tokens.output for line in stage.lines()] == [20, 20]


def test_usage_may_lie_beyond_all_physics_and_the_invoice_does_not(stage: Any) -> None:
    stage.faults(FaultRule("lying_usage"))
    assert chat(stage, max_tokens=30).usage.completion_tokens == 10 * 16_384
    stage.faults(FaultRule("lying_usage", input_tokens=7, output_tokens=8))
    assert message(stage).usage.output_tokens == 8
    claimed = [{"role": "user", "content": "[[in=99999]] short"}]
    stage.faults(FaultRule("lying_usage"))
    assert stage.openai.chat.completions.create(model="small-1", messages=claimed).usage.prompt_tokens == 99_999
    assert [line.tokens.prompt for line in stage.lines()] == [100, 100, 16]
    assert [line.tokens.output for line in stage.lines()] == [20, 20, 16]


def test_hidden_tokens_are_billed_unseen_and_stay_within_the_maximum(stage: Any) -> None:
    stage.faults(FaultRule("hidden_tokens", tokens=50))
    assert chat(stage).usage.completion_tokens == 20
    assert chat(stage, max_tokens=30).usage.completion_tokens == 20
    assert [line.cost_nanos for line in stage.lines()] == [FULL_NANOS + 50 * 400, FULL_NANOS + 10 * 400]


@pytest.mark.parametrize(("ttl", "nanos"), [("5m", 60 * 1000 + 40 * 1250), ("1h", 60 * 1000 + 40 * 2000)])
def test_cache_writes_may_happen_unasked(stage: Any, ttl: Any, nanos: int) -> None:
    stage.faults(FaultRule("cache_writes", tokens=40, ttl=ttl))
    usage = message(stage).usage
    assert (usage.input_tokens, usage.cache_creation_input_tokens) == (60, 40)
    assert getattr(usage.cache_creation, f"ephemeral_{ttl}_input_tokens") == 40
    assert stage.line().cost_nanos == nanos + 20 * 5000
    assert chat(stage).usage.prompt_tokens_details.cache_write_tokens == 40


def test_thinking_may_be_reported_beside_the_completion(stage: Any) -> None:
    stage.faults(FaultRule("reasoning_outside", tokens=30))
    usage = chat(stage).usage
    assert (usage.completion_tokens, usage.completion_tokens_details.reasoning_tokens) == (20, 30)
    assert usage.total_tokens == 100 + 20 + 30
    assert message(stage).usage.output_tokens_details.thinking_tokens == 30
    assert [line.cost_nanos for line in stage.lines()] == [FULL_NANOS + 30 * 400, 100 * 1000 + 50 * 5000]


def test_a_tool_fee_comes_on_top(stage: Any) -> None:
    stage.faults(FaultRule("tool_fee", fee_nanos=10_000_000))
    chat(stage)
    assert message(stage).usage.server_tool_use.web_search_requests == 1
    assert [line.cost_nanos for line in stage.lines()] == [FULL_NANOS + 10_000_000, 200_000 + 10_000_000]
    assert [line.fees_nanos for line in stage.lines()] == [10_000_000] * 2


def test_a_tier_may_be_served_and_billed_that_nobody_asked_for(stage: Any) -> None:
    stage.faults(FaultRule("tier_upgrade"))
    assert chat(stage, model="gpt-4o-mini").service_tier == "priority"
    stage.faults(FaultRule("tier_upgrade", price_percent=200))
    assert message(stage).usage.service_tier == "priority"
    assert [line.service_tier for line in stage.lines()] == ["priority"] * 2
    assert [line.cost_nanos for line in stage.lines()] == [100 * 250 + 20 * 1000, 2 * 200_000]


def test_free_operations_fail_where_a_rule_names_their_path(stage: Any) -> None:
    stage.faults(FaultRule("status", status=500, path="/v1/m*"))
    with pytest.raises(openai.InternalServerError):
        stage.openai.models.list()
    with pytest.raises(anthropic.InternalServerError):
        stage.anthropic.messages.count_tokens(model="small-1", messages=ask()["messages"])
    assert chat(stage).usage.completion_tokens == 20


def test_embeddings_have_faults_too(stage: Any) -> None:
    stage.faults(FaultRule("no_usage", first=1), FaultRule("status", status=500, after=1, bill="full"))
    body = {"model": "text-embedding-3-small", "input": "[[in=100]]" + "x" * 100}
    answers = [stage.raw("POST", "/v1/embeddings", body) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 500]
    assert "usage" not in json.loads(answers[0].body)
    assert [line.cost_nanos for line in stage.lines()] == [2000, 2000]
