"""A client that leaves is noticed and billed; a withheld stream goes no further than it was acknowledged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from spendmesh_standin import FaultRule, Settings

# 100 tokens in, 20 out.
PROMPT = [{"role": "user", "content": "[[in=100]][[out=20]]" + "x" * 100}]
STREAM: Any = {"model": "small-1", "messages": PROMPT, "stream": True}

Eventually = Callable[[Callable[[], bool]], None]


def leave_after_chunks(stage: Any, count: int) -> None:
    """Read some content chunks of a withheld stream, acknowledging all but the last, and hang up."""
    stream = stage.openai.chat.completions.create(**STREAM)
    seen = 0
    for chunk in stream:
        if chunk.choices[0].delta.content:
            seen += 1
            if seen == count:
                break
            assert stage.within(lambda identifier=chunk.id: stage.standin.acknowledge(identifier))
    stream.close()


@pytest.mark.parametrize(
    ("bill", "nanos", "output"),
    [
        (None, 100 * 50 + 20 * 400, 20),
        ("full", 100 * 50 + 20 * 400, 20),
        ("streamed", 100 * 50 + 3 * 400, 3),
        ("input", 100 * 50, 0),
        ("none", 0, 0),
    ],
)
def test_leaving_a_stream_costs_what_the_switch_says(stage: Any, bill: Any, nanos: int, output: int) -> None:
    rules = [FaultRule("withhold")]
    if bill is not None:
        rules.append(FaultRule("disconnect_billing", bill=bill))
    stage.faults(*rules)
    leave_after_chunks(stage, 3)
    line = stage.line()
    assert (line.reason, line.cost_nanos, line.tokens.output) == ("disconnect", nanos, output)


def test_the_settings_say_what_a_disconnect_costs_where_no_rule_does(open_stage: Any) -> None:
    with open_stage(Settings(disconnect_billing="input")) as stage:
        stage.faults(FaultRule("withhold"))
        leave_after_chunks(stage, 2)
        assert (stage.line().billed, stage.line().cost_nanos) == ("input", 5000)


def test_a_client_that_leaves_before_the_answer_pays_for_all_of_it(open_stage: Any, eventually: Eventually) -> None:
    with open_stage(Settings(ttft_seconds=600.0)) as stage:
        with stage.socket({"model": "small-1", "messages": PROMPT}):
            eventually(lambda: stage.standin.in_flight == 1)
        line = stage.line()
        assert (line.reason, line.cost_nanos, line.status) == ("disconnect", 13_000, 0)
        eventually(lambda: stage.standin.in_flight == 0)


def test_an_anthropic_stream_that_is_left_is_billed_for_its_thinking_as_far_as_it_streamed(stage: Any) -> None:
    stage.faults(FaultRule("withhold"), FaultRule("disconnect_billing", bill="streamed"))
    stream = stage.anthropic.messages.create(
        model="claude-haiku-4-5",
        max_tokens=2000,
        messages=PROMPT,
        stream=True,
        thinking={"type": "enabled", "budget_tokens": 1024},
    )
    for event in stream:
        if event.type == "content_block_delta":
            break
    stream.close()
    assert stage.line().cost_nanos == 100 * 1000 + 1 * 5000


def test_a_stream_that_was_read_to_its_last_word_is_no_disconnect(stage: Any) -> None:
    for chunk in stage.openai.chat.completions.create(**STREAM):
        if chunk.choices[0].finish_reason:
            break
    assert (stage.line().reason, stage.line().tokens.output) == ("ok", 20)


def test_a_line_is_booked_before_the_client_can_know_the_end(stage: Any) -> None:
    for number in range(1, 30):
        list(stage.openai.chat.completions.create(**STREAM))
        assert len(stage.lines()) == number


def test_stopping_the_provider_bills_what_is_in_flight(open_stage: Any, eventually: Eventually) -> None:
    with open_stage() as stage:
        stage.faults(FaultRule("hang"))
        with stage.socket(STREAM):
            eventually(lambda: stage.standin.in_flight == 1)
            stage.stop()
        assert [(line.reason, line.cost_nanos) for line in stage.standin.invoice().lines] == [("error", 13_000)]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_no_chunk_leaves_before_the_one_before_it_is_acknowledged(stage: Any, dialect: str) -> None:
    stage.faults(FaultRule("withhold"))
    if dialect == "openai":
        stream = stage.openai.chat.completions.create(**STREAM)
    else:
        stream = stage.anthropic.messages.create(**{**STREAM, "model": "claude-haiku-4-5", "max_tokens": 50})
    seen: list[str] = []
    identifier = ""
    for event in stream:
        if isinstance(event, anthropic.types.RawMessageStartEvent):
            identifier = event.message.id
        if isinstance(event, openai.types.chat.ChatCompletionChunk):
            identifier = event.id
            text = event.choices[0].delta.content
        else:
            text = getattr(getattr(event, "delta", None), "text", None)
        if text:
            seen.append(text)
            answer = stage.raw("POST", f"/_standin/ack/{identifier}", headers={})
            assert answer.json() == {"acknowledged": len(seen)}
    assert len(seen) == 20
    assert stage.raw("POST", f"/_standin/ack/{identifier}", headers={}).status == 404


def test_an_unacknowledged_chunk_is_the_last_on_the_wire(stage: Any) -> None:
    stage.faults(FaultRule("withhold"), FaultRule("disconnect_billing", bill="streamed"))
    got = b""
    with stage.socket(STREAM) as connection:
        while b'"content":"' not in got.split(b'"content":""')[-1]:
            got += connection.recv(65536)
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
    assert stage.line().tokens.output == 1
    assert json.loads(b"{" + got.split(b"data: {")[-1].split(b"\n")[0])["choices"][0]["delta"]["content"]
