"""An application whose code is unmodified calls models through the injected sidecar: tiers, streams, spans, sums."""

from __future__ import annotations

import functools
import time
from typing import Any

import pytest

from cluster_access import eventually
from cluster_books import settled_at
from cluster_mesh import App, Mesh

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
QUESTION = [{"role": "user", "content": "Where is my order? [[out=12]]"}]
BUDGET, LIMIT = "team-a/team", "monthly"


@pytest.fixture
def app(support: Mesh) -> App:
    """One of the two pods of the Deployment."""
    return support.apps("team-a", "app=support")[0]


def spendmesh(outcome: Json, name: str) -> str:
    """One of our response headers."""
    value: str = outcome["headers"].get(f"x-spendmesh-{name}", "")
    return value


def test_the_pod_is_what_the_webhook_promises(app: App) -> None:
    """A native sidecar first in line, in a namespace under Pod Security `restricted`; the app got addresses only."""
    pod = app.pod()
    sidecar = pod["spec"]["initContainers"][0]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("spendmesh-sidecar", "Always")
    environment = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}
    assert environment["OPENAI_BASE_URL"] == "http://127.0.0.1:15400/openai/v1"
    assert environment["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:15400/anthropic"


@pytest.mark.parametrize("stream", [False, True])
def test_chat_is_answered_through_the_sidecar(app: App, stream: bool) -> None:
    """The OpenAI SDK gets its completion, whole or chunk by chunk, from the default tier's model."""
    outcome = app.call("chat", model="auto", messages=QUESTION, max_tokens=64, stream=stream)
    assert outcome["status"] == 200, outcome
    assert spendmesh(outcome, "tier") == "standard"
    assert spendmesh(outcome, "model") == "openai/gpt-4.1-mini"
    assert spendmesh(outcome, "reason") == "default"
    if stream:
        text = "".join(chunk["choices"][0]["delta"]["content"] or "" for chunk in outcome["chunks"] if chunk["choices"])
        assert len(outcome["chunks"]) > 3
        assert all(chunk["usage"] is None for chunk in outcome["chunks"]), "nobody asked for the usage chunk"
    else:
        text = outcome["result"]["choices"][0]["message"]["content"]
        assert outcome["result"]["usage"]["completion_tokens"] == 12
        assert spendmesh(outcome, "cost").endswith(" USD")
    assert text


@pytest.mark.parametrize("stream", [False, True])
def test_messages_is_answered_through_the_sidecar(app: App, stream: bool) -> None:
    """The Anthropic SDK the same, from a target of its own dialect in the same tier."""
    outcome = app.call("messages", model="auto", messages=QUESTION, max_tokens=64, stream=stream)
    assert outcome["status"] == 200, outcome
    assert spendmesh(outcome, "tier") == "standard"
    assert spendmesh(outcome, "model") == "anthropic/claude-sonnet-4-5"
    if stream:
        assert outcome["chunks"][0]["type"] == "message_start"
        assert outcome["chunks"][-1]["type"] == "message_stop"
    else:
        assert outcome["result"]["content"][0]["text"]
        assert outcome["result"]["usage"]["output_tokens"] == 12


def test_embeddings_are_answered_through_the_sidecar(app: App) -> None:
    """A model that no pattern claims goes to the first provider of the dialect as asked, priced and budgeted."""
    outcome = app.call("embeddings", model="text-embedding-3-small", input=["Where is my order?", "Lost parcel"])
    assert outcome["status"] == 200, outcome
    assert len(outcome["result"]["data"]) == 2
    assert spendmesh(outcome, "model") == "openai/text-embedding-3-small"
    assert spendmesh(outcome, "reason") == "asked"


@pytest.mark.parametrize(
    ("api", "headers", "tier", "model", "reason"),
    [
        ("chat", {"x-spendmesh-task": "extract"}, "economy", "openai/gpt-4.1-nano", "rule:extract"),
        ("messages", {"x-spendmesh-task": "classify"}, "economy", "anthropic/claude-haiku-4-5", "rule:extract"),
        ("chat", {"x-spendmesh-task": "strategy"}, "standard", "openai/gpt-4.1-mini", "default"),
        ("chat", {"x-spendmesh-user-plan": "enterprise"}, "premium", "openai/gpt-4.1", "bound:vip"),
        (
            "messages",
            {"x-spendmesh-task": "extract", "x-spendmesh-user-plan": "enterprise"},
            "premium",
            "anthropic/claude-opus-4-5",
            "bound:vip",
        ),
    ],
)
def test_task_and_plan_choose_the_tier(
    app: App, api: str, headers: dict[str, str], tier: str, model: str, reason: str
) -> None:
    """A rule picks by task, a bound clamps by plan; both come as headers through the SDK."""
    outcome = app.call(api, model="auto", messages=QUESTION, max_tokens=64, extra_headers=headers)
    assert outcome["status"] == 200, outcome
    assert (spendmesh(outcome, "tier"), spendmesh(outcome, "model")) == (tier, model)
    assert spendmesh(outcome, "reason") == reason


def test_a_malformed_request_is_refused_before_anything_is_reserved(app: App, support: Mesh) -> None:
    """400 in the client's own shape; the provider never hears of it."""
    before = len(support.invoice("team-a"))
    outcome = app.call("chat", model="auto", messages=QUESTION, max_tokens=8, extra_body={"max_completion_tokens": 9})
    assert outcome["status"] == 400, outcome
    assert spendmesh(outcome, "error") == "request_invalid"
    assert outcome["headers"]["x-should-retry"] == "false"
    assert len(support.invoice("team-a")) == before


def test_hints_stay_here(app: App, support: Mesh) -> None:
    """What an application tells the sidecar does not reach the provider, nor does the application's dummy key."""
    app.call("chat", model="auto", messages=QUESTION, max_tokens=8, extra_headers={"x-spendmesh-user": "u-17"})
    seen = support.cluster.ask_json("GET", "services/providers/standin:8080", "/_standin/requests")[-1]
    assert not [name for name, _ in seen["headers"] if name.startswith("x-spendmesh")]


def test_spans_invoice_and_books_agree(app: App, support: Mesh) -> None:
    """Tokens and cost of all calls so far arrive at the Collector and sum to the invoice; so do the books."""
    app.call("messages", model="auto", messages=QUESTION, max_tokens=64, stream=True)

    def sums() -> tuple[int, int] | None:
        spans = [span for span in support.spans("team-a") if "spendmesh.cost.nanos" in span.attributes]
        return total if (total := _totals(spans)) == _billed(support) else None

    eventually(sums, f"the spans sum to the invoice {_billed(support)}", 20)
    cost, _ = _billed(support)
    assert cost > 0
    books = settled_at(support.cluster, BUDGET, LIMIT, cost)
    assert (books.settled, books.quarantined) == (cost, 0)
    attempt = next(span for span in support.spans("team-a") if "spendmesh.cost.nanos" in span.attributes)
    for name in ("gen_ai.request.model", "gen_ai.usage.input_tokens", "spendmesh.tier", "spendmesh.usage.source"):
        assert name in attempt.attributes
    assert attempt.attributes["spendmesh.usage.source"] == "exact"


def _totals(spans: list[Any]) -> tuple[int, int]:
    cost = sum(span.attributes["spendmesh.cost.nanos"] for span in spans)
    output = sum(span.attributes["gen_ai.usage.output_tokens"] for span in spans)
    return cost, output


def _billed(mesh: Mesh) -> tuple[int, int]:
    lines = mesh.invoice("team-a")
    output = sum(line["tokens"]["output"] + line["tokens"]["reasoning"] for line in lines)
    return sum(line["cost_nanos"] for line in lines), output


def test_the_callers_trace_goes_on(app: App, support: Mesh) -> None:
    """W3C context that the application sends is the parent of the exchange's span."""
    trace, parent = f"{time.time_ns():032x}", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{parent}-01"}
    app.call("chat", model="auto", messages=QUESTION, max_tokens=8, extra_headers=headers)
    spans = eventually(
        lambda: found if len(found := [s for s in support.spans("team-a") if s.trace_id == trace]) == 2 else None,
        "two spans of the trace arrive",
        15,
    )
    exchange = next(span for span in spans if span.parent_span_id == parent)
    attempt = next(span for span in spans if span is not exchange)
    assert attempt.parent_span_id == exchange.span_id


def test_a_policy_edit_takes_effect_without_a_restart(app: App, support: Mesh) -> None:
    """The next calls of the same pod go to the new default tier; then back."""
    before = app.pod()

    def tier_is(wanted: str) -> bool:
        outcome = app.call("chat", model="auto", messages=QUESTION, max_tokens=8)
        return outcome.get("status") == 200 and spendmesh(outcome, "tier") == wanted

    for tier in ("premium", "standard"):
        patch = f'{{"spec": {{"defaultTier": "{tier}"}}}}'
        support.cluster.kubectl("-n", "team-a", "patch", "rpol/support", "--type=merge", "-p", patch)
        eventually(functools.partial(tier_is, tier), f"calls go to {tier}", 15)
    after = app.pod()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    statuses = [*after["status"]["initContainerStatuses"], *after["status"]["containerStatuses"]]
    assert [each["restartCount"] for each in statuses] == [0, 0]
