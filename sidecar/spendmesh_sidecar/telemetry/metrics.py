"""
Counters of the sidecar as Prometheus text, without a client library: a dict write costs 0.2 µs, a label lookup
in `prometheus_client` 1.2 µs and 15 MB a pod. Names are the contract's (§5).

Label values are bounded: model names that clients invent become `other` past a cap. No user value is a label.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from msgspec import Struct

from spendmesh_sidecar.core.types import Settlement

MAX_MODELS = 200
"""Distinct model labels; Prometheus advises to keep a label under a few hundred values."""

DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
ADDED_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0)

Labels = tuple[tuple[str, str], ...]

_HELP = {
    "spendmesh_requests_total": "Client requests by how they ended.",
    "spendmesh_attempts_total": "Requests to providers by outcome.",
    "spendmesh_tokens_total": "Billed tokens by class.",
    "spendmesh_cost_nanos_total": "Settled cost in nano-units (10^-9) of the currency.",
    "spendmesh_overrun_nanos_total": "Cost that providers reported above the reservation, in nano-units.",
    "spendmesh_uncounted_attempts_total": "Billed attempts that a limit in money let pass without a price.",
    "spendmesh_retries_total": "Retries sent.",
    "spendmesh_retry_denied_total": "Retries that were not sent, by reason.",
    "spendmesh_client_retries_total": "Retries that clients make on their own, by what became of them.",
    "spendmesh_observed_retries_total": "Failures by what an observed RetryBudget would have done.",
    "spendmesh_retry_share": "What this pod may retry in each interval of a shared RetryBudget, in hundredths.",
    "spendmesh_retry_share_left": "What is left of that now, in hundredths of a retry.",
    "spendmesh_retry_share_leased": "1 while the share is leased; 0: it ran out, and onLeaseExpired decides.",
    "spendmesh_refusals_total": "Requests refused by the sidecar, by code.",
    "spendmesh_spans_dropped_total": "Spans lost, by reason. Money is never lost with them.",
    "spendmesh_breaker_state": "0 serving, 1 probing, 2 ejected.",
    "spendmesh_concurrency_limit": "Calls that the target gets at once, as its throttling has taught.",
    "spendmesh_concurrency_in_flight": "Calls that the target is working on.",
    "spendmesh_concurrency_full_total": "Times that a call found the target at its limit.",
    "spendmesh_account_unpaid": "1 while the account behind a provider's key is out of money.",
    "spendmesh_breaker_hinted": "1 while another sidecar is known to have ejected the target.",
    "spendmesh_breaker_ejections_total": "Ejections of a target by reason, those that are only observed included.",
    "spendmesh_breaker_probes_total": "Calls that were sent to find out whether an ejected target works again.",
    "spendmesh_breaker_bypasses_total": "Calls to an ejected target because no other was left, or mode is Observe.",
    "spendmesh_joins_total": "Calls that asked for another call's answer, by what became of them.",
    "spendmesh_joinable_bytes": "Answers that are kept for calls that may repeat theirs.",
    "spendmesh_requests_active": "Client requests in progress.",
    "spendmesh_leases_reachable": "1 while the coordinator answers.",
    "spendmesh_request_duration_seconds": "From the request's head to the answer's end.",
    "spendmesh_added_latency_seconds": "Part of a request's duration that was not spent waiting for providers.",
}


class _Counter:
    """One sample. Kept at hand by who counts often: labels are looked up once."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class _Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def lines(self, name: str, labels: Labels) -> list[str]:
        lines, cumulative = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            cumulative += count
            lines.append(f"{name}_bucket{_braces((*labels, ('le', bound)))} {cumulative}")
        lines.append(f"{name}_sum{_braces(labels)} {self.total:.6f}")
        lines.append(f"{name}_count{_braces(labels)} {cumulative}")
        return lines


class _Answered(Struct, frozen=True):
    """Where client requests are counted that agree in operation, tier and end."""

    requests: _Counter
    duration: _Histogram
    added: _Histogram


class _Settled(Struct, frozen=True):
    """The counters of attempts that agree in provider, model, tier, outcome and terms."""

    attempts: _Counter
    retries: _Counter
    tokens: tuple[_Counter, _Counter, _Counter, _Counter]
    """Input, read from a cache, written to one, output."""
    cost: _Counter
    overrun: _Counter


