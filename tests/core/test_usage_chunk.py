"""The usage chunk that was asked for on the client's behalf is taken out again; nothing else is touched or delayed."""

from __future__ import annotations

import pytest

from spendmesh_sidecar.core.usage.scanners import UsageChunkFilter

CONTENT = b'data: {"choices":[{"index":0,"delta":{"content":"\xc3\xa9 usage choices"}}],"usage":null}\n\n'
FILTERED = b'data: {"choices":[],"prompt_filter_results":[{"usage":1}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


def pass_through(*chunks: bytes) -> bytes:
    usage_filter = UsageChunkFilter()
    return b"".join(usage_filter.feed(chunk) for chunk in chunks) + usage_filter.end()


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("step", [1, 2, 7, 10_000])
def test_only_the_usage_chunk_goes(newline: bytes, step: int) -> None:
    """Framing, comments, Azure's first chunk and a last chunk that has usage beside a choice stay byte for byte."""
    before, after = FILTERED + b": ping\n\n" + CONTENT + LAST, b": x\n\n" + DONE
    whole = (before + USAGE + after).replace(b"\n", newline)
    chunks = [whole[place : place + step] for place in range(0, len(whole), step)]
    assert pass_through(*chunks) == (before + after).replace(b"\n", newline)


def test_usage_in_any_writing_is_found() -> None:
    for written in (
        b'data:{"usage" : {"prompt_tokens":1}, "choices" : [ ] }\n\n',
        b'event: message\nid: 7\ndata: {"choices":[],\ndata: "usage":{"prompt_tokens":1}}\n\n',
    ):
        assert pass_through(CONTENT, written, DONE) == CONTENT + DONE


def test_a_complete_event_never_waits() -> None:
    """What a client could act on leaves with the chunk that completes it, also beside the beginning of the next."""
    usage_filter = UsageChunkFilter()
    assert usage_filter.feed(CONTENT) == CONTENT
    assert usage_filter.feed(CONTENT + DONE[:5]) == CONTENT
    assert usage_filter.feed(DONE[5:]) == DONE
    assert usage_filter.feed(CONTENT[:-1]) == b""
    assert usage_filter.feed(b"\n") == CONTENT
    assert usage_filter.feed(CONTENT.replace(b"\n", b"\r")) == CONTENT.replace(b"\n", b"\r")


def test_a_long_event_passes_as_it_comes() -> None:
    """Row 24 in part: nothing holds a 100 MB line."""
    usage_filter = UsageChunkFilter()
    start, piece = b'data: {"choices":[],"usage":{"x":"', b"y" * 65_536
    passed = [usage_filter.feed(start), *(usage_filter.feed(piece) for _ in range(200)), usage_filter.feed(b'"}}\n\n')]
    assert b"".join(passed) == start + piece * 200 + b'"}}\n\n'
    assert all(passed[2:])
    assert usage_filter.feed(USAGE + DONE) == DONE


def test_the_end_of_a_stream_inside_an_event() -> None:
    assert pass_through(CONTENT, DONE.rstrip(b"\n")) == CONTENT + DONE.rstrip(b"\n")
    assert pass_through(CONTENT, USAGE.rstrip(b"\n")) == CONTENT
    assert pass_through(CONTENT, USAGE[:30]) == CONTENT + USAGE[:30]
