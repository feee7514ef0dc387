"""
What a seed means: configuration, calls and faults of one history, drawn before anything runs.

Calls and faults are numbered, so that a shrunk history can be said as the seed and the numbers that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from ledgersim.faults import FAULTS
from ledgersim.terms import MAX_OUTPUT_TOKENS, Terms
from spendmesh_sidecar.core.ledger.recovery import Durability

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
ROLLING_SECONDS = {"calm": (120, 240, 1200), "storm": (24, 48, 240, 240, 240), "race": (0,)}
"""A part is a 24th. Without faults it is longer than a call waits for rights: what was granted ended, else."""
USERS = ("", "ann", "bob", "eve", "zoe", "mallory")
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
    user: str = ""
    """What the client says; where no limit is divided it means nothing."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, or is changed, at a true time."""

    at: float
    kind: str
    who: int
    seconds: float
    amount: float


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
    durability: Durability = "Process"
    members: int = 1
    """Clusters that share the store, each with replicas and pods of its own."""

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
    scenario = _scenario(seed, kind, pods)
    if scenario.rolling_seconds == min(ROLLING_SECONDS["storm"]):
        seconds += 20.0  # so that what was spent first comes free while it is still asked for
    crosses = kind != "race" and rng.random() < 0.5
    base = boundary - rng.uniform(0.2, 0.9) * seconds if crosses else boundary + rng.uniform(1, 1500)
    calls = _race(rng, pods) if kind == "race" else scenario.users(_traffic(rng, pods, seconds))
    return History(
        seed=seed,
        kind=kind,
        pods=pods,
        replicas=rng.choice((1, 2, 2, 3)) if kind == "storm" else 1,
        durability=scenario.durability,
        members=scenario.members,
        seconds=seconds,
        base_unix=base,
        zone=zone,
        fast_store=rng.random() < 0.3,
        terms=scenario.terms(_terms(rng, kind, pods, calls)),
        calls=calls,
        faults=_faults(rng, pods, seconds) if kind == "storm" else (),
    )


@dataclass(frozen=True)
class _Scenario:
    """What a history has besides the two budgets of every history: drawn apart, so that it moves nothing else."""

    rng: Random
    rolling_seconds: int = 0
    max_values: int = 0
    durability: Durability = "Process"
    members: int = 1

    def users(self, calls: tuple[Call, ...]) -> tuple[Call, ...]:
        """Who calls: some say nothing of it."""
        if not self.max_values:
            return calls
        return tuple(replace(call, user=self.rng.choice(USERS)) for call in calls)

    def terms(self, terms: Terms) -> Terms:
        """The limits of it."""
        if self.max_values:
            team_a = dict(terms.amounts)["team-a"]
            amount = max(1, int(team_a * self.rng.choice((0.2, 0.6, 1.5))))
            terms = replace(terms, amounts=(*terms.amounts, ("each", amount)), max_values=self.max_values)
        return replace(terms, rolling_seconds=self.rolling_seconds)


def _scenario(seed: int, kind: str, pods: int) -> _Scenario:
    rng = Random(f"scenario-{seed}")
    rolling, divided, shared = (rng.random() < part for part in (0.1, 0.2, 0.1))
    return _Scenario(
        rng,
        rolling_seconds=rng.choice(ROLLING_SECONDS[kind]) if rolling and kind != "race" else 0,
        max_values=rng.choice((1, 2, 3, 6)) if divided and kind != "race" else 0,
        durability="Node" if rng.random() < 0.3 else "Process",
        members=min(pods, rng.choice((2, 2, 3))) if shared else 1,
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
