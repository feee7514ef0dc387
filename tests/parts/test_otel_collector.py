"""A span sent to the real Collector can be read back as it was sent."""

from __future__ import annotations

import json
import urllib.request

from otel_collector import CollectedSpan, Collector

SPAN = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174",
    "parentSpanId": "00f067aa0ba902b7",
    "name": "chat small-1",
    "kind": 3,
    "startTimeUnixNano": "1700000000000000001",
    "endTimeUnixNano": "1700000000000000005",
    "attributes": [
        {"key": "tokens", "value": {"intValue": "9007199254740993"}},
        {"key": "reasons", "value": {"arrayValue": {"values": [{"stringValue": "stop"}]}}},
    ],
}
EXPORT = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "sidecar"}}]},
            "scopeSpans": [{"scope": {"name": "test"}, "spans": [SPAN]}],
        }
    ]
}


def test_a_span_goes_through_the_collector(collector: Collector) -> None:
    """Ids, times and 64-bit integers arrive to the last digit."""
    request = urllib.request.Request(
        f"{collector.endpoint}/v1/traces", json.dumps(EXPORT).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    assert collector.wait_for_spans(1) == [
        CollectedSpan(
            name="chat small-1",
            trace_id="5b8efff798038103d269b633813fc60c",
            span_id="eee19b7ec3c1b174",
            parent_span_id="00f067aa0ba902b7",
            kind=3,
            start_unix_nanos=1700000000000000001,
            end_unix_nanos=1700000000000000005,
            status_code=0,
            attributes={"tokens": 9007199254740993, "reasons": ["stop"]},
            resource={"service.name": "sidecar"},
            scope="test",
            events=[],
        )
    ]
