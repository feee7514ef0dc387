"""
What a seed means: configuration, calls and faults of one history, drawn before anything runs.

Calls and faults are numbered, so that a shrunk history can be said as the seed and the numbers that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from ledgersim.faults import FAULTS
from spendmesh_sidecar.core.specs import (
    BudgetSpec,
    LimitSpec,
    ModelPattern,
    ModelPrice,
    PriceRow,
    ProviderSpec,
    RetrySpec,
    RoutingSpec,
    TargetSpec,
    TierSpec,
    TokenPrices,
    WindowSpec,
)
from spendmesh_sidecar.policy import Policy

HOUR = 3600
BOUNDARIES = (
    ("Etc/UTC", 1_767_607_200),  # 2026-01-05T10:00Z, a full hour
    ("Etc/UTC", 1_767_225_600),  # 2026-01-01T00:00Z, a new year
    ("Europe/Berlin", 1_774_746_000),  # 2026-03-29T01:00Z, two o'clock becomes three
    ("Europe/Berlin", 1_792_890_000),  # 2026-10-25T01:00Z, three o'clock becomes two
    ("Australia/Lord_Howe", 1_775_314_800),  # 2026-04-04T15:00Z, half an hour back
    ("America/St_Johns", 1_772_940_600),  # 2026-03-08T03:30Z, a midnight in a half-hour zone
    ("Asia/Kathmandu", 1_772_302_500),  # 2026-02-28T18:15Z, a month begins
)
"""Zone, and an instant at which a period of it begins."""
MODEL, PROVIDER = "m", "p"
MAX_OUTPUT_TOKENS = 600
GROUPS = ("a", "b")
ENDINGS = {
    "ok": 40,
    "slow": 3,
    "no usage": 2,
    "lies huge": 2,
    "lies zero": 2,
    "cut": 3,
    "usage then cut": 2,
    "client gone": 3,
    "abandoned": 2,
    "timeout": 2,
    "500 billed": 2,
    "500": 1,
    "503": 2,
    "429": 4,
    "connect": 2,
}


@dataclass(frozen=True)
class Call:
    """One client request, and what its first attempt meets."""

    at: float
    pod: int
    input_tokens: int
    """The bound; what is billed is at most that."""
    max_output_tokens: int | None
    billed_input: int
    billed_share: float
    """Of the output maximum that the attempt was sent with."""
    ending: str
    seconds: float


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, or is changed, at a true time."""

    at: float
    kind: str
    who: int
    seconds: float
    amount: float


@dataclass(frozen=True)
class Terms:
    """What policy says at a moment: amounts, prices, and which budgets there are."""

    amounts: tuple[tuple[str, int], ...]
    input_price: int = 1
    output_price: int = 3
    deleted: frozenset[str] = frozenset()
    moved: frozenset[int] = frozenset()
    """Pods that were moved to the other group."""
    observed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class History:
    """All that is drawn from a seed."""

    seed: int
    kind: str
    """race: no fault, all spend until nothing is left; calm: no fault; storm: faults."""
    pods: int
    replicas: int
    seconds: float
    base_unix: float
    zone: str
    fast_store: bool
    terms: Terms
    calls: tuple[Call, ...] = field(repr=False)
    faults: tuple[Fault, ...] = ()

    def keep(self, calls: frozenset[int], faults: frozenset[int]) -> History:
        """The same seed with some of its calls and faults only; the others never happen."""
        return replace(
            self,
            calls=tuple(call for number, call in enumerate(self.calls) if number in calls),
            faults=tuple(fault for number, fault in enumerate(self.faults) if number in faults),
        )


def draw(seed: int) -> History:
    """The history of a seed."""
    rng = Random(f"spendmesh-{seed}")
    kind = rng.choices(("race", "calm", "storm"), (8, 17, 75))[0]
    zone, boundary = rng.choice(BOUNDARIES)
    pods = rng.choice((1, 2, 2, 2, 3, 3, 4, 8)) if kind != "race" else rng.choice((1, 2, 3, 4))
    seconds = rng.uniform(7.0, 18.0)
    crosses = kind != "race" and rng.random() < 0.5
    base = boundary - rng.uniform(0.2, 0.9) * seconds if crosses else boundary + rng.uniform(1, 1500)
    calls = _race(rng, pods) if kind == "race" else _traffic(rng, pods, seconds)
    return History(
        seed=seed,
        kind=kind,
        pods=pods,
        replicas=rng.choice((1, 2, 2, 3)) if kind == "storm" else 1,
        seconds=seconds,
        base_unix=base,
        zone=zone,
        fast_store=rng.random() < 0.3,
        terms=_terms(rng, kind, pods, calls),
        calls=calls,
        faults=_faults(rng, pods, seconds) if kind == "storm" else (),
    )


