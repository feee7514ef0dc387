"""Metrics: Prometheus text that the reference parser reads, bounded labels."""

from __future__ import annotations

from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from spendmesh_sidecar.core.types import Kind, Settlement, Usage
from spendmesh_sidecar.telemetry.metrics import MAX_MODELS, Metrics


def test_the_reference_parser_reads_what_is_rendered() -> None:
    metrics = Metrics()
    for seconds in (0.0004, 0.003, 99.0):
        metrics.answered("chat", "standard", 503, 'a"b\\c\nd', 100.0, seconds)
    text = metrics.render({"spendmesh_breaker_state": [((("target", "openai/x"),), 2)]}).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["spendmesh_requests"].samples[0].value == 3
    assert families["spendmesh_requests"].samples[0].labels["error"] == 'a"b\\c d'
    assert families["spendmesh_breaker_state"].samples[0].value == 2
    histogram = {s.labels.get("le", s.name): s.value for s in families["spendmesh_added_latency_seconds"].samples}
    assert histogram["0.0005"] == 1 and histogram["0.005"] == 2 and histogram["+Inf"] == 3
    assert histogram["spendmesh_added_latency_seconds_count"] == 3


def test_models_that_clients_invent_become_other_past_a_cap() -> None:
    metrics = Metrics()
    labels = [metrics.model_label(f"model-{n}") for n in range(MAX_MODELS + 5)]
    assert labels[MAX_MODELS - 1] == f"model-{MAX_MODELS - 1}"
    assert set(labels[MAX_MODELS:]) == {"other"}
    assert metrics.model_label("model-0") == "model-0"


def test_attempts_and_requests_that_agree_in_their_labels_are_counted_together() -> None:
    """Labels are looked up once for each kind of end; a later one of the same kind finds the same counters."""
    metrics = Metrics()
    usage = Usage(
        input_tokens=10, cache_read_tokens=5, cache_write_tokens=2, cache_write_long_tokens=1, output_tokens=7
    )
    first = Settlement(
        "r/attempt-1", 1, "medium", "standard", "openai", "m", Kind.SUCCESS, 200, usage, "exact", 100, "USD", "own", 500
    )
    for number, cost_nanos, overrun_nanos in ((1, 100, 0), (2, 100, 30), (3, 0, 0)):
        metrics.settled(replace(first, number=number, cost_nanos=cost_nanos, overrun_nanos=overrun_nanos))
    metrics.settled(replace(first, kind=Kind.TRANSIENT, usage=Usage(), cost_nanos=0, source="void"))
    for status, seconds in ((200, 0.2), (200, 0.4), (503, 0.2)):
        metrics.answered("chat", "standard", status, "" if status == 200 else str(status), seconds, 0.001)
    where = 'provider="openai",model="m"'
    counted = [line for line in metrics.render({}).decode().splitlines() if not line.startswith("#")]
    assert [line for line in counted if "seconds" not in line] == [
        f'spendmesh_attempts_total{{{where},tier="standard",outcome="success"}} 3',
        f'spendmesh_attempts_total{{{where},tier="standard",outcome="transient"}} 1',
        f'spendmesh_cost_nanos_total{{{where},tier="standard",currency="USD",source="exact"}} 200',
        f'spendmesh_overrun_nanos_total{{{where},tier="standard"}} 30',
        'spendmesh_requests_total{operation="chat",tier="standard",status="200",error=""} 2',
        'spendmesh_requests_total{operation="chat",tier="standard",status="503",error="503"} 1',
        f'spendmesh_retries_total{{{where},tier="standard"}} 2',
        f'spendmesh_tokens_total{{{where},type="cache_read"}} 15',
        f'spendmesh_tokens_total{{{where},type="cache_write"}} 9',
        f'spendmesh_tokens_total{{{where},type="input"}} 30',
        f'spendmesh_tokens_total{{{where},type="output"}} 21',
    ]
    assert 'spendmesh_request_duration_seconds_count{operation="chat"} 3' in counted
    assert 'spendmesh_added_latency_seconds_bucket{operation="chat",le="0.001"} 3' in counted
