"""
What passes between the decisions and the shell: a parsed request, what an attempt brought, and the next step.

Plain frozen data, as msgspec Structs: a frozen dataclass costs ten times as much to build. The shell parses
(`core.operations`), drives (`core.exchange`) and does what a `Step` says; it never decides. Times are monotonic
seconds handed in by the caller; durations are seconds.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

from msgspec import Raw, Struct

from spendmesh_sidecar.core.ledger.rights import AccountRef
from spendmesh_sidecar.core.specs import Dialect, OperationName, ProviderSpec, TargetSpec

# --- the request ------------------------------------------------------------------------------------------


class Operation(Struct, frozen=True, gc=False):
    """One call that a dialect has. Upstream it is base URL + `upstream_path`, never client bytes."""

    name: OperationName
    dialect: Dialect
    method: Literal["GET", "POST"]
    upstream_path: str
    billed: bool
    """False for the free ones (model lists, token counts): no reservation, still policy, metrics and a span."""
    genai_name: str
    """`gen_ai.operation.name` of OpenTelemetry."""


class Hints(Struct, frozen=True, gc=False):
    """What the client says about its call (`x-spendmesh-*`), length-limited and NFC; empty when absent."""

    task: str = ""
    user: str = ""
    user_plan: str = ""
    urgency: str = ""
    feature: str = ""
    session: str = ""
    scopes: tuple[tuple[str, str], ...] = ()
    """Name and value of each request header that a limit is divided by."""


class Bounds(Struct, frozen=True, gc=False):
    """What the request leaves open, as upper bounds: the input to the worst case (contract §4)."""

    input_tokens: int
    """Provable: no tokenizer makes more tokens than this out of the body (bytes plus a constant)."""
    choices: int = 1
    max_output_tokens: int | None = None
    """As the client set it; None when it did not and one must be injected."""
    output_field: str = ""
    """The field that carries the client's maximum, or would; empty: the operation has no output."""
    service_tiers: tuple[str, ...] = ("standard",)
    """All tiers the provider may serve and bill under what the client asked."""
    cache_writes: tuple[Literal["default", "long"], ...] = ()
    """Cache lifetimes that the request asks to be written."""
    extra_output_tokens: int = 0
    """Billed output beyond the maximum (a rejected prediction)."""
    context_bound: bool = True
    """The model's context window bounds the input too. False: many inputs in one request (embeddings), or a beta
    that widens the window."""


class ParsedRequest(Struct, frozen=True, gc=False):
    """A well-formed client request. Parsing refuses what is malformed; policy decides about the rest."""

    operation: Operation
    body: bytes
    fields: dict[str, Raw]
    """Top-level members of the body, raw and in order; empty for GET."""
    model: str
    """As asked; empty for operations without a model."""
    stream: bool
    bounds: Bounds
    hints: Hints = Hints()
    headers: dict[str, str] = {}
    """The client's headers that go upstream, names in lower case."""
    usage_asked: bool = True
    """False: a streaming OpenAI client that did not ask for the usage chunk; it is taken out again."""
    unpriced_fields: tuple[str, ...] = ()
    """Field paths we do not know or cannot price, such as `tools[0].type=web_search`: refused under a Cost limit."""
    client_retry: int = 0
    """`x-stainless-retry-count`: the SDK says this is its n-th retry."""
    client_wait_seconds: float = 0.0
    """`x-stainless-read-timeout`: how long the SDK says it waits for the next byte; 0: it does not say."""
    provider: str = ""
    """Alias from `/providers/<alias>/…`; empty: policy chooses."""


# --- what an attempt brought ------------------------------------------------------------------------------


class Usage(Struct, frozen=True, gc=False):
    """
    Billed tokens in disjoint classes, whatever the dialect sends.

    OpenAI counts cached input inside `prompt_tokens`, Anthropic outside: both arrive here apart.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_long_tokens: int = 0
    output_tokens: int = 0
    """All output that is billed, reasoning included."""
    reasoning_tokens: int = 0
    """Part of `output_tokens`."""
    service_tier: str = ""
    """As served; empty when the provider does not say."""

    @property
    def total_input_tokens(self) -> int:
        """All input, cached or not: what long-context price steps look at."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.cache_write_long_tokens


class Kind(Enum):
    """How an attempt ended (`core.failures.error_classes`). The first seven come from the provider's answer."""

    SUCCESS = "success"
    THROTTLED = "throttled"
    TRANSIENT = "transient"
    TIMEOUT = "timeout"
    AMBIGUOUS = "ambiguous"
    NON_RETRYABLE = "non_retryable"
    UNPAID = "unpaid"
    """The account behind the key is out of money: no waiting mends it, and every call with that key fails alike."""
    CONNECT = "connect"
    """No connection: nothing was sent, nothing can be billed."""
    KEY_MISSING = "key_missing"
    """The pod has no key for the provider: nothing was sent, and the target has not failed."""
    UNWRITTEN = "unwritten"
    """Its record may not be on the disk: nothing was sent, and the target has not failed."""
    CUT = "cut"
    """The connection broke after the request was sent (before or inside the answer)."""
    STOPPED = "stopped"
    """We ended the stream, because what it may still cost was not covered."""
    CLIENT_GONE = "client_gone"

    def __init__(self, word: str) -> None:
        self.word = word
        """As metrics and spans say it; `value` would be worked out anew each time."""


