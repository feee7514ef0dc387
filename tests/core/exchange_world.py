"""A sidecar's decisions without a sidecar: samples of policy and requests, and a driver with its own clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from fake_bank import Bank
from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.failures.breaker import Breakers
from spendmesh_sidecar.core.failures.concurrency import Limiters
from spendmesh_sidecar.core.failures.restraints import Restraints
from spendmesh_sidecar.core.failures.retry_budgets import RetryBudgets
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.rights import AccountRef
from spendmesh_sidecar.core.prices.costs import Pricing
from spendmesh_sidecar.core.specs import (
    BoundSpec,
    BudgetSpec,
    LimitSpec,
    ModelPattern,
    ModelPrice,
    PriceRow,
    ProviderSpec,
    RetrySpec,
    RoutingSpec,
    RuleSpec,
    TargetSpec,
    ThresholdSpec,
    TierSpec,
    TokenPrices,
    When,
    WindowSpec,
)
from spendmesh_sidecar.core.types import (
    Acquire,
    Attempt,
    Bounds,
    Hints,
    Kind,
    Operation,
    Outcome,
    ParsedRequest,
    Respond,
    Usage,
    Wait,
)
from spendmesh_sidecar.policy import Policy

UNIX = 1_790_000_000
CHAT = Operation("chat", "OpenAI", "POST", "/chat/completions", billed=True, genai_name="chat")
MESSAGES = Operation("messages", "Anthropic", "POST", "/v1/messages", billed=True, genai_name="chat")
MODELS = Operation("models", "OpenAI", "GET", "/models", billed=False, genai_name="models")
USD = 10**9


def price(model: str, input_usd: float, output_usd: float, maximum: int = 1_000, currency: str = "USD") -> ModelPrice:
    """A price per million tokens, in whole cents, so that no float reaches the books."""
    per_input, per_output = round(input_usd * 100) * 10**7, round(output_usd * 100) * 10**7
    prices = TokenPrices(
        input=per_input, output=per_output, cache_read=per_input, cache_write=per_input, cache_write_long=per_input
    )
    return ModelPrice(model=model, currency=currency, rows=(PriceRow(prices=prices),), max_output_tokens=maximum)


OPENAI = ProviderSpec(
    alias="openai",
    ref="team-a/openai",
    dialect="OpenAI",
    base_url="https://one.example/v1",
    prices=(price("small-1", 1, 2), price("medium-1", 2, 8), price("large-1", 10, 40), price("named-1", 3, 9)),
)
BACKUP = ProviderSpec(
    alias="backup",
    ref="team-a/backup",
    dialect="OpenAI",
    base_url="https://two.example/v1",
    prices=(price("medium-2", 3, 9),),
)
ANTHROPIC = ProviderSpec(
    alias="anthropic",
    ref="team-a/anthropic",
    dialect="Anthropic",
    base_url="https://three.example",
    prices=(price("fable-1", 5, 20),),
)
ROUTING = RoutingSpec(
    name="team-a/support@7",
    tiers=(
        TierSpec(name="economy", targets=(TargetSpec(name="small", provider="openai", model="small-1"),)),
        TierSpec(
            name="standard",
            targets=(
                TargetSpec(name="medium-old", provider="backup", model="medium-2", priority=1),
                TargetSpec(name="medium", provider="openai", model="medium-1"),
            ),
        ),
        TierSpec(name="premium", targets=(TargetSpec(name="large", provider="openai", model="large-1"),)),
    ),
    default_tier="standard",
    models=(ModelPattern(pattern="auto"), ModelPattern(pattern="cap-*", ceiling="Asked")),
    rules=(RuleSpec(name="extract", when=When(tasks=("extract", "classify")), tier="economy"),),
    bounds=(BoundSpec(name="vip", when=When(user_plans=("enterprise",)), min_tier="premium"),),
)
WINDOW = WindowSpec(period="Month")
RETRY = RetrySpec(name="team-a/default", backoff_ms=500, max_backoff_ms=20_000, min_retry_count=5)


def limit(name: str, amount: int, unit: str = "Cost", steps: tuple[ThresholdSpec, ...] = ()) -> LimitSpec:
    """A limit in USD nano-units, or a count."""
    currency = "USD" if unit == "Cost" else ""
    return LimitSpec(name=name, unit=unit, currency=currency, amount=amount, window=WINDOW, thresholds=steps)  # type: ignore[arg-type]


def budget(*limits: LimitSpec, name: str = "team-a/team", mode: str = "Enforce") -> BudgetSpec:
    """A budget with these limits."""
    return BudgetSpec(name=name, mode=mode, limits=limits)  # type: ignore[arg-type]


MONTHLY = budget(limit("monthly", 10 * USD))
MONTH = AccountRef(budget="team-a/team", limit="monthly")


def policy(**changes: object) -> Policy:
    """The sample policy with some parts replaced."""
    parts: dict[str, object] = {
        "cluster": "test",
        "namespace": "team-a",
        "price_table": "0" * 64,
        "providers": (OPENAI, BACKUP, ANTHROPIC),
        "routing": ROUTING,
        "budgets": (MONTHLY,),
        "retry": RETRY,
    }
    return Policy(**{**parts, **changes})  # type: ignore[arg-type]


def chat(model: str = "auto", maximum: int | None = 100, input_tokens: int = 1_000, **changes: object) -> ParsedRequest:
    """A chat call; `changes` replace fields of ParsedRequest."""
    bounds = Bounds(input_tokens=input_tokens, max_output_tokens=maximum, output_field="max_completion_tokens")
    request = ParsedRequest(CHAT, b"{}", {}, model, stream=False, bounds=bounds)
    return replace(request, **changes)  # type: ignore[arg-type]


def hinted(**hints: str) -> ParsedRequest:
    """A chat call with hints."""
    return chat(hints=Hints(**hints))


def success(input_tokens: int = 500, output_tokens: int = 50) -> Outcome:
    """A whole answer with usage."""
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    return Outcome(
        Kind.SUCCESS, 200, committed=True, complete=True, usage=usage, output_bytes=output_tokens, response_id="r"
    )


def failure(status: int, retry_after: float | None = None, kind: Kind = Kind.TRANSIENT) -> Outcome:
    """An error answer of which nothing went to the client."""
    return Outcome(kind, status, complete=True, retry_after_seconds=retry_after)


def throttled(retry_after: float | None = None) -> Outcome:
    """429, nothing billed."""
    return failure(429, retry_after, Kind.THROTTLED)


CONNECT = Outcome(Kind.CONNECT)


@dataclass
class Run:
    """What one driven exchange did."""

    exchange: Exchange
    attempts: list[Attempt] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    acquires: list[Acquire] = field(default_factory=list)
    respond: Respond | None = None

    @property
    def code(self) -> str:
        return self.exchange.refusal.code if self.exchange.refusal else ""

    @property
    def recovered(self) -> bool:
        """A retry brought what the first try did not."""
        return self.exchange.retries > 0 and self.exchange.decision.settlements[-1].kind is Kind.SUCCESS

    @property
    def models(self) -> list[str]:
        return [f"{attempt.provider.alias}/{attempt.model}" for attempt in self.attempts]

    @property
    def message(self) -> str:
        return self.exchange.refusal.message if self.exchange.refusal else ""

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.exchange.response_headers(final=True))


Provider = Callable[[Attempt], Outcome]


@dataclass
class World:
    """One sidecar: policy, ledger, budgets and breakers, a bank, and a clock that only moves when told."""

    policy: Policy = field(default_factory=policy)
    now: float = 1_000.0
    seed: int = 7
    attempt_seconds: float = 0.5

    def __post_init__(self) -> None:
        self.bank = Bank(self.policy.budgets)
        self.ledger = Ledger("holder", self.policy.budgets, self.now)
        self.retry_budgets = RetryBudgets()
        self.breakers = Breakers()
        self.restraints = Restraints()
        self.limiters = Limiters()
        self.pricing = Pricing((), "test prices 1")
        self.rng = random.Random(self.seed)
        self.requests = 0

    def exchange(self, request: ParsedRequest, **options: float) -> Exchange:
        self.requests += 1
        return Exchange(
            request,
            self.policy,
            ledger=self.ledger,
            retry_budgets=self.retry_budgets,
            breakers=self.breakers,
            restraints=self.restraints,
            limiters=self.limiters,
            pricing=self.pricing,
            request_id=f"req-{self.requests}",
            rng=self.rng,
            **options,
        )

    def sent(self, request: ParsedRequest) -> Exchange:
        """An exchange whose first attempt is on its way."""
        exchange = self.exchange(request)
        step = exchange.begin(self.now, UNIX)
        if isinstance(step, Acquire):
            step = self._acquire(exchange, step)
        assert isinstance(step, Attempt), step
        return exchange

    def swap(self, new: Policy) -> None:
        """A policy arrives."""
        self.policy = new
        self.bank.budgets = new.budgets
        self.ledger.set_budgets(new.budgets, self.now)

    def run(self, request: ParsedRequest, provider: Provider | Iterable[Outcome] = (), **options: float) -> Run:
        """Drive one exchange to its end; outcomes come from a list in order, or from a function of the attempt."""
        exchange = self.exchange(request, **options)
        run = Run(exchange)
        answers = provider if callable(provider) else _in_order(provider)
        step = exchange.begin(self.now, UNIX)
        try:
            while not isinstance(step, Respond):
                if isinstance(step, Acquire):
                    run.acquires.append(step)
                    step = self._acquire(exchange, step)
                elif isinstance(step, Attempt):
                    run.attempts.append(step)
                    self.now += self.attempt_seconds
                    step = exchange.observe(answers(step), self.now, UNIX)
                elif isinstance(step, Wait):
                    run.waits.append(step.seconds)
                    self.now += step.seconds
                    step = exchange.resume(self.now, UNIX)
            run.respond = step
        finally:
            exchange.close(self.now)
        return run

    def _acquire(self, exchange: Exchange, step: Acquire) -> Acquire | Attempt | Wait | Respond:
        if self.bank.away:
            self.now += step.wait_seconds
            return exchange.acquired(None, self.now, UNIX)
        leases, denials = self.bank.acquire(self.ledger.nonce, self.ledger.wants_for(step.shortfalls, self.now))
        for lease in leases:
            assert self.ledger.merge(lease, self.now)
        return exchange.acquired(denials, self.now, UNIX)

    @property
    def held(self) -> int:
        return sum(lease.held for account in self.ledger.accounts.values() for lease in account.leases.values())

    def used(self, limit_name: str = "monthly", budget_name: str = "team-a/team") -> int:
        return sum(
            lease.used
            for ref, account in self.ledger.accounts.items()
            if (ref.budget, ref.limit) == (budget_name, limit_name)
            for lease in account.leases.values()
        )


def _in_order(outcomes: Iterable[Outcome]) -> Provider:
    waiting = iter(outcomes)

    def answer(attempt: Attempt) -> Outcome:
        return next(waiting)

    return answer
