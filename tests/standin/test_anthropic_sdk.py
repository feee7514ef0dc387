"""The official Anthropic SDK is served as by the real host."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

TOOL: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}


def ask(text: Any, **more: Any) -> Any:
    return {"model": "claude-haiku-4-5", "max_tokens": 4096, "messages": [{"role": "user", "content": text}], **more}


def test_a_message_has_the_tokens_that_the_prompt_asks_for(stage: Any) -> None:
    answer = stage.anthropic.messages.create(**ask("hello [[out=7]]"))
    assert answer.usage.output_tokens == 7
    assert len(answer.content[0].text.split()) == 7
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.model == "claude-haiku-4-5-20251001"
    assert answer.usage.service_tier == "standard"


def test_a_stream_has_every_event_in_order(stage: Any) -> None:
    answer = stage.raw(
        "POST",
        "/v1/messages",
        ask("x [[out=2]]", stream=True),
        {"x-api-key": "sk-ant-standin", "anthropic-version": "2023-06-01"},
    )
    names = [line.removeprefix("event: ") for line in answer.body.decode().splitlines() if line.startswith("event: ")]
    assert names == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_a_stream_adds_up_to_the_message(stage: Any) -> None:
    arguments = ask("same [[out=9]]", thinking=THINKING)
    whole = stage.anthropic.messages.create(**arguments)
    with stage.anthropic.messages.stream(**arguments) as stream:
        streamed = stream.get_final_message()
    assert streamed.content[0] == whole.content[0]
    assert streamed.content[1].text == whole.content[1].text
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert streamed.usage.output_tokens == whole.usage.output_tokens == 9 + 8
    assert streamed.usage.output_tokens_details == whole.usage.output_tokens_details


def test_usage_in_a_stream_is_cumulative(stage: Any) -> None:
    events = list(stage.anthropic.messages.create(**ask("x [[out=5]]"), stream=True))
    first, last = events[0].message.usage, events[-2].usage
    assert (first.output_tokens, last.output_tokens) == (1, 5)
    assert first.input_tokens == last.input_tokens > 0


def test_a_tool_is_used_where_the_request_asks(stage: Any) -> None:
    arguments = ask("[[tool]]", tools=[TOOL])
    whole = stage.anthropic.messages.create(**arguments)
    with stage.anthropic.messages.stream(**arguments) as stream:
        streamed = stream.get_final_message()
    forced = stage.anthropic.messages.create(**ask("go", tools=[TOOL], tool_choice={"type": "any"}))
    assert whole.stop_reason == streamed.stop_reason == forced.stop_reason == "tool_use"
    assert whole.content[0].name == "weather" and list(whole.content[0].input) == ["city"]
    assert streamed.content[0].input == whole.content[0].input
    assert stage.anthropic.messages.create(**ask("go", tools=[TOOL])).stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens_and_stop_sequences_end_an_answer(stage: Any, stream: bool) -> None:
    def answer(arguments: Any) -> Any:
        if not stream:
            return stage.anthropic.messages.create(**arguments)
        with stage.anthropic.messages.stream(**arguments) as running:
            return running.get_final_message()

    cut = answer(ask("[[out=50]]", max_tokens=5))
    word = cut.content[0].text.split()[2]
    stopped = answer(ask("[[out=50]]", stop_sequences=[word]))
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 5)
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)


def test_a_marked_prefix_is_written_once_and_then_read(stage: Any) -> None:
    mark = {"type": "ephemeral"}
    system = [{"type": "text", "text": "s" * 8000, "cache_control": mark}]
    first = stage.anthropic.messages.create(**ask("one", system=system)).usage
    second = stage.anthropic.messages.create(**ask("another", system=system)).usage
    assert first.cache_creation.ephemeral_5m_input_tokens == first.cache_creation_input_tokens > 1900
    assert (first.cache_read_input_tokens, second.cache_creation_input_tokens) == (0, 0)
    assert second.cache_read_input_tokens == pytest.approx(first.cache_creation_input_tokens, rel=0.01)
    assert 0 < second.input_tokens < 60


def test_cache_writes_are_told_apart_by_their_lifetime(stage: Any) -> None:
    hour, minutes = {"type": "ephemeral", "ttl": "1h"}, {"type": "ephemeral", "ttl": "5m"}
    system = [
        {"type": "text", "text": "a" * 8000, "cache_control": hour},
        {"type": "text", "text": "b" * 4000, "cache_control": minutes},
    ]
    written = stage.anthropic.messages.create(**ask("x", system=system)).usage.cache_creation
    assert written.ephemeral_1h_input_tokens > 1900
    assert 900 < written.ephemeral_5m_input_tokens < 1100


def test_counting_tokens_agrees_with_the_message_and_is_free(stage: Any) -> None:
    arguments = ask("hello", system="be short", tools=[TOOL])
    counted = stage.anthropic.messages.count_tokens(
        **{name: value for name, value in arguments.items() if name != "max_tokens"}
    )
    assert stage.lines() == ()
    assert stage.anthropic.messages.create(**arguments).usage.input_tokens == counted.input_tokens


def test_models_are_listed_in_anthropics_shape_on_the_same_port(stage: Any) -> None:
    names = [model.id for model in stage.anthropic.models.list()]
    assert {"small-1", "claude-sonnet-4-5"} <= set(names)
    assert not any(name.startswith("gpt") for name in names)
    assert stage.anthropic.models.retrieve("claude-haiku-4-5").max_tokens == 64_000
    with pytest.raises(anthropic.NotFoundError):
        stage.anthropic.models.retrieve("gpt-4.1")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "claude-0"}, anthropic.NotFoundError),
        ({"messages": []}, anthropic.BadRequestError),
        ({"max_tokens": 99_999}, anthropic.BadRequestError),
        ({"extra_body": {"n": 2}}, anthropic.BadRequestError),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, anthropic.BadRequestError),
        ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, anthropic.BadRequestError),
        ({"messages": [{"role": "user", "content": "[[in=200001]]" + "x" * 200_001}]}, anthropic.BadRequestError),
    ],
)
def test_what_the_real_host_refuses_is_refused(stage: Any, change: Any, error: Any) -> None:
    with pytest.raises(error) as caught:
        stage.anthropic.messages.create(**{**ask("x"), **change})
    assert caught.value.body["type"] == "error"
    assert caught.value.body["request_id"] == caught.value.request_id
    assert all(line.cost_nanos == 0 for line in stage.lines())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"anthropic-version": "2023-06-01"}, 401),
        ({"x-api-key": "sk-ant-wrong", "anthropic-version": "2023-06-01"}, 401),
        ({"x-api-key": "sk-ant-standin"}, 400),
        ({"x-api-key": "sk-ant-standin", "anthropic-version": "2023-06-01"}, 200),
        ({"authorization": "Bearer sk-ant-standin", "anthropic-version": "2023-06-01"}, 200),
    ],
)
def test_a_request_needs_a_key_and_a_version(stage: Any, headers: Any, status: int) -> None:
    assert stage.raw("POST", "/v1/messages", ask("x"), headers).status == status


def test_max_tokens_is_required(stage: Any) -> None:
    headers = {"x-api-key": "sk-ant-standin", "anthropic-version": "2023-06-01"}
    body = {name: value for name, value in ask("x").items() if name != "max_tokens"}
    answer = stage.raw("POST", "/v1/messages", body, headers)
    assert answer.json()["error"] == {"type": "invalid_request_error", "message": "max_tokens: Field required"}
