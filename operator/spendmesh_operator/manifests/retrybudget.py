"""RetryBudget: how much retrying a pod may do, how, and when a failing target is left alone. How a failure is told from
a success is the sidecar's."""

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.config import JsonDict

from spendmesh_operator.manifests.attachment import Attachment
from spendmesh_operator.manifests.common import ACCEPTED, AGE, MODE, PROGRAMMED, Column, CrdNames, Manifest
from spendmesh_operator.manifests.conditions import Status
from spendmesh_operator.manifests.quantities import WHOLE, DurationText, duration_default
from spendmesh_operator.manifests.rules import SET, Node, Rule

Interval = Annotated[timedelta, DurationText("1s", "1h")]
Pause = Annotated[timedelta, DurationText("1ms", "1h")]
StatusCode = Annotated[int, Field(ge=400, le=599), WHOLE]
EMPTY: JsonDict = {"default": {}}
"""The server fills an absent object with the defaults of its fields."""


class RetryShare(Node):
    """Retries in proportion to calls."""

    percent: Annotated[int, Field(ge=0, le=100), WHOLE] = 10
    """Retries for each 100 calls of the interval. 10 means that retries add at most a tenth. Example: 20"""
    interval: Interval = duration_default("30s")
    """Time over which calls are counted, 1s to 1h. Example: 10s"""


class MinRetryRate(Node):
    """Retries that are allowed however few calls there are."""

    count: Annotated[int, Field(ge=0, le=1000), WHOLE] = 1
    """Retries in each interval; 0 for none. Example: 1"""
    interval: Interval = duration_default("10s")
    """The interval, 1s to 1h. Example: 10s"""


class RetryConstraint(Node):
    """What one pod may retry: a share of its calls, and a floor for quiet pods."""

    budget: RetryShare = Field(default_factory=RetryShare, json_schema_extra=EMPTY)
    """Retries in proportion to calls. Example: {percent: 10, interval: 30s}"""
    min_retry_rate: MinRetryRate = Field(default_factory=MinRetryRate, json_schema_extra=EMPTY)
    """Retries that are allowed however few calls there are. Example: {count: 1, interval: 10s}"""


class Retry(Node):
    """Which failures are tried again, how often and when. Nothing is tried again after the answer's first byte."""

    RULES = (
        Rule(
            "!has(self.backoff) || !has(self.maxBackoff) || duration(self.maxBackoff) >= duration(self.backoff)",
            lambda retry: retry.max_backoff >= retry.backoff,
            "maxBackoff is shorter than backoff: write a longer maxBackoff or a shorter backoff",
            ".maxBackoff",
        ),
    )

    codes: Annotated[tuple[StatusCode, ...], Field(max_length=32), SET] = (408, 429, 500, 502, 503, 504, 529)
    """HTTP status codes that are tried again, 400 to 599; connection errors always are. Example: [429, 503]"""
    attempts: Annotated[int, Field(ge=0, le=10), WHOLE] = 2
    """Retries of one call at most, failover included: 2 means three tries. 0 turns retries off. Example: 2"""
    backoff: Pause = duration_default("500ms")
    """Longest pause before the first retry; it doubles each time and a random part of it is waited. A Retry-After of
    the provider is the minimum. Example: 500ms"""
    max_backoff: Pause = duration_default("20s")
    """The pause grows no longer than this; a longer Retry-After ends the retries. Example: 20s"""


class FailureRate(Node):
    """The share of bad calls at which a target is ejected, however they are mixed with good ones."""

    percent: Annotated[int, Field(ge=0, le=100), WHOLE] = 50
    """Bad calls of each 100. Throttled calls are bad here, though they never count in a row; calls that say nothing of
    the target (cancelled, other 4xx) are not counted at all. 0: the share ejects nothing. Example: 50"""
    interval: Interval = duration_default("30s")
    """Time over which calls are counted, 1s to 1h. Example: 30s"""
    min_requests: Annotated[int, Field(ge=1, le=10_000), WHOLE] = 10
    """Calls that the interval must have before their share counts. Example: 10"""
    slow_first_byte: Interval | None = None
    """A streamed answer whose first byte takes longer is bad too. Absent: none is slow. Example: 20s"""


