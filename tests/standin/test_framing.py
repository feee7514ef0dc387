"""However a stream is framed, it says the same to the SDKs."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given, strategies as st

from spendmesh_standin import FaultRule
from spendmesh_standin.framing import Frame, Framer

STYLES: Any = ["crlf", "cr", "comments", "no_space", "split_utf8", "one_byte", "no_done", "after_done", "gzip"]
PROMPT = [{"role": "user", "content": "many words, some not ASCII [[out=60]]"}]


@pytest.mark.parametrize("style", STYLES)
def test_the_openai_sdk_reads_the_same_in_every_framing(stage: Any, style: Any) -> None:
    arguments: Any = {"model": "small-1", "messages": PROMPT, "stream": True, "stream_options": {"include_usage": True}}
    plain: list[Any] = []
    framed: list[Any] = []
    for chunks in (plain, framed):
        for chunk in stage.openai.chat.completions.create(**arguments):
            chunks.append(chunk.model_dump(exclude={"id", "created"}))
        stage.faults(FaultRule("framing", styles=(style,)))
    assert framed == plain


@pytest.mark.parametrize("style", STYLES)
def test_the_anthropic_sdk_reads_the_same_in_every_framing(stage: Any, style: Any) -> None:
    arguments: Any = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": PROMPT}
    plain = stage.anthropic.messages.create(**arguments)
    stage.faults(FaultRule("framing", styles=(style,)))
    text, output = "", 0
    for event in stage.anthropic.messages.create(**arguments, stream=True):
        text += getattr(getattr(event, "delta", None), "text", "")
        output = max(output, getattr(getattr(event, "usage", None), "output_tokens", 0))
    assert (text, output) == (plain.content[0].text, 60)


def test_each_style_changes_the_bytes_as_its_name_says(stage: Any) -> None:
    def body(*styles: Any, **headers: str) -> bytes:
        stage.faults(FaultRule("framing", styles=styles))
        sent = {"authorization": "Bearer sk-standin-openai", **headers}
        asked = {"model": "small-1", "messages": PROMPT, "stream": True}
        raw: bytes = stage.raw("POST", "/v1/chat/completions", asked, sent).body
        return raw

    assert body("crlf").count(b"\r\n\r\n") == 63 and b"\n\n" not in body("crlf")
    assert b"\n" not in body("cr")
    assert body("comments").count(b": keep-alive") == 63
    assert b"data: " not in body("no_space")
    assert b"[DONE]" not in body("no_done")
    assert body("after_done").endswith(b'data: {"late":true}\n\n')
    assert gzip.decompress(body("gzip", **{"accept-encoding": "gzip"})).endswith(b"data: [DONE]\n\n")
    assert body("gzip").endswith(b"data: [DONE]\n\n")


def test_a_body_is_compressed_only_where_the_client_asks(stage: Any) -> None:
    stage.faults(FaultRule("framing", styles=("gzip",)))
    answer = stage.openai.chat.completions.with_raw_response.create(model="small-1", messages=PROMPT)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.parse().usage.completion_tokens == 60
    plain = stage.raw("POST", "/v1/chat/completions", {"model": "small-1", "messages": PROMPT})
    assert "content-encoding" not in plain.headers and plain.json()["usage"]["completion_tokens"] == 60


def test_the_pieces_of_a_split_event_are_cut_inside_a_character() -> None:
    first, second = Framer(("split_utf8",)).frame(Frame('{"a":"é"}'))
    assert first.endswith("é".encode()[:1]) and second.startswith("é".encode()[1:])


@given(st.lists(st.text(max_size=20), max_size=5), st.sets(st.sampled_from(["comments", "split_utf8", "one_byte"])))
def test_pieces_joined_are_the_events_and_every_event_can_be_read_at_once(data: list[str], styles: set[Any]) -> None:
    frames = [Frame(item, kind="content") for item in data]
    plain, packed = Framer(tuple(styles - {"split_utf8", "one_byte"})), Framer((*styles, "gzip"), accepts_gzip=True)
    reader = zlib.decompressobj(wbits=31)
    for frame in frames:
        assert reader.decompress(b"".join(packed.frame(frame))) == b"".join(plain.frame(frame))
    assert reader.decompress(b"".join(packed.end())) == b"".join(plain.end())
    assert reader.eof
