"""Metrics: Prometheus text that the reference parser reads, bounded labels."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from spendmesh_sidecar.metrics import ADDED_BUCKETS, MAX_MODELS, Metrics


def test_the_reference_parser_reads_what_is_rendered() -> None:
    metrics = Metrics()
    metrics.add("spendmesh_requests_total", (("operation", "chat"), ("error", 'a"b\\c\nd')), 3)
    for seconds in (0.0004, 0.003, 99.0):
        metrics.observe("spendmesh_added_latency_seconds", seconds, ADDED_BUCKETS, (("operation", "chat"),))
    text = metrics.render({"spendmesh_breaker_state": [((("target", "openai/x"),), 2)]}).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
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