class CircuitBreaker(Node):
    """When a failing target is left alone for a time."""

    RULES = (
        Rule(
            "!has(self.baseEjectionTime) || !has(self.maxEjectionTime) || "
            "duration(self.maxEjectionTime) >= duration(self.baseEjectionTime)",
            lambda breaker: breaker.max_ejection_time >= breaker.base_ejection_time,
            "maxEjectionTime is shorter than baseEjectionTime: write a longer maxEjectionTime",
            ".maxEjectionTime",
        ),
    )

    mode: Literal["Enforce", "Observe", "ForcedOpen"] = "Enforce"
    """Observe decides and counts, and lets every call through. ForcedOpen lets none through: a stop for all calls of
    the pods that this object applies to. Example: Observe"""
    consecutive_5xx_errors: Annotated[int, Field(ge=0, le=1000), WHOLE] = Field(default=5, alias="consecutive5xxErrors")
    """Failures in a row after which a target is ejected: 5xx, timeouts and broken connections, but not throttling.
    0 disables the breaker, failureRate included. Example: 5"""
    failure_rate: FailureRate = Field(default_factory=FailureRate, json_schema_extra=EMPTY)
    """The share of bad calls at which a target is ejected too. Example: {percent: 50, minRequests: 10}"""
    base_ejection_time: Interval = duration_default("5s")
    """First ejection; it doubles with each further one, 1s to 1h. Example: 5s"""
    max_ejection_time: Interval = duration_default("300s")
    """Longest ejection, 1s to 1h. Example: 5m"""
    on_all_ejected: Literal["Serve", "Deny"] = "Serve"
    """What becomes of a call when every target of its tier is ejected. Serve sends it to one of them all the same; Deny
    answers 503 target_unavailable at once, with the time of the next try in Retry-After. Example: Deny"""


class AdaptiveConcurrency(Node):
    """How many calls of one pod a target gets at once, learned from how it throttles."""

    RULES = (
        Rule(
            "self.max >= self.min",
            lambda limits: limits.maximum >= limits.minimum,
            "max is less than min: write a larger max or a smaller min",
            ".max",
        ),
    )

    minimum: Annotated[int, Field(ge=1, le=10_000), WHOLE] = Field(default=1, alias="min")
    """The limit falls no lower. Example: 2"""
    maximum: Annotated[int, Field(ge=1, le=10_000), WHOLE] = Field(default=100, alias="max")
    """The limit begins here and grows no higher. Example: 50"""
    increase: Annotated[int, Field(ge=1, le=100), WHOLE] = 1
    """Calls that each round trip of good ones adds, while at least half of the limit is in use. Example: 1"""
    decrease_percent: Annotated[int, Field(ge=1, le=90), WHOLE] = 10
    """What throttling takes off the calls in flight, once in a round trip or in the pause that the provider asks for.
    Example: 30"""
    on_limit: Literal["Deny", "Serve"] = "Deny"
    """What becomes of a call when every target of its tier is at its limit. Deny answers 503 target_unavailable at
    once, Serve sends it all the same. Example: Serve"""


class RetryBudgetSpec(Attachment):
    """How calls are retried. The most specific RetryBudget of a pod is taken as a whole."""

    retry_constraint: RetryConstraint = Field(default_factory=RetryConstraint, json_schema_extra=EMPTY)
    """How much may be retried. Example: {budget: {percent: 10, interval: 30s}}"""
    retry: Retry = Field(default_factory=Retry, json_schema_extra=EMPTY)
    """Which failures are retried, how often and when. Example: {codes: [429, 503], attempts: 2}"""
    circuit_breaker: CircuitBreaker = Field(default_factory=CircuitBreaker, json_schema_extra=EMPTY)
    """When a failing target is left alone. Example: {consecutive5xxErrors: 5, baseEjectionTime: 5s}"""
    adaptive_concurrency: AdaptiveConcurrency | None = None
    """How many calls a target gets at once. Absent: as many as are made. Example: {min: 2, max: 50}"""


class RetryBudget(Manifest):
    """How much retrying a pod may do, how, and when a failing target is left alone."""

    CRD: ClassVar[CrdNames] = CrdNames(
        plural="retrybudgets",
        short="rbud",
        policy="inherited",
        columns=(
            MODE,
            Column(
                name="Percent",
                path=".spec.retryConstraint.budget.percent",
                type="integer",
                description="Retries for each 100 calls.",
            ),
            Column(name="Retries", path=".spec.retry.attempts", type="integer", description="Retries of one call."),
            Column(name="Matched", path=".status.workloads.matched", type="integer", description="Workloads selected."),
            ACCEPTED,
            PROGRAMMED,
            AGE,
        ),
    )
    STATUS: ClassVar[type[Node] | None] = Status

    kind: Literal["RetryBudget"]
    spec: RetryBudgetSpec
