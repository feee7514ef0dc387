"""Scanners: usage out of bodies and streams as providers (and broken ones) write them."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from spendmesh_sidecar.core.operations import parse
from spendmesh_sidecar.core.types import Usage
from spendmesh_sidecar.core.usage.scanners import Observation, scanner
from spendmesh_sidecar.core.usage.sse import MAX_EVENT_BYTES, Event, EventReader

CHAT = parse("POST", "/openai/v1/chat/completions").operation
EMBEDDINGS = parse("POST", "/openai/v1/embeddings").operation
MESSAGES = parse("POST", "/anthropic/v1/messages").operation
COUNT = parse("POST", "/anthropic/v1/messages/count_tokens").operation

OPENAI_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 5, "rejected_prediction_tokens": 2},
}
OPENAI_COUNTS = Usage(
    input_tokens=60, cache_read_tokens=30, cache_write_tokens=10, output_tokens=20, reasoning_tokens=5
)
ANTHROPIC_USAGE = {
    "input_tokens": 60,
    "cache_read_input_tokens": 30,
    "cache_creation_input_tokens": 10,
    "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
    "output_tokens": 20,
    "output_tokens_details": {"thinking_tokens": 5},
    "service_tier": "standard",
}
ANTHROPIC_COUNTS = Usage(
    input_tokens=60,
    cache_read_tokens=30,
    cache_write_tokens=4,
    cache_write_long_tokens=6,
    output_tokens=20,
    reasoning_tokens=5,
    service_tier="standard",
)


def stream(*events: Any, end: str = "\n\n") -> bytes:
    """OpenAI events: objects and bare strings."""
    texts = (event if isinstance(event, str) else json.dumps(event) for event in events)
    return "".join(f"data: {text}{end}" for text in texts).encode()


def delta(text: str, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "m-1", "service_tier": "default", "choices": [choice], "usage": None}


def usage_chunk(usage: dict[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "model": "m-1", "choices": [], "usage": usage}


def named(*events: dict[str, Any]) -> bytes:
    """Anthropic events, each with its name."""
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def message_start(usage: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": "msg_1", "model": "c-1", "content": [], "usage": usage}}


def text_delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def message_delta(usage: dict[str, Any] | None, reason: str | None = "end_turn") -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def observe(operation: Any, data: bytes, streamed: bool = True, long_cache: bool = False) -> Observation:
    eyes = scanner(operation, streamed, long_cache)
    eyes.feed(data)
    return eyes.observe()


# --- OpenAI streams ---------------------------------------------------------------------------------------


def test_an_openai_stream_with_its_usage_chunk() -> None:
    data = stream(delta("Hé"), delta("llo", "stop"), usage_chunk(OPENAI_USAGE), "[DONE]")
    assert observe(CHAT, data) == Observation(
        usage=Usage(**{**{f: getattr(OPENAI_COUNTS, f) for f in Usage.__slots__}, "service_tier": "default"}),
        complete=True,
        output_bytes=6,
        finish_reasons=("stop",),
        response_id="chatcmpl-1",
        response_model="m-1",
    )


USED = usage_chunk(OPENAI_USAGE)
RUNNING = [
    {**delta("a"), "usage": {"prompt_tokens": 100, "completion_tokens": 1}},
    {**delta("b", "stop"), "usage": {"prompt_tokens": 100, "completion_tokens": 2}},
]


def with_usage(**counts: Any) -> bytes:
    """A whole stream whose usage chunk has these counts."""
    return stream(delta("a", "stop"), usage_chunk(counts), "[DONE]")


@pytest.mark.parametrize(
    ("name", "data", "complete", "output"),
    [
        ("no usage", stream(delta("a", "stop"), "[DONE]"), True, None),
        ("no [DONE] but usage after the end", stream(delta("a", "stop"), USED), True, 20),
        ("no [DONE], usage before the end", stream(USED, delta("a", "stop")), False, 20),
        ("no [DONE], one of two choices", stream(delta("a"), delta("b", "stop", 1), USED), False, 20),
        ("cut before the end", stream(delta("a"), delta("b")), False, None),
        ("cut inside the usage chunk", stream(delta("a", "stop")) + b'data: {"choices":[],"usage":{"prom', False, None),
        ("[DONE] without its newline", stream(delta("a", "stop"), USED) + b"data: [DONE]", True, 20),
        ("usage twice", stream(delta("a", "stop"), USED, USED, "[DONE]"), True, 20),
        ("running usage is cumulative", stream(*RUNNING, "[DONE]"), True, 2),
        ("zero usage", with_usage(prompt_tokens=0, completion_tokens=0), True, 0),
        ("data after [DONE]", stream(delta("a", "stop"), USED, "[DONE]", "noise", delta("b")), True, 20),
        ("garbage between", b"data: {nonsense\n\n\xff\xfe\n" + stream(delta("a", "stop"), USED, "[DONE]"), True, 20),
        ("not counts", with_usage(prompt_tokens="7", completion_tokens=-1), True, None),
        ("absurd counts", with_usage(prompt_tokens=10**30, completion_tokens=4), True, 4),
    ],
)
def test_openai_streams_that_are_not_as_they_should_be(
    name: str, data: bytes, complete: bool, output: int | None
) -> None:
    """Row 20 of the matrix in part: no usage, usage twice, zero usage, cuts, data after the end."""
    seen = observe(CHAT, data)
    assert seen.complete is complete
    assert (seen.usage.output_tokens if seen.usage else None) == output


def test_an_error_inside_a_200_is_never_complete() -> None:
    failed = stream(delta("a"), {"error": {"message": "m", "type": "server_error", "code": "internal_error"}}, "[DONE]")
    seen = observe(CHAT, failed)
    assert (seen.error_code, seen.complete) == ("internal_error", False)
    event = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"m"}}\n\n'
    seen = observe(MESSAGES, named(message_start(ANTHROPIC_USAGE), text_delta("a")) + event)
    assert (seen.error_code, seen.complete) == ("overloaded_error", False)
    body = b'{"error":{"message":"secret prompt","type":"bad things happen","code":null}}'
    seen = observe(CHAT, body, streamed=False)
    assert (seen.error_code, seen.complete) == ("error", False)


def test_reasoning_outside_the_completion_count_is_output() -> None:
    """Some servers report thinking beside the completion; the total, or its size, gives it away."""
    by_total = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40}
    by_size = {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 25}}
    for usage in (by_total, by_size):
        seen = observe(CHAT, stream(delta("a", "stop"), usage_chunk(usage), "[DONE]"))
        assert seen.usage is not None
        assert seen.usage.output_tokens == 30
    outside = {"input_tokens": 1, "output_tokens": 5, "output_tokens_details": {"thinking_tokens": 25}}
    seen = observe(MESSAGES, named(message_start({}), message_delta(outside), {"type": "message_stop"}))
    assert seen.usage is not None
    assert seen.usage.output_tokens == 30


def test_tool_calls_are_output_too() -> None:
    calls = {"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a":1}'}}]}}
    assert observe(CHAT, stream({"choices": [calls]})).output_bytes == 7
    partial = {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"a":'}}
    assert observe(MESSAGES, named(partial)).output_bytes == 5


# --- framing ----------------------------------------------------------------------------------------------

PLAIN = stream(delta("Hé"), delta("llo", "stop"), usage_chunk(OPENAI_USAGE), "[DONE]")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("crlf", PLAIN.replace(b"\n", b"\r\n")),
        ("cr", PLAIN.replace(b"\n", b"\r")),
        ("no space", PLAIN.replace(b"data: ", b"data:")),
        ("comments", b": OPENROUTER PROCESSING\n\n" + PLAIN.replace(b"\n\n", b"\n:x\n\n: keep-alive\n\n")),
        ("other fields", PLAIN.replace(b"data: ", b"id: 1\nretry: 5\nevent: message\ndata: ")),
        ("data in two lines", PLAIN.replace(b'"choices"', b'\ndata: "choices"')),
        ("spaces in JSON", PLAIN.replace(b'"usage":', b'"usage"  :  ')),
        ("escaped names", PLAIN.replace(b'"usage"', b'"us\\u0061ge"')),
        ("empty lines", b"\n\n\n" + PLAIN),
    ],
)
def test_row_24_any_framing_of_a_stream(name: str, data: bytes) -> None:
    """Row 24: CR, LF, CRLF, comments, odd JSON: the same observation, also byte by byte (split UTF-8 too)."""
    expected = observe(CHAT, PLAIN)
    assert observe(CHAT, data) == expected
    eyes = scanner(CHAT, True)
    for place in range(len(data)):
        eyes.feed(data[place : place + 1])
    assert eyes.observe() == expected


def test_row_24_a_line_of_100_mb_does_not_grow_memory() -> None:
    """Row 24: what is too long to look at is passed over; what comes after it is seen."""
    eyes = scanner(CHAT, True)
    piece = b"x" * 65_536
    tracemalloc.start()
    eyes.feed(b'data: {"junk":"')
    for _ in range(100 * 16):
        eyes.feed(piece)
    eyes.feed(b'"}\n\n')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MAX_EVENT_BYTES
    eyes.feed(PLAIN)
    assert eyes.observe().usage is not None
    assert eyes.observe().complete


@pytest.mark.parametrize("line", [b"data:\n", b"data: \r\n"])
def test_an_event_of_nothing_but_empty_lines_is_bounded_too(line: bytes) -> None:
    """Each takes memory though it says nothing."""
    reader = EventReader()
    for _ in range(MAX_EVENT_BYTES // 500):
        reader.feed(line * 100)

    assert reader.dropped == 1
    assert reader.feed(b"\ndata: {}\n\n") == [Event(b"", b"{}")]


def test_asking_before_the_end_changes_nothing() -> None:
    closing = message_delta({"output_tokens": 20})
    message = named(message_start(ANTHROPIC_USAGE), text_delta("abc"), closing, {"type": "message_stop"})
    for operation, data in ((CHAT, PLAIN), (MESSAGES, message)):
        curious, plain = scanner(operation, True), scanner(operation, True)
        for place in range(len(data)):
            curious.feed(data[place : place + 1])
            curious.observe()
        plain.feed(data)
        assert curious.observe() == plain.observe()


# --- Anthropic streams ------------------------------------------------------------------------------------


def test_an_anthropic_stream() -> None:
    start = {**ANTHROPIC_USAGE, "output_tokens": 1, "output_tokens_details": None}
    final = {"output_tokens": 20, "output_tokens_details": {"thinking_tokens": 5}, "input_tokens": None}
    data = named(
        message_start(start),
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        text_delta("Hé"),
        {"type": "content_block_stop", "index": 0},
        message_delta(final),
        {"type": "message_stop"},
    )
    assert observe(MESSAGES, data) == Observation(
        usage=ANTHROPIC_COUNTS,
        complete=True,
        output_bytes=3,
        finish_reasons=("end_turn",),
        response_id="msg_1",
        response_model="c-1",
    )


def test_anthropic_usage_is_cumulative_and_never_added() -> None:
    """Several deltas, input repeated in the last one, cache counts only there: of each field the largest stands."""
    data = named(
        message_start({"input_tokens": 0, "output_tokens": 2}),
        message_delta({"output_tokens": 9}, None),
        message_delta({"output_tokens": 20, "input_tokens": 60, "cache_read_input_tokens": 30}),
        {"type": "message_stop"},
    )
    seen = observe(MESSAGES, data)
    assert seen.usage == Usage(input_tokens=60, cache_read_tokens=30, output_tokens=20)


def test_where_an_anthropic_stream_is_complete() -> None:
    opening = [message_start(ANTHROPIC_USAGE), text_delta("a")]
    assert not observe(MESSAGES, named(*opening)).complete
    assert not observe(MESSAGES, named(*opening, message_delta({"output_tokens": 3}, None))).complete
    assert not observe(MESSAGES, named(*opening, message_delta(None))).complete
    assert observe(MESSAGES, named(*opening, message_delta({"output_tokens": 3}))).complete
    assert observe(MESSAGES, named(*opening, {"type": "message_stop"})).complete


def test_cache_writes_without_a_lifetime_are_read_as_the_dearest_asked() -> None:
    usage = {"input_tokens": 5, "output_tokens": 1, "cache_creation_input_tokens": 10}
    data = named(message_start(usage), message_delta({"output_tokens": 1}), {"type": "message_stop"})
    short, long = observe(MESSAGES, data).usage, observe(MESSAGES, data, long_cache=True).usage
    assert short is not None
    assert long is not None
    assert (short.cache_write_tokens, short.cache_write_long_tokens) == (10, 0)
    assert (long.cache_write_tokens, long.cache_write_long_tokens) == (0, 10)


def test_fast_mode_is_the_tier_that_served() -> None:
    usage = {"input_tokens": 5, "output_tokens": 1, "service_tier": "standard", "speed": "fast"}
    seen = observe(MESSAGES, json.dumps({"content": [], "usage": usage}).encode(), streamed=False)
    assert seen.usage is not None
    assert seen.usage.service_tier == "fast"


# --- whole bodies -----------------------------------------------------------------------------------------


def test_whole_bodies() -> None:
    chat = {
        "id": "chatcmpl-1",
        "model": "m-1",
        "service_tier": "priority",
        "choices": [
            {"index": 0, "message": {"content": "Hé", "refusal": None}, "finish_reason": "stop"},
            {"index": 1, "message": {"content": None, "tool_calls": [{"function": {"arguments": "{}"}}]}},
        ],
        "usage": OPENAI_USAGE,
    }
    seen = observe(CHAT, json.dumps(chat).encode(), streamed=False)
    assert (seen.complete, seen.output_bytes, seen.finish_reasons, seen.response_id) == (
        True,
        5,
        ("stop",),
        "chatcmpl-1",
    )
    assert seen.usage is not None
    assert (seen.usage.service_tier, seen.usage.total_input_tokens) == ("priority", 100)
    message = {
        "id": "msg_1",
        "model": "c-1",
        "stop_reason": "tool_use",
        "content": [{"type": "text", "text": "abc"}, {"type": "tool_use", "input": {"a": 1}}],
        "usage": ANTHROPIC_USAGE,
    }
    seen = observe(MESSAGES, json.dumps(message).encode(), streamed=False)
    assert (seen.usage, seen.complete, seen.output_bytes) == (ANTHROPIC_COUNTS, True, 10)
    assert seen.finish_reasons == ("tool_use",)


@pytest.mark.parametrize("long", [False, True])
def test_embeddings_of_any_length(long: bool) -> None:
    """A body that is too long to keep is judged by its ends, wherever usage stands."""
    vector = "0.0123456789," * (600_000 if long else 3) + "0.5"
    usage = '"usage":{"prompt_tokens":7,"total_tokens":7}'
    body = f'{{"object":"list","data":[{{"embedding":[{vector}]}}],"model":"e-1",{usage}}}'
    eyes = scanner(EMBEDDINGS, False)
    for place in range(0, len(body), 65_536):
        eyes.feed(body[place : place + 65_536].encode())
    seen = eyes.observe()
    assert (seen.usage, seen.complete, seen.response_model) == (Usage(input_tokens=7), True, "e-1")
    first = f'{{{usage},"model":"e-1","data":[{{"embedding":[{vector}]}}]}}'
    seen = observe(EMBEDDINGS, first.encode(), streamed=False)
    assert (seen.usage, seen.complete) == (Usage(input_tokens=7), True)
    assert not observe(EMBEDDINGS, body[:-30].encode(), streamed=False).complete
    assert not observe(EMBEDDINGS, first[:-40].encode(), streamed=False).complete


@pytest.mark.parametrize(
    "body", [b"", b"<html>busy</html>", b"[]", b'{"usage":', b'{"usage":{"prompt_tokens":1}}', b"\xff", b"null"]
)
def test_a_body_that_is_no_answer_is_not_complete(body: bytes) -> None:
    assert not observe(CHAT, body, streamed=False).complete


def test_usage_inside_what_the_model_wrote_is_text() -> None:
    trick = '{"usage": {"prompt_tokens": 0, "completion_tokens": 0}}'
    body = json.dumps({"choices": [{"index": 0, "message": {"content": trick}}]}).encode()
    assert observe(CHAT, body, streamed=False).usage is None
    assert observe(CHAT, stream(delta(trick, "stop"), "[DONE]")).usage is None


def test_free_operations_have_no_usage() -> None:
    assert observe(COUNT, b'{"input_tokens": 5}', streamed=False) == Observation(complete=True)


def test_row_31_identifiers_of_a_provider_are_plain_or_nothing() -> None:
    """Row 31 in part: what goes to spans is an identifier, never text."""
    seen = observe(CHAT, stream({**delta("a", "a prompt\n"), "id": "my secret prompt", "model": "m" * 200}))
    assert (seen.response_id, seen.response_model, seen.finish_reasons) == ("", "", ("",))