def _traffic(rng: Random, pods: int, seconds: float) -> tuple[Call, ...]:
    calls = []
    for pod in range(pods):
        for _ in range(rng.randint(3, 12)):
            bound = rng.randint(5, 120)
            calls.append(
                Call(
                    at=rng.uniform(0.5, seconds),
                    pod=pod,
                    input_tokens=bound,
                    max_output_tokens=None if rng.random() < 0.3 else rng.randint(5, 300),
                    billed_input=rng.randint(1, bound),
                    billed_share=rng.choice((rng.random(), 1.0)),
                    ending=rng.choices(list(ENDINGS), list(ENDINGS.values()))[0],
                    seconds=rng.uniform(0.02, 2.0),
                )
            )
    return tuple(sorted(calls, key=lambda call: call.at))


def _race(rng: Random, pods: int) -> tuple[Call, ...]:
    """A few clients beside each pod, who call again until they are refused for good."""
    bound, output = rng.randint(5, 60), rng.randint(5, 100)
    return tuple(
        Call(rng.uniform(0.5, 1.5), pod, bound, output, rng.randint(1, bound), rng.uniform(0.6, 1.0), "ok", 0.05)
        for pod in range(pods)
        for _ in range(rng.randint(1, 3))
    )


def _terms(rng: Random, kind: str, pods: int, calls: tuple[Call, ...]) -> Terms:
    worst = [call.input_tokens + 3 * (call.max_output_tokens or MAX_OUTPUT_TOKENS) for call in calls]
    if kind == "race":
        each = max(worst) * rng.randint(10, 13)
        a, b = each * ((pods + 1) // 2), each * max(1, pods // 2)
        return Terms((("org", 10**9), ("team-a", a), ("team-b", b), ("calls", 10**6)))
    asked = sum(worst)
    tight = [int(asked * rng.uniform(0.15, 3.0)) for _ in range(3)]
    return Terms(
        (
            ("org", tight[0]),
            ("team-a", tight[1]),
            ("team-b", tight[2]),
            ("calls", rng.choice((10**6, len(calls) // 2))),
        ),
        observed=frozenset({"org"}) if rng.random() < 0.1 else frozenset(),
    )


def _faults(rng: Random, pods: int, seconds: float) -> tuple[Fault, ...]:
    names = list(FAULTS)
    weights = [fault.weight for fault in FAULTS.values()]
    drawn = [
        Fault(
            at=rng.uniform(0.5, seconds),
            kind=rng.choices(names, weights)[0],
            who=rng.randrange(pods * 6),
            seconds=rng.choice((rng.uniform(0.2, 3.0), rng.uniform(3.0, 15.0))),
            amount=rng.random(),
        )
        for _ in range(rng.randint(1, 8))
    ]
    return tuple(sorted(drawn, key=lambda fault: fault.at))


# --- policy ------------------------------------------------------------------------------------------------


def budgets(terms: Terms, zone: str) -> dict[str, BudgetSpec]:
    """All budgets that there are, by name."""
    amounts = dict(terms.amounts)
    day, hour = WindowSpec(period="Day", time_zone=zone), WindowSpec(period="Hour", time_zone=zone)

    def money(amount: int, window: WindowSpec) -> LimitSpec:
        return LimitSpec(name="money", currency="USD", amount=amount, window=window)

    found = {"org/all": BudgetSpec(name="org/all", limits=(money(amounts["org"], day),), mode=_mode(terms, "org"))}
    calls = LimitSpec(name="calls", unit="Requests", amount=amounts["calls"], window=hour)
    for group in GROUPS:
        name = f"team-{group}/team"
        limits = (money(amounts[f"team-{group}"], hour), calls) if group == "a" else (money(amounts["team-b"], hour),)
        found[name] = BudgetSpec(name=name, limits=limits)
    return {name: spec for name, spec in found.items() if name not in terms.deleted}


def _mode(terms: Terms, name: str) -> str:
    return "Observe" if name in terms.observed else "Enforce"


def group_of(terms: Terms, pod: int) -> str:
    """Which team's budget a pod matches."""
    return GROUPS[(pod + (pod in terms.moved)) % 2]


def policy_of(terms: Terms, zone: str, group: str) -> Policy:
    """The compiled policy of a group's pods."""
    known = budgets(terms, zone)
    matching = tuple(known[name] for name in ("org/all", f"team-{group}/team") if name in known)
    million = 10**6
    per_input = terms.input_price * million
    prices = TokenPrices(
        input=per_input,
        output=terms.output_price * million,
        cache_read=per_input,
        cache_write=per_input,
        cache_write_long=per_input,
    )
    price = ModelPrice(
        model=MODEL, currency="USD", rows=(PriceRow(prices=prices),), max_output_tokens=MAX_OUTPUT_TOKENS
    )
    provider = ProviderSpec(
        alias=PROVIDER, ref="sim/p", dialect="OpenAI", base_url="https://p.example/v1", prices=(price,)
    )
    target = TargetSpec(name="only", provider=PROVIDER, model=MODEL)
    return Policy(
        cluster="sim",
        namespace=f"team-{group}",
        price_table="0" * 64,
        providers=(provider,),
        routing=RoutingSpec(
            name="sim/routing@1",
            tiers=(TierSpec(name="only", targets=(target,)),),
            default_tier="only",
            models=(ModelPattern(pattern="auto"),),
        ),
        budgets=matching,
        retry=RetrySpec(name="sim/retry", budget_percent=100, min_retry_count=10, backoff_ms=50, max_backoff_ms=500),
    )
