"""Laws of the wire: chunk borders mean nothing, a rewrite changes what it says, nobody reads a body differently."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings, strategies as st

from spendmesh_sidecar.core.operations import RequestError, parse, parse_request, rewrite
from spendmesh_sidecar.core.operations.strict_json import read_body
from spendmesh_sidecar.core.usage.scanners import UsageChunkFilter, scanner
from spendmesh_standin import tokens as standin_tokens

CHAT = parse("POST", "/openai/v1/chat/completions").operation
MESSAGES = parse("POST", "/anthropic/v1/messages").operation
EMBEDDINGS = parse("POST", "/openai/v1/embeddings").operation

counts = st.integers(0, 10**6)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
newlines = st.sampled_from(["\n", "\r\n", "\r"])


def cut(data: bytes, borders: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(border % (len(data) + 1) for border in borders)})
    return [data[start:end] for start, end in pairwise(places)]


# --- scanners ---------------------------------------------------------------------------------------------


@st.composite
def openai_streams(draw: st.DrawFn) -> bytes:
    events: list[Any] = []
    for text in draw(st.lists(texts, max_size=4)):
        finish = draw(st.sampled_from([None, None, "stop"]))
        events.append({"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})
    usage = {"prompt_tokens": draw(counts), "completion_tokens": draw(counts)}
    events += [{"choices": [], "usage": usage}] * draw(st.integers(0, 2))
    events += draw(st.sampled_from([[], ["[DONE]"], ["[DONE]", "noise"], [{"error": {"type": "server_error"}}]]))
    return draw(framed(events, named=False))


@st.composite
def anthropic_streams(draw: st.DrawFn) -> bytes:
    usage = {"input_tokens": draw(counts), "output_tokens": 1, "cache_read_input_tokens": draw(counts)}
    events: list[Any] = [{"type": "message_start", "message": {"id": "m", "usage": usage}}]
    events += [
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
        for text in draw(st.lists(texts, max_size=4))
    ]
    for reason in draw(st.lists(st.sampled_from([None, "end_turn"]), max_size=2)):
        delta_usage = {"output_tokens": draw(counts)}
        events.append({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": delta_usage})
    events += draw(
        st.sampled_from([[], [{"type": "message_stop"}], [{"type": "error", "error": {"type": "api_error"}}]])
    )
    return draw(framed(events, named=True))


@st.composite
def framed(draw: st.DrawFn, events: list[Any], named: bool) -> bytes:
    newline = draw(newlines)
    lines = []
    for event in events:
        if draw(st.booleans()):
            lines.append(": comment")
        if named:
            lines.append(f"event: {event['type']}")
        text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=draw(st.booleans()))
        lines += [f"data:{draw(st.sampled_from(['', ' ']))}{text}", ""]
    data = newline.join([*lines, ""]).encode()
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data


@given(st.one_of(openai_streams(), anthropic_streams(), st.binary(max_size=64)), st.lists(st.integers(0), max_size=20))
@settings(max_examples=300, deadline=None)
def test_scanners_see_the_same_for_any_chunking(data: bytes, borders: list[int]) -> None:
    for operation, streamed in ((CHAT, True), (MESSAGES, True), (CHAT, False), (MESSAGES, False)):
        whole, pieces = scanner(operation, streamed), scanner(operation, streamed)
        whole.feed(data)
        for piece in cut(data, borders):
            pieces.feed(piece)
        assert pieces.observe() == whole.observe() == whole.observe()


@given(openai_streams(), st.lists(st.integers(0), max_size=20))
@settings(max_examples=300, deadline=None)
def test_the_usage_filter_is_the_same_for_any_chunking_and_never_delays_an_event(
    data: bytes, borders: list[int]
) -> None:
    """At every border the client has all events that were complete, save the usage chunk, and nothing else."""
    whole = UsageChunkFilter()
    expected = whole.feed(data) + whole.end()
    pieces, sent, got = UsageChunkFilter(), b"", b""
    for piece in cut(data, borders):
        sent += piece
        got += pieces.feed(piece)
        fresh = UsageChunkFilter()
        assert got.rstrip(b"\n") == fresh.feed(sent).rstrip(b"\n")
    assert got + pieces.end() == expected
    *events, _ = expected.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
    assert not [event for event in events if b'"choices": [], "usage"' in event]


# --- bodies -----------------------------------------------------------------------------------------------

scalars = st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9), texts)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
free_members = st.dictionaries(
    st.sampled_from(["temperature", "metadata", "stop", "seed", "user", "logit_bias"]), values, max_size=4
)


def spelled(name: str, escaped: bool) -> str:
    """A JSON string, with every character escaped or none that need not be."""
    if not escaped:
        return json.dumps(name)
    units = name.encode("utf-16-be")
    return '"' + "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2)) + '"'


@given(st.lists(st.tuples(st.sampled_from(["model", "n", "ü", 'a"b', "a\\b", ""]), st.booleans(), values), max_size=6))
@settings(max_examples=300, deadline=None)
def test_a_repeated_member_is_refused_however_it_is_spelled(members: list[tuple[str, bool, Any]]) -> None:
    """Row 23: two readers can only differ about a name that is there twice; then we refuse, and else we never do."""
    body = (
        "{ " + " ,\n".join(f"{spelled(name, escaped)} : {json.dumps(value)}" for name, escaped, value in members) + " }"
    ).encode()
    names = [name for name, _, _ in members]
    try:
        found = read_body(body)
    except RequestError as error:
        assert len(set(names)) < len(names)
        assert error.code == "request_invalid"
    else:
        assert {name: json.loads(bytes(raw)) for name, raw in found.items()} == json.loads(body)
        assert len(set(names)) == len(names)


quoted = st.text(st.sampled_from('[]{}"\\n:,é'), max_size=8)
bracketed = st.recursive(quoted, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(quoted, inner, max_size=2))


@given(bracketed, st.integers(0, 120), st.integers(2, 40), st.booleans())
@settings(deadline=None)
def test_only_real_nesting_counts_as_depth(value: Any, wrapped: int, copies: int, ascii_only: bool) -> None:
    """Row 23: brackets and quotes inside strings nest nothing, however they are escaped."""

    def depth(inner: Any) -> int:
        if isinstance(inner, dict):
            return 1 + max(map(depth, inner.values()), default=0)
        return 1 + max(map(depth, inner), default=0) if isinstance(inner, list) else 0

    nested: Any = [value] * copies
    for _ in range(wrapped):
        nested = [nested]
    body = json.dumps({"metadata": nested}, ensure_ascii=ascii_only).encode()
    try:
        read = read_body(body)
    except RequestError:
        assert depth(nested) + 1 > 128
    else:
        assert depth(nested) + 1 <= 128
        assert json.loads(bytes(read["metadata"])) == nested


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Nothing but a RequestError comes out of reading a stranger's bytes."""
    for operation in (CHAT, MESSAGES, EMBEDDINGS):
        for text in (body, b'{"model":"m","messages":' + body + b"}", b'{"model":"m","input":' + body + b"}"):
            try:
                assert parse_request(operation, text, []).model
            except RequestError as error:
                assert error.status == 400


