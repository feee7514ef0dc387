"""RetryBudget: how much retrying a pod may do, how, and when a failing target is left alone. How a failure is told from
a success is the sidecar's."""

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from spendmesh_operator.manifests.attachment import Attachment
from spendmesh_operator.manifests.common import ACCEPTED, AGE, MODE, PROGRAMMED, Column, CrdNames, Manifest
from spendmesh_operator.manifests.conditions import RetryBudgetStatus
from spendmesh_operator.manifests.quantities import WHOLE, DurationText, duration_default
from spendmesh_operator.manifests.retryconstraint import EMPTY, ClusterShare, Interval, RetryConstraint, Weights
from spendmesh_operator.manifests.rules import SET, Node, Rule, list_map

Pause = Annotated[timedelta, DurationText("1ms", "1h")]
StatusCode = Annotated[int, Field(ge=400, le=599), WHOLE]
Limit = Annotated[timedelta, DurationText("100ms", "10m")]
Operation = Literal["Chat", "Embeddings", "Messages", "CountTokens", "Models"]


def _within(part: timedelta | None, whole: timedelta | None) -> bool:
    return part is None or whole is None or part <= whole


class RetryAfter(Node):
    """What a provider's own waiting hint does."""

    max_wait: Pause = duration_default("60s")
    """The longest hint that a call waits for, 1ms to 1h; with a longer one it goes to another target or fails. The
    target is left alone by all calls of the pod until the hint is over, for at most 5 minutes. Example: 20s"""


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
    """Longest pause before the first retry; it doubles each time, and chance takes a part of it (see jitter). A
    provider's own hint is the minimum. Example: 500ms"""
    max_backoff: Pause = duration_default("20s")
    """The pause grows no longer than this. Example: 20s"""
    throttled_backoff: Pause = duration_default("1s")
    """In place of backoff where a provider throttles and does not say for how long; the longer of the two counts.
    Example: 1s"""
    jitter: Literal["Full", "Equal", "Decorrelated", "None"] = "Full"
    """The part of a pause that chance decides: all of it (Full), half of it (Equal), none, or a pause between backoff
    and three times the last one (Decorrelated). Example: Equal"""
    ambiguous: Literal["Never", "Once", "AsRetryable"] = "Once"
    """How often a call is tried again that may have been served and billed, or that fails for its own reasons: after
    a 500, and after OpenAI's token limit. Once goes to the next target if there is one. Example: Never"""
    retry_after: RetryAfter = Field(default_factory=RetryAfter, json_schema_extra=EMPTY)
    """What a provider's own waiting hint does. Example: {maxWait: 20s}"""
    unpaid_probe_interval: Interval = duration_default("5m")
    """How often one real call asks an account again that was out of money, 1s to 1h; meanwhile calls go to other
    accounts or are refused. Example: 5m"""


class Timeouts(Node):
    """How long a call may take. What is absent is no limit, and request is 10m."""

    RULES = (
        Rule(
            "!has(self.request) || !has(self.backendRequest) || "
            "duration(self.backendRequest) <= duration(self.request)",
            lambda limits: _within(limits.backend_request, limits.request),
            "backendRequest is longer than request, which holds all tries: write a shorter one",
            ".backendRequest",
        ),
        Rule(
            "!has(self.request) || !has(self.firstByte) || duration(self.firstByte) <= duration(self.request)",
            lambda limits: _within(limits.first_byte, limits.request),
            "firstByte is longer than request, which holds all tries: write a shorter one",
            ".firstByte",
        ),
    )

    request: Limit | None = None
    """All tries and waits of a call together, and its answer, 100ms to 10m. Example: 120s"""
    backend_request: Limit | None = None
    """One try, until its answer is whole, or for a stream until it begins, 100ms to 10m. Example: 60s"""
    first_byte: Limit | None = None
    """One try of a stream, until it begins, 100ms to 10m. Example: 30s"""
    stream_idle: Limit | None = None
    """The longest silence inside a stream, which then breaks off, 100ms to 10m. Example: 30s"""


class OperationTimeouts(Node):
    """Limits of one operation."""

    operation: Operation
    """The operation. Example: Embeddings"""
    timeouts: Timeouts
    """Its limits; what is absent is taken from spec.timeouts. Example: {request: 30s, backendRequest: 10s}"""


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


