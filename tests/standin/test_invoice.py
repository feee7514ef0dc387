"""The invoice charges what the published price list says, calculated here by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from spendmesh_standin import FaultRule, InvoiceLine, Key, Settings, Tokens
from spendmesh_standin.invoice import Invoice
from spendmesh_standin.prices import CATALOG, cost_nanos

LINE = InvoiceLine(
    id="req_1",
    time="2026-11-22T08:00:00.000Z",
    provider="default",
    account="openai",
    key_hash="0" * 16,
    dialect="openai",
    operation="chat.completions",
    model="small-1",
    service_tier="default",
    status=200,
    reason="ok",
    billed="full",
    tokens=Tokens(input=10, output=2),
    fees_nanos=0,
    cost_nanos=1300,
)


def prompt(tokens: int, more: str = "[[out=10]]") -> Any:
    """A message of exactly this many tokens."""
    return [{"role": "user", "content": f"[[in={tokens}]]{more}" + "x" * tokens}]


@pytest.mark.parametrize(
    ("model", "more", "extra", "nanos"),
    [
        # 1000 × 50 + 120 × 400
        ("small-1", "[[out=120]]", {}, 98_000),
        # 600 × 50 + 400 × 5 + 10 × 400
        ("small-1", "[[cached=400]][[out=10]]", {}, 36_000),
        # 1000 × 250 + 10 × 2000
        ("medium-1", "[[out=10]]", {}, 270_000),
        # 1000 × 300 + 10 × 2400
        ("medium-2", "[[out=10]]", {}, 324_000),
        # 1000 × 5000 + 3 choices × 10 × 25000
        ("large-1", "[[out=10]]", {"n": 3}, 5_750_000),
        # 600 × 150 + 400 × 75 + 10 × 600
        ("gpt-4o-mini", "[[cached=400]][[out=10]]", {}, 126_000),
        # priority: 1000 × 250 + 10 × 1000
        ("gpt-4o-mini", "[[out=10]]", {"service_tier": "priority"}, 260_000),
        # 1000 × 250 + (10 + 6 thinking) × 2000
        ("gpt-5-mini", "[[out=10]][[reasoning=6]]", {}, 282_000),
        # flex: 999 × 125 + 1 × 12.5 + 10 × 1000 = 134887.5, rounded up once
        ("gpt-5-mini", "[[cached=1]][[reasoning=0]][[out=10]]", {"service_tier": "flex"}, 134_888),
        # 1000 × 2000 + (10 + 4 rejected) × 8000
        (
            "gpt-4.1",
            "[[out=10]][[rejected=4]]",
            {"prediction": {"type": "content", "content": "y" * 64}},
            2_112_000,
        ),
    ],
)
def test_a_completion_costs_its_tokens(stage: Any, model: str, more: str, extra: Any, nanos: int) -> None:
    stage.openai.chat.completions.create(model=model, messages=prompt(1000, more), **extra)
    assert stage.line().cost_nanos == nanos
    assert stage.line().tokens.prompt == 1000


def test_an_embedding_costs_its_input(stage: Any) -> None:
    stage.openai.embeddings.create(model="text-embedding-3-small", input="[[in=1000]]" + "x" * 1000)
    assert stage.line().cost_nanos == 1000 * 20


@pytest.mark.parametrize(
    ("model", "tokens", "headers", "nanos"),
    [
        ("claude-haiku-4-5", 1000, {}, 1000 * 1000 + 10 * 5000),
        ("claude-sonnet-4-5", 1000, {}, 1000 * 3000 + 10 * 15_000),
        # Above its threshold the whole request is dearer.
        ("claude-haiku-5-5", 100_000, {}, 100_000 * 100 + 10 * 500),
        ("claude-haiku-5-5", 100_001, {}, 100_001 * 500 + 10 * 2500),
        ("claude-sonnet-4-5", 200_001, {"anthropic-beta": "context-1m-2025-08-07"}, 200_001 * 6000 + 10 * 22_500),
    ],
)
def test_a_message_costs_its_tokens(stage: Any, model: str, tokens: int, headers: Any, nanos: int) -> None:
    sent = {"x-api-key": "sk-ant-standin", "anthropic-version": "2023-06-01", **headers}
    stage.raw("POST", "/v1/messages", {"model": model, "max_tokens": 50, "messages": prompt(tokens)}, sent)
    assert stage.line().cost_nanos == nanos


def test_cached_prefixes_cost_their_own_rates(stage: Any) -> None:
    system = [
        {"type": "text", "text": "a" * 40_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "b" * 20_000, "cache_control": {"type": "ephemeral"}},
    ]
    for _ in range(2):
        stage.anthropic.messages.create(
            model="claude-haiku-4-5",
            max_tokens=50,
            system=system,
            messages=[{"role": "user", "content": "[[out=10]]"}],
        )
    first, second = stage.lines()
    t = first.tokens
    assert t.cache_write_1h > 9_900 and 4_900 < t.cache_write_5m < 5_100 and t.cache_read == 0
    assert first.cost_nanos == t.input * 1000 + t.cache_write_5m * 1250 + t.cache_write_1h * 2000 + 10 * 5000
    t = second.tokens
    assert t.cache_read == first.tokens.cache_write_5m + first.tokens.cache_write_1h
    assert second.cost_nanos == t.input * 1000 + t.cache_read * 100 + 10 * 5000


def test_refused_requests_stand_on_the_invoice_at_nothing(stage: Any) -> None:
    stage.raw("POST", "/v1/chat/completions", {"model": "small-1", "messages": []})
    line = stage.line()
    assert (line.status, line.reason, line.billed, line.cost_nanos) == (400, "error", "none", 0)


def test_the_invoice_says_who_pays_and_never_shows_a_key(open_stage: Any) -> None:
    keys = (Key.parse("openai:team-a=sk-canary-a"), Key.parse("any:team-b=sk-canary-b"))
    with open_stage(Settings(keys=keys, record_bodies=True)) as stage:
        for key in ("sk-canary-a", "sk-canary-b"):
            stage.openai.with_options(api_key=key).chat.completions.create(model="small-1", messages=prompt(100))
        stage.anthropic.with_options(api_key="sk-canary-b").messages.create(
            model="small-1", max_tokens=50, messages=prompt(100)
        )
        shown = [stage.raw("GET", f"/_standin/{what}", headers={}) for what in ("invoice", "requests")]
        by_account = shown[0].json()["totals"]["by_account"]
        assert {name: sums["attempts"] for name, sums in by_account.items()} == {"team-a": 1, "team-b": 2}
        assert all(b"canary" not in answer.body for answer in shown)
        assert "canary" not in repr(keys)


def test_totals_are_the_sums_of_the_lines(stage: Any) -> None:
    stage.openai.chat.completions.create(model="small-1", messages=prompt(1000))
    stage.openai.chat.completions.create(model="medium-1", messages=prompt(1000))
    invoice = stage.raw("GET", "/_standin/invoice", headers={}).json()
    totals = invoice["totals"]
    assert totals["cost_nanos"] == sum(line["cost_nanos"] for line in invoice["lines"]) == 54_000 + 270_000
    assert {name: sums["cost_nanos"] for name, sums in totals["by_model"].items()} == {
        "small-1": 54_000,
        "medium-1": 270_000,
    }
    assert (totals["attempts"], totals["input_tokens"], totals["output_tokens"]) == (2, 2000, 20)
    assert len(stage.raw("GET", "/_standin/invoice?after=1", headers={}).json()["lines"]) == 1
    assert "lines" not in stage.raw("GET", "/_standin/invoice?lines=0", headers={}).json()


def test_logical_providers_have_prefixes_and_lines_of_their_own(open_stage: Any) -> None:
    with open_stage(Settings(providers={"main": "", "backup": "/backup"})) as stage:
        stage.faults(FaultRule("status", status=503, provider="main"))
        path = "/v1/chat/completions"
        body = {"model": "small-1", "messages": prompt(100)}
        statuses = [stage.raw("POST", prefix + path, body).status for prefix in ("", "/backup", "/other")]
        assert statuses == [503, 200, 404]
        assert [(line.provider, line.status) for line in stage.lines()] == [("main", 503), ("backup", 200)]


def test_what_was_seen_is_shown_without_secrets_and_with_bodies_only_where_asked(stage: Any, open_stage: Any) -> None:
    body = {"model": "small-1", "messages": prompt(100)}
    headers = {"authorization": "Bearer sk-standin-openai", "traceparent": "00-1-2-01"}
    with open_stage(Settings(record_bodies=True)) as recording:
        for running in (stage, recording):
            running.raw("POST", "/v1/chat/completions?x=1", body, headers)
        plain, recorded = stage.standin.requests()[0], recording.standin.requests()[0]
    shown = dict(plain.headers)
    assert (plain.path, plain.status, plain.body) == ("/v1/chat/completions?x=1", 200, None)
    assert (shown["authorization"], shown["traceparent"]) == ("***", "00-1-2-01")
    assert plain.id == stage.line().id
    assert plain.body_sha256 == recorded.body_sha256 and recorded.body == body


def test_a_reset_begins_anew(stage: Any) -> None:
    stage.faults(FaultRule("status", status=500))
    stage.raw("POST", "/v1/chat/completions", {"model": "small-1", "messages": prompt(100)})
    assert stage.raw("POST", "/_standin/reset", headers={}).status == 200
    assert stage.lines() == () and stage.standin.requests() == ()
    assert stage.raw("POST", "/v1/chat/completions", {"model": "small-1", "messages": prompt(100)}).status == 200


def test_an_invoice_file_is_continued_and_a_torn_last_line_was_never_booked(tmp_path: Path) -> None:
    path = tmp_path / "invoice"
    first = Invoice(path)
    first.book(LINE)
    first.close()
    with path.open("ab") as file:
        file.write(b'{"id": "req_2", "ti')
    second = Invoice(path)
    second.book(replace(LINE, id="req_3"))
    second.close()
    third = Invoice(path)
    assert third.statement().lines == (LINE, replace(LINE, id="req_3"))
    third.clear()
    third.close()
    fourth = Invoice(path)
    assert fourth.statement().lines == ()
    fourth.close()
    assert len(path.read_text().splitlines()) == 3


def test_a_file_that_is_no_invoice_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("shopping\n")
    with pytest.raises(ValueError, match="line 1"):
        Invoice(path)
    assert path.read_text() == "shopping\n"


@given(
    st.sampled_from(sorted(CATALOG)),
    st.builds(Tokens, *(st.integers(0, 10**6) for _ in range(8))),
    st.integers(0, 10**9),
)
def test_costs_are_whole_never_negative_and_never_fall_with_more_tokens(model: str, tokens: Tokens, fees: int) -> None:
    cost = cost_nanos(CATALOG[model], tokens, fees_nanos=fees)
    dearer = cost_nanos(CATALOG[model], replace(tokens, input=tokens.input + 1), fees_nanos=fees)
    assert isinstance(cost, int) and fees <= cost < dearer
    assert json.loads(json.dumps(cost)) == cost
