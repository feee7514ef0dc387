"""How long a provider asks to wait: a table for each provider's way of saying it, and nonsense that says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from spendmesh_sidecar.core.failures.hints import ASKED, LIMITS, MAX_HINT_SECONDS, retry_delay, waiting_hint

NOW = 1_795_305_600.0  # 2026-11-22 00:00:00 UTC
Headers = list[tuple[str, str]]


def openai(requests: tuple[str, str], tokens: tuple[str, str]) -> Headers:
    """Remaining and reset of both limits."""
    return [
        ("X-RateLimit-Remaining-Requests", requests[0]),
        ("x-ratelimit-reset-requests", requests[1]),
        ("x-ratelimit-remaining-tokens", tokens[0]),
        ("x-ratelimit-reset-tokens", tokens[1]),
    ]


def anthropic(name: str, remaining: str, reset: str) -> Headers:
    return [(f"anthropic-ratelimit-{name}-remaining", remaining), (f"anthropic-ratelimit-{name}-reset", reset)]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([("Retry-After", "2")], 2.0),
        ([("retry-after", " 0.25 ")], 0.25),
        ([("retry-after", "0")], 0.0),
        ([("retry-after-ms", "1500"), ("retry-after", "9")], 1.5),
        ([("retry-after-ms", "soon"), ("retry-after", "9")], 9.0),
        ([("retry-after-ms", "-1"), ("retry-after", "9")], 9.0),
        ([("retry-after", "7"), ("Retry-After", "9")], 7.0),
        ([("retry-after", "Sun, 22 Nov 2026 00:00:30 GMT")], 30.0),
        ([("retry-after", "Sat, 21 Nov 2026 00:00:00 GMT")], 0.0),
        ([("retry-after", "172800")], 86_400.0),
        ([("retry-after", "Sun, 22 Nov 2099 00:00:30 GMT")], None),
        ([("retry-after", "Sun, 22 Nov 100000 00:00:30 GMT")], None),
        ([("retry-after", "NaN")], None),
        ([("retry-after", "inf")], None),
        ([("retry-after", "-5")], None),
        ([("retry-after", "1e300")], None),
        ([("retry-after", "1e999")], None),
        ([("retry-after", "1_0")], None),
        ([("retry-after", "٣")], None),
        ([("retry-after", "9" * 400)], None),
        ([("retry-after", "Sun, 99 Foo 2026")], None),
        ([("retry-after", "")], None),
        ([], None),
    ],
)
def test_what_asks_outright(headers: Headers, seconds: float | None) -> None:
    """Seconds, milliseconds or a date, at most a day; nonsense is no hint."""
    assert waiting_hint(503, headers, "", NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (openai(("0", "6m0s"), ("100", "12ms")), 360.0),
        (openai(("9", "6m0s"), ("0", "7.66s")), 7.66),
        (openai(("0", "1s"), ("0", "2m59.56s")), 179.56),
        (openai(("9", "6m0s"), ("100", "12ms")), 0.012),
        (openai(("-1", "0"), ("-1", "0")), 0.0),
        (openai(("0", "1h2m3s"), ("", "")), 3723.0),
        (openai(("0", "59.7"), ("", "")), 59.7),
        (openai(("0", "-6s"), ("0", "soon")), None),
        (openai(("0", "6 s"), ("0", "6mm")), None),
        (anthropic("requests", "0", "2026-11-22T00:00:45Z"), 45.0),
        (anthropic("tokens", "0", "2026-11-22T01:00:45+01:00"), 45.0),
        (anthropic("input-tokens", "0", "2026-11-21T19:30:00.5-05:00"), 1800.5),
        (anthropic("output-tokens", "0", "2026-11-21T00:00:00Z"), 0.0),
        (anthropic("requests", "0", "2099-11-21T00:00:00Z"), None),
        (anthropic("requests", "0", "100000-01-01T00:00:00Z"), None),
        (anthropic("requests", "0", "2026-13-01T00:00:00Z"), None),
        (anthropic("requests", "0", "2026-11-22T25:00:00Z"), None),
        (anthropic("requests", "0", "2026-11-22T00:00:45"), None),
        (
            anthropic("requests", "7", "2026-11-22T00:00:01Z") + anthropic("tokens", "0", "2026-11-22T00:00:09Z"),
            9.0,
        ),
        ([("retry-after", "3"), *openai(("0", "6m0s"), ("0", "6m0s"))], 3.0),
    ],
)
def test_what_the_resets_of_rate_limits_say(headers: Headers, seconds: float | None) -> None:
    """The limit that is used up counts; what asks outright goes before it."""
    found = waiting_hint(429, headers, "", NOW)
    assert found == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("status", [400, 500, 503, 529])
def test_a_reset_says_nothing_beside_another_error(status: int) -> None:
    """Every answer of these providers carries its limits."""
    assert waiting_hint(status, openai(("0", "6m0s"), ("0", "6m0s")), "", NOW) is None


@pytest.mark.parametrize(
    ("delay", "seconds"), [("31s", 31.0), ("0.847655010s", 0.84765501), ("10h17m", 37_020.0), ("-3s", None), ("", None)]
)
def test_google_s_retry_info(delay: str, seconds: float | None) -> None:
    details = [
        {"@type": "type.googleapis.com/google.rpc.Help"},
        {"@type": "x/google.rpc.RetryInfo", "retryDelay": delay},
    ]
    assert waiting_hint(429, [], retry_delay(details), NOW) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "details", [None, {}, [5], [{"@type": 7}], [{"@type": "google.rpc.RetryInfo", "retryDelay": 9}]]
)
def test_details_of_another_shape_say_nothing(details: object) -> None:
    assert retry_delay(details) == ""


NAMES = [name for name, _ in ASKED] + [name for limit in LIMITS for name in (limit.remaining, limit.reset)]
TEXTS = st.text(max_size=80) | st.text("0123456789.:-+eTZhms", max_size=30) | st.floats().map(repr)


@given(st.lists(st.tuples(st.sampled_from(NAMES), TEXTS), max_size=8), TEXTS, st.sampled_from([429, 503]))
def test_whatever_a_stranger_writes_a_wait_is_none_or_within_a_day(headers: Headers, delay: str, status: int) -> None:
    """Never an exception, never a negative, infinite or not-a-number wait."""
    found = waiting_hint(status, headers, delay, NOW)
    assert found is None or 0 <= found <= MAX_HINT_SECONDS


@given(st.floats(0, 86_400, allow_nan=False), st.sampled_from(["retry-after", "retry-after-ms"]))
def test_a_number_is_read_as_it_was_meant(seconds: float, name: str) -> None:
    scaled = seconds * 1000 if name.endswith("ms") else seconds
    assert waiting_hint(529, [(name, repr(scaled))], "", NOW) == pytest.approx(seconds)