@given(
    free_members,
    texts.filter(str.isprintable),
    st.none() | st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_a_rewrite_changes_only_what_it_says(
    members: dict[str, Any], model: str, maximum: int | None, include_usage: bool, stream: bool, older: bool
) -> None:
    members = {**members, "messages": [], "model": "m", "stream": stream, **({"max_tokens": 77} if older else {})}
    request = parse_request(CHAT, json.dumps(members).encode(), [])
    before = json.loads(request.body)
    changed = rewrite(request, model or "m", maximum, include_usage)
    after = json.loads(changed)
    if model and model != "m":
        assert after.pop("model") == model
        before.pop("model")
    if maximum is not None:
        field = "max_tokens" if older else "max_completion_tokens"
        assert after.pop(field) == maximum
        before.pop(field, None)
    if include_usage and stream:
        assert after.pop("stream_options") == {"include_usage": True}
    assert after == before
    assert list(after) == list(before)
    again = parse_request(CHAT, changed, [])
    assert again.bounds.input_tokens == request.bounds.input_tokens + len(changed) - len(request.body)


# --- bounds -----------------------------------------------------------------------------------------------


@given(st.lists(texts, min_size=1, max_size=5), st.booleans(), st.dictionaries(texts, texts, max_size=3))
@settings(max_examples=200, deadline=None)
def test_no_tokenizer_makes_more_of_a_prompt_than_its_bound(parts: list[str], ascii_only: bool, schema: Any) -> None:
    """
    A byte-level tokenizer has at most one token for each byte of what it is given, and the stand-in's own tokenizer
    is checked as it is: bound ≥ count, at the most that its `[[in=N]]` allows.
    """
    messages = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in parts]
    function = {"name": "f", "parameters": schema}
    tools = [{"type": "function", "function": function}]
    chat = {"model": "m", "messages": messages, "tools": tools}
    message = {"model": "m", "max_tokens": 1, "messages": messages, "tools": [{"name": "f", "input_schema": schema}]}
    for operation, body, prompt in (
        (CHAT, chat, {"messages": messages, "tools": tools}),
        (MESSAGES, message, {"messages": messages, "tools": message["tools"]}),
        (EMBEDDINGS, {"model": "m", "input": parts}, parts),
    ):
        bound = parse_request(operation, json.dumps(body, ensure_ascii=ascii_only).encode(), []).bounds.input_tokens
        size = len(standin_tokens.serialized(prompt))
        directives = standin_tokens.Directives(input=size)
        assert bound >= size
        assert bound >= standin_tokens.count_prompt(prompt, directives)
        assert bound >= standin_tokens.count_prompt(prompt, standin_tokens.Directives())