class Outcome(Struct, frozen=True, gc=False):
    """
    One attempt as the shell saw it; `core.outcome` makes it (`answered`, `broken`).

    `usage` is what the bytes that passed say; `complete` is True only if the provider's answer ended as its
    protocol says it ends, so that usage is final.
    """

    kind: Kind
    status: int | None = None
    committed: bool = False
    """Some byte of this answer went to the client: nothing may be retried any more."""
    complete: bool = False
    usage: Usage | None = None
    output_bytes: int = 0
    """Generated text seen so far, in UTF-8 bytes: a floor under what was produced."""
    retry_after_seconds: float | None = None
    error_code: str = ""
    """Provider's own code or type, low cardinality, for spans and metrics."""
    finish_reasons: tuple[str, ...] = ()
    response_id: str = ""
    response_model: str = ""
    like_status: int | None = None
    """The status under which a policy's `codes` know it, where that is not `status`: an error inside a 200, or an
    answer that did not come in time."""
    broken: bool = False
    """The answer did not come to its end: there is none to pass on, whatever its head said."""


# --- the next step ----------------------------------------------------------------------------------------


class Shortfall(Struct, frozen=True, gc=False):
    """Rights that one reservation lacks on one limit."""

    budget: str
    limit: str
    need: int
    """What must be added to what the sidecar holds, in the limit's unit; 0 if the smallest form of the call fits."""
    want: int = 0
    """What would be useful (never less than `need`): the call with its output maximum not shrunk."""
    per: tuple[str, ...] = ()
    """Values of a divided limit."""
    amount: int = 0
    """All that the smallest form of the call takes, what is there already included."""

    @property
    def account(self) -> AccountRef:
        """The account that lacks them."""
        return AccountRef(budget=self.budget, limit=self.limit, per=self.per)


class Acquire(Struct, frozen=True, gc=False):
    """Ask the coordinator for rights, at most this long; then `Exchange.acquired`."""

    shortfalls: tuple[Shortfall, ...]
    wait_seconds: float


class Attempt(Struct, frozen=True, gc=False):
    """Send this to one target; then `Exchange.observe`. The reservation is booked before this step is returned."""

    number: int
    """1 is the first try."""
    reservation: str
    """`request-id/attempt-n`."""
    target: TargetSpec
    tier: str
    """Empty for an explicit model that passes through."""
    provider: ProviderSpec
    model: str
    """To be sent; equal to what was asked if nothing changes."""
    max_output_tokens: int | None
    """To be set in `output_field`, in place of the client's own; None leaves the body as it is."""
    output_field: str
    include_usage: bool
    """Add `stream_options.include_usage`; its chunk is taken out again unless the client asked."""
    timeout_seconds: float
    first_byte_seconds: float = 0.0
    """A stream has to begin within this; 0: any time."""
    idle_seconds: float = 0.0
    """The longest pause inside a stream that has begun; 0: any."""


class Wait(Struct, frozen=True, gc=False):
    """Sleep, then `Exchange.resume`. Paid from the retry budget already."""

    seconds: float


class Refusal(Struct, frozen=True, gc=False):
    """Our own answer in place of a provider's (contract §2 table)."""

    code: str
    status: int
    message: str
    """Which object, what is left, what to do, when it resets. Never a key or a prompt."""
    param: str = ""
    retry_after_seconds: float | None = None


class Respond(Struct, frozen=True, gc=False):
    """
    The end. With a refusal, send it; without, the last attempt's answer is what the client gets
    (already on its way when `committed`).
    """

    refusal: Refusal | None = None
    should_retry: Literal["false", "upstream"] = "false"
    """`upstream`: leave `x-should-retry` as it came (a lone Observe RetryBudget)."""


Step = Acquire | Attempt | Wait | Respond


# --- records ----------------------------------------------------------------------------------------------


class Settlement(Struct, frozen=True, gc=False):
    """What one attempt cost in the end: one line of the ledger, one CLIENT span, one step of the counters."""

    reservation: str
    number: int
    target: str
    tier: str
    provider: str
    model: str
    kind: Kind
    status: int | None
    usage: Usage
    source: Literal["exact", "estimated", "worst", "void"]
    cost_nanos: int
    currency: str
    price_version: str
    reserved_nanos: int
    overrun_nanos: int = 0
    """What the provider says it bills above the reservation: recorded and alerted. It is charged too, unless the
    report is above what the request can physically have used (then `cost_nanos` is at most `reserved_nanos`)."""
    error_code: str = ""
    uncounted: tuple[str, ...] = ()
    """Enforced limits (`namespace/name/limit`) in money that let it pass though it has no price in their currency."""


class Decision(Struct, frozen=True, gc=False):
    """Why the call went where it went: response headers, span attributes and `/status` say the same words."""

    policy: str = ""
    tier: str = ""
    reason: str = ""
    """`rule:extract`, `bound:vip`, `budget:team-a/team/monthly`, `asked`, `failover`, `default`."""
    model: str = ""
    """`alias/model` that answered."""
    attempts: int = 0
    settlements: tuple[Settlement, ...] = ()