class Metrics:
    """All counters of one process."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, Labels], _Counter] = {}
        self._histograms: dict[tuple[str, Labels], _Histogram] = {}
        self._models: set[str] = set()
        self._answered: dict[tuple[str, ...], _Answered] = {}
        self._settled: dict[tuple[str, ...], _Settled] = {}

    def add(self, name: str, labels: Labels = (), amount: int = 1) -> None:
        """Count `amount` more."""
        self._counter(name, labels).count += amount

    def answered(self, operation: str, tier: str, status: int, error: str, took: float, added: float) -> None:
        """Count one client request with its duration and the part of it that was ours, in seconds."""
        labels = (operation, tier, str(status), error)
        known = self._answered.get(labels)
        if known is None:
            names = ("operation", "tier", "status", "error")
            known = self._answered[labels] = _Answered(
                self._counter("spendmesh_requests_total", tuple(zip(names, labels, strict=True))),
                self._histogram("spendmesh_request_duration_seconds", DURATION_BUCKETS, (("operation", operation),)),
                self._histogram("spendmesh_added_latency_seconds", ADDED_BUCKETS, (("operation", operation),)),
            )
        known.requests.count += 1
        known.duration.observe(took)
        known.added.observe(added)

    def model_label(self, model: str) -> str:
        """The model's name while there are few, then `other`."""
        if model in self._models:
            return model
        if len(self._models) >= MAX_MODELS:
            return "other"
        self._models.add(model)
        return model

    def settled(self, settlement: Settlement) -> None:
        """Count one attempt with its tokens and cost."""
        model = settlement.model
        labels = (
            settlement.provider,
            model if model in self._models else self.model_label(model),
            settlement.tier,
            settlement.kind.word,
            settlement.currency,
            settlement.source,
        )
        counters = self._settled.get(labels)
        if counters is None:
            counters = self._settled[labels] = self._counters_of(*labels)
        usage = settlement.usage
        counters.attempts.count += 1
        if settlement.number > 1:
            counters.retries.count += 1
        read, written = usage.cache_read_tokens, usage.cache_write_tokens + usage.cache_write_long_tokens
        amounts = (usage.input_tokens, read, written, usage.output_tokens)
        for counter, tokens in zip(counters.tokens, amounts, strict=True):
            counter.count += tokens
        counters.cost.count += settlement.cost_nanos
        counters.overrun.count += settlement.overrun_nanos
        for limit in settlement.uncounted:
            which = (("provider", settlement.provider), ("model", labels[1]), ("limit", limit))
            self.add("spendmesh_uncounted_attempts_total", which)

    def _counters_of(self, provider: str, model: str, tier: str, outcome: str, currency: str, source: str) -> _Settled:
        which = (("provider", provider), ("model", model))
        where = (*which, ("tier", tier))
        read, written = ("type", "cache_read"), ("type", "cache_write")
        return _Settled(
            attempts=self._counter("spendmesh_attempts_total", (*where, ("outcome", outcome))),
            retries=self._counter("spendmesh_retries_total", where),
            tokens=(
                self._counter("spendmesh_tokens_total", (*which, ("type", "input"))),
                self._counter("spendmesh_tokens_total", (*which, read)),
                self._counter("spendmesh_tokens_total", (*which, written)),
                self._counter("spendmesh_tokens_total", (*which, ("type", "output"))),
            ),
            cost=self._counter("spendmesh_cost_nanos_total", (*where, ("currency", currency), ("source", source))),
            overrun=self._counter("spendmesh_overrun_nanos_total", where),
        )

    def _counter(self, name: str, labels: Labels) -> _Counter:
        counter = self._counters.get((name, labels))
        if counter is None:
            counter = self._counters[name, labels] = _Counter()
        return counter

    def _histogram(self, name: str, buckets: tuple[float, ...], labels: Labels) -> _Histogram:
        histogram = self._histograms.get((name, labels))
        if histogram is None:
            histogram = self._histograms[name, labels] = _Histogram(buckets)
        return histogram

    def render(self, gauges: Mapping[str, Iterable[tuple[Labels, int]]]) -> bytes:
        """Prometheus text format 0.0.4 of all counters and of what the caller reads now."""
        lines: list[str] = []
        seen = ""
        counted = ((name, labels, counter.count) for (name, labels), counter in self._counters.items() if counter.count)
        for name, labels, count in sorted(counted):
            if name != seen:
                lines += _head(name, "counter")
                seen = name
            lines.append(f"{name}{_braces(labels)} {count}")
        for name, values in gauges.items():
            lines += _head(name, "counter" if name.endswith("_total") else "gauge")
            lines += [f"{name}{_braces(labels)} {value}" for labels, value in values]
        seen = ""
        for (name, labels), histogram in sorted(self._histograms.items(), key=lambda item: item[0]):
            if name != seen:
                lines += _head(name, "histogram")
                seen = name
            lines += histogram.lines(name, labels)
        return ("\n".join(lines) + "\n").encode()


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {_HELP.get(name, name)}", f"# TYPE {name} {kind}"]


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    escaped = (
        f'{name}="{value.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34)).replace(chr(10), " ")}"'
        for name, value in labels
    )
    return "{" + ",".join(escaped) + "}"
