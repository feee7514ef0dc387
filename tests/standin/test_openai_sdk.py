"""The official OpenAI SDK is served as by the real host."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


def say(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_a_completion_has_the_tokens_that_the_prompt_asks_for(stage: Any) -> None:
    answer = stage.openai.chat.completions.create(model="gpt-4o-mini", messages=say("hello [[out=7]]"))
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 7
    assert len((answer.choices[0].message.content or "").split()) == 7
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-4o-mini-2024-07-18"


def test_a_prompt_counts_as_a_quarter_of_its_bytes_or_as_it_says(stage: Any) -> None:
    counted = stage.openai.chat.completions.create(model="small-1", messages=say("é" * 100))
    said = stage.openai.chat.completions.create(model="small-1", messages=say("[[in=300]]" + "x" * 300))
    # {"messages":[{"role":"user","content":"…"}]} is 44 bytes, and é is two.
    assert counted.usage.prompt_tokens == (44 + 200) / 4
    assert said.usage.prompt_tokens == 300


def test_a_prompt_cannot_have_more_tokens_than_bytes(stage: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="at least one byte"):
        stage.openai.chat.completions.create(model="small-1", messages=say("[[in=3000]] short"))


def test_a_stream_says_the_same_as_the_completion(stage: Any) -> None:
    arguments: Any = {"model": "small-1", "messages": say("same [[out=9]]")}
    whole = stage.openai.chat.completions.create(**arguments)
    chunks = list(stage.openai.chat.completions.create(**arguments, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert len(chunks) == 1 + 9 + 1
    assert len({c.id for c in chunks}) == 1


def test_usage_comes_in_a_last_chunk_without_choices_and_only_when_asked_for(stage: Any) -> None:
    arguments: Any = {"model": "small-1", "messages": say("count [[out=3]]"), "stream": True}
    plain = list(stage.openai.chat.completions.create(**arguments))
    asked = list(stage.openai.chat.completions.create(**arguments, stream_options={"include_usage": True}))
    assert all(chunk.usage is None and chunk.choices for chunk in plain)
    assert asked[-1].choices == [] and asked[-1].usage.completion_tokens == 3
    assert all(chunk.usage is None for chunk in asked[:-1])


def test_every_event_of_a_stream_is_one_data_line_and_the_last_says_done(stage: Any) -> None:
    answer = stage.raw(
        "POST", "/v1/chat/completions", {"model": "small-1", "messages": say("x [[out=2]]"), "stream": True}
    )
    events = answer.body.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_the_output_maximum_ends_an_answer(stage: Any, field: str) -> None:
    answer = stage.openai.chat.completions.create(model="small-1", messages=say("[[out=50]]"), **{field: 5})
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "length"


def test_thinking_is_counted_within_the_completion_and_its_maximum(stage: Any) -> None:
    answer = stage.openai.chat.completions.create(
        model="gpt-5-mini", messages=say("[[reasoning=6]] [[out=50]]"), max_completion_tokens=10
    )
    assert answer.usage.completion_tokens_details.reasoning_tokens == 6
    assert answer.usage.completion_tokens == 10


def test_every_choice_is_counted(stage: Any) -> None:
    arguments: Any = {"model": "small-1", "messages": say("[[out=4]]"), "n": 3}
    whole = stage.openai.chat.completions.create(**arguments)
    texts = ["", "", ""]
    for chunk in stage.openai.chat.completions.create(**arguments, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert whole.usage.completion_tokens == 12
    assert [choice.message.content for choice in whole.choices] == texts


def test_a_stop_sequence_ends_the_answer_before_it(stage: Any) -> None:
    arguments: Any = {"model": "small-1", "messages": say("[[out=8]]")}
    words = stage.openai.chat.completions.create(**arguments).choices[0].message.content.split()
    stopped = stage.openai.chat.completions.create(**arguments, stop=[words[3]])
    assert stopped.choices[0].message.content.split() == words[: words.index(words[3])]
    assert stopped.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("text", "choice"),
    [("[[tool]]", "auto"), ("go", "required"), ("go", {"type": "function", "function": {"name": "weather"}})],
)
def test_a_function_is_called_where_the_request_asks(stage: Any, text: str, choice: Any) -> None:
    arguments: Any = {"model": "small-1", "messages": say(text), "tools": [TOOL], "tool_choice": choice}
    whole = stage.openai.chat.completions.create(**arguments).choices[0]
    call = whole.message.tool_calls[0]
    assert whole.finish_reason == "tool_calls" and call.function.name == "weather"
    assert sorted(json.loads(call.function.arguments)) == ["city", "days"]
    streamed = ""
    for chunk in stage.openai.chat.completions.create(**arguments, stream=True):
        for part in chunk.choices[0].delta.tool_calls or ():
            streamed += part.function.arguments or ""
    assert streamed == call.function.arguments


def test_a_function_is_not_called_unasked(stage: Any) -> None:
    answer = stage.openai.chat.completions.create(model="small-1", messages=say("go"), tools=[TOOL])
    assert answer.choices[0].message.tool_calls is None


def test_an_answer_fits_the_schema_that_was_asked_for(stage: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}, "kind": {"enum": ["a", "b"]}}}
    answer = stage.openai.chat.completions.create(
        model="small-1",
        messages=say("go"),
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    assert json.loads(answer.choices[0].message.content) == {"n": 7, "kind": "a"}


def test_log_probabilities_cover_every_token(stage: Any) -> None:
    arguments: Any = {"model": "small-1", "messages": say("[[out=3]]"), "logprobs": True, "top_logprobs": 1}
    whole = stage.openai.chat.completions.create(**arguments).choices[0]
    assert "".join(entry.token for entry in whole.logprobs.content) == whole.message.content
    streamed = [
        entry.token
        for chunk in stage.openai.chat.completions.create(**arguments, stream=True)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content
    ]
    assert "".join(streamed) == whole.message.content


def test_the_service_tier_in_the_answer_is_the_one_that_served(stage: Any) -> None:
    served = stage.openai.chat.completions.create(model="gpt-4o-mini", messages=say("x"), service_tier="priority")
    unknown = stage.openai.chat.completions.create(model="small-1", messages=say("x"), service_tier="priority")
    assert (served.service_tier, unknown.service_tier) == ("priority", "default")


def test_both_encodings_of_an_embedding_hold_the_same_unit_vector(stage: Any) -> None:
    floats = stage.openai.embeddings.create(model="text-embedding-3-small", input="a word", encoding_format="float")
    # Without a format the SDK asks for base64 and decodes it.
    decoded = stage.openai.embeddings.create(model="text-embedding-3-small", input="a word")
    assert list(decoded.data[0].embedding) == floats.data[0].embedding
    assert len(floats.data[0].embedding) == 1536
    assert sum(number * number for number in floats.data[0].embedding) == pytest.approx(1.0, abs=1e-5)


def test_embeddings_take_lists_tokens_and_dimensions(stage: Any) -> None:
    many = stage.openai.embeddings.create(model="text-embedding-3-small", input=["a", "bb", "ccc"], dimensions=8)
    tokens = stage.openai.embeddings.create(model="text-embedding-3-small", input=[[1, 2, 3], [4]])
    assert [len(item.embedding) for item in many.data] == [8, 8, 8]
    assert tokens.usage.prompt_tokens == tokens.usage.total_tokens == 4


def test_models_are_listed_and_found(stage: Any) -> None:
    names = [model.id for model in stage.openai.models.list()]
    assert {"small-1", "large-1", "gpt-4o-mini", "text-embedding-3-small"} <= set(names)
    assert not any(name.startswith("claude") for name in names)
    assert stage.openai.models.retrieve("gpt-4.1").object == "model"
    with pytest.raises(openai.NotFoundError):
        stage.openai.models.retrieve("gpt-0")


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"model": "gpt-0"}, openai.NotFoundError, "model_not_found"),
        ({"messages": []}, openai.BadRequestError, None),
        ({"max_tokens": 99_999}, openai.BadRequestError, None),
        ({"max_tokens": 5, "max_completion_tokens": 5}, openai.BadRequestError, "invalid_parameter_combination"),
        ({"model": "gpt-5-mini", "max_tokens": 5}, openai.BadRequestError, "unsupported_parameter"),
        ({"extra_body": {"spendmesh": 1}}, openai.BadRequestError, "unknown_parameter"),
        ({"n": 0}, openai.BadRequestError, None),
        ({"model": "text-embedding-3-small"}, openai.BadRequestError, None),
        ({"stream_options": {"include_usage": True}}, openai.BadRequestError, None),
        ({"messages": say("[[in=200000]]" + "x" * 200_000)}, openai.BadRequestError, "context_length_exceeded"),
    ],
)
def test_what_the_real_host_refuses_is_refused(stage: Any, change: Any, error: Any, code: str | None) -> None:
    arguments: Any = {"model": "small-1", "messages": say("x"), **change}
    with pytest.raises(error) as caught:
        stage.openai.chat.completions.create(**arguments)
    assert caught.value.code == code
    assert caught.value.request_id.startswith("req_")
    assert all(line.cost_nanos == 0 for line in stage.lines())


def test_a_wrong_key_is_refused_and_costs_nobody_anything(stage: Any) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        stage.openai.with_options(api_key="sk-canary-wrong").chat.completions.create(model="small-1", messages=say("x"))
    assert caught.value.code == "invalid_api_key"
    assert "canary" not in str(caught.value)
    assert stage.raw("GET", "/v1/models", headers={}).status == 401
    assert stage.lines() == ()


def test_answers_carry_the_headers_of_the_real_host(stage: Any) -> None:
    answer = stage.openai.chat.completions.with_raw_response.create(model="small-1", messages=say("x"))
    assert answer.headers["x-request-id"] == stage.line().id
    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["x-ratelimit-remaining-requests"]) > 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/responses", {}, 404),
        ("GET", "/v1/chat/completions", None, 405),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"[" * 100_000, 400),
        ("POST", "/v1/chat/completions", b"\xff\xfe", 400),
    ],
)
def test_what_is_no_request_gets_an_error_object(stage: Any, method: str, path: str, body: Any, status: int) -> None:
    answer = stage.raw(method, path, body)
    assert answer.status == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