class Deduplication(Node):
    """Which calls get the answer of another one, its original, in place of an attempt of their own. Such a call costs
    nothing. Two calls are the same if policy, operation, whole body, all hints (user, session) and the values that
    limits are divided by are."""

    mode: Literal["Off", "ClientRetries", "IdempotencyKey", "All"] = "ClientRetries"
    """ClientRetries: retries that say that they are (x-stainless-retry-count above 0), as the SDKs of OpenAI and
    Anthropic do. IdempotencyKey: those, and calls with the Idempotency-Key of an earlier one; the same key with another
    call is answered 422 idempotency_key_reused. All: those, and every call that is the same as another one, which then
    share one answer though a model would have given each its own. "Off" (in quotes, or YAML reads a boolean): none.
    Example: IdempotencyKey"""
    window: Annotated[timedelta, DurationText("1s", "24h")] = duration_default("10m")
    """How long an answer is kept after its end, 1s to 24h; only in the memory of the sidecar. Example: 10m"""
    max_bytes: Annotated[int, Field(ge=65_536, le=67_108_864), WHOLE] = 4_194_304
    """Bytes of all answers that one pod keeps, those in flight included, 64 KiB to 64 MiB; the oldest go first. One
    answer takes a quarter of it at most: a longer one cannot be joined any more. Example: 4194304"""


class RetryBudgetSpec(Attachment):
    """How calls are retried. The most specific RetryBudget of a pod is taken as a whole."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *Attachment.RULES,
        Rule(
            "has(self.scope) && self.scope == 'Cluster' || !has(self.cluster)",
            lambda spec: spec.scope == "Cluster" or spec.cluster is None,
            "cluster has no meaning for scope Pod: write scope: Cluster, or leave cluster out",
            ".cluster",
        ),
    )

    scope: Literal["Pod", "Cluster"] = "Pod"
    """Whose retries retryConstraint bounds: those of each pod by itself (Pod), or those of all pods that this object
    applies to, together (Cluster); maxRetryCost is each pod's own either way. Example: Cluster"""
    cluster: ClusterShare | None = None
    """How pods lease their shares, for scope Cluster. Example: {leaseDuration: 15s, refreshInterval: 5s}"""
    retry_constraint: RetryConstraint = Field(default_factory=RetryConstraint, json_schema_extra=EMPTY)
    """How much may be retried. Example: {budget: {percent: 10, interval: 30s}}"""
    retry: Retry = Field(default_factory=Retry, json_schema_extra=EMPTY)
    """Which failures are retried, how often and when. Example: {codes: [429, 503], attempts: 2}"""
    deposit_on: Literal["Success", "Request"] = "Success"
    """What earns retries: calls that succeed, so that an outage leaves the floor alone, or all calls that are made.
    Example: Request"""
    weights: Weights = Field(default_factory=Weights, json_schema_extra=EMPTY)
    """What a retry takes out of the share of calls. Example: {throttled: 1, transient: 2, timeout: 3}"""
    on_exhausted: Literal["PassThrough", "ServiceUnavailable"] = "PassThrough"
    """What the client gets where a retry is not paid for: the provider's last answer, or 503 target_unavailable.
    Example: ServiceUnavailable"""
    timeouts: Timeouts = Field(default_factory=Timeouts, json_schema_extra=EMPTY)
    """How long a call may take. Example: {request: 120s, backendRequest: 60s, firstByte: 30s, streamIdle: 30s}"""
    per_operation: Annotated[tuple[OperationTimeouts, ...], Field(max_length=5), list_map("operation")] = ()
    """Other limits for some operations. Example: [{operation: Embeddings, timeouts: {request: 30s}}]"""
    client_retries: Literal["Charge", "Count"] = "Charge"
    """What becomes of a retry that a client makes on its own (x-stainless-retry-count) and that joins no call (see
    deduplication): Charge pays for it as for one of ours after a timeout and refuses it with 503 target_unavailable
    where the budget is empty, or the call has had all its tries; Count only counts it. Example: Count"""
    deduplication: Deduplication = Field(default_factory=Deduplication, json_schema_extra=EMPTY)
    """Which calls get another call's answer in place of an attempt. Example: {mode: ClientRetries, window: 10m}"""
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
            Column(
                name="Scope",
                path=".spec.scope",
                type="string",
                description="Whether each pod has it, or all pods share it.",
                wide=True,
            ),
            Column(name="Retries", path=".spec.retry.attempts", type="integer", description="Retries of one call."),
            Column(name="Matched", path=".status.workloads.matched", type="integer", description="Workloads selected."),
            ACCEPTED,
            PROGRAMMED,
            AGE,
        ),
    )
    STATUS: ClassVar[type[Node] | None] = RetryBudgetStatus

    kind: Literal["RetryBudget"]
    spec: RetryBudgetSpec
