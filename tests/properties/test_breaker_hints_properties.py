"""What one sidecar's ejections can do to the others: make their own failures count sooner, and nothing else."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings, strategies as st

from spendmesh_operator.control.sightings import Sightings
from spendmesh_sidecar.core.failures.breaker import Breaker, Verdict
from spendmesh_sidecar.core.specs import BreakerSpec, ProviderSpec, RetrySpec, RoutingSpec, TargetSpec, TierSpec
from spendmesh_sidecar.policy import Policy
from spendmesh_sidecar.protocol import Ejection, Observations

TARGET = "openai/m"
SPEC = BreakerSpec(consecutive_5xx_errors=5, failure_percent=50, min_requests=10)
ONLY = TargetSpec(name="x", provider="openai", model="m")
POLICY = Policy(
    cluster="test",
    namespace="team-a",
    price_table="0" * 64,
    providers=(ProviderSpec(alias="openai", ref="team-a/openai", dialect="OpenAI", base_url="https://openai.example"),),
    routing=RoutingSpec(
        name="r",
        default_tier="t",
        tiers=(TierSpec(name="t", targets=(TargetSpec(name="x", provider="openai", model="m"),)),),
    ),
    retry=RetrySpec(breaker=SPEC),
)
VERDICTS = st.sampled_from([Verdict.SUCCESS, Verdict.SUCCESS, Verdict.FAILURE, Verdict.SOFT_FAILURE, Verdict.NEUTRAL])
STEPS = st.lists(st.tuples(st.floats(0.0, 3.0), VERDICTS, st.floats(0.0, 30.0)), max_size=60)


def settle(breaker: Breaker, verdict: Verdict, now: float, rng: random.Random) -> None:
    breaker.settle(breaker.permit(now) or breaker.bypass(), verdict, now, rng)


@given(steps=STEPS)
def test_without_a_failure_of_its_own_a_hinted_breaker_is_as_one_that_heard_nothing(
    steps: list[tuple[float, Verdict, float]],
) -> None:
    """Also where it is throttled."""
    hinted, plain, now = Breaker(SPEC), Breaker(SPEC), 0.0
    for wait, verdict, hint in steps:
        now += wait
        hinted.hint(now + hint)
        for breaker in (hinted, plain):
            settle(breaker, Verdict.SUCCESS if verdict is Verdict.FAILURE else verdict, now, random.Random(1))
        assert hinted.state(now) == plain.state(now)


@given(calls=st.integers(1, 60), seed=st.integers(0, 99))
def test_a_target_that_mostly_answers_stays_however_often_others_eject_it(calls: int, seed: int) -> None:
    """Fewer bad calls than good ones, and never five in a row: no hint ejects it."""
    breaker, rng, ahead, row = Breaker(SPEC), random.Random(seed), 0, 0
    for number in range(calls):
        now = number * 0.01
        breaker.hint(now + 30.0)
        fails = ahead > 1 and row < SPEC.consecutive_5xx_errors - 1 and rng.random() < 0.7
        ahead, row = (ahead - 1, row + 1) if fails else (ahead + 1, 0)
        settle(breaker, Verdict.FAILURE if fails else Verdict.SUCCESS, now, rng)
        assert breaker.state(now) == "serving"


@dataclass
class Pod:
    """One sidecar's breaker of the shared target."""

    uid: str
    breaker: Breaker = field(default_factory=lambda: Breaker(SPEC))
    told: int = 0

    def tell(self, sightings: Sightings, now: float) -> None:
        """As the observer does: each ejection once."""
        if self.breaker.state(now) == "ejected" and self.told != self.breaker.generation:
            self.told = self.breaker.generation
            left = int(self.breaker.reopens_in(now) * 1000)
            said = Observations(ejected=(Ejection(target=TARGET, reopens_in_ms=left),))
            sightings.hear(self.uid, POLICY, said, now)

    def hear(self, sightings: Sightings, now: float) -> None:
        """As the data plane does with the answer to a report."""
        for hint in sightings.hints(self.uid, POLICY, now):
            self.breaker.hint(now + hint.reopens_in_ms / 1000)


@settings(max_examples=20)
@given(peers=st.integers(1, 5), seed=st.integers(0, 2**16), rounds=st.integers(10, 200))
def test_one_bad_pod_cannot_close_a_target_to_the_fleet(peers: int, seed: int, rounds: int) -> None:
    """Its network is broken and it ejects for ever; the others, who are answered, lose not one call by it."""
    rng, sightings = random.Random(seed), Sightings()
    bad, good = Pod("bad"), [Pod(f"good-{number}") for number in range(peers)]
    hinted = 0
    for step in range(rounds):
        now = step * 1.0
        settle(bad.breaker, Verdict.FAILURE, now, rng)
        bad.tell(sightings, now)
        for pod in good:
            pod.hear(sightings, now)
            hinted += pod.breaker.hinted(now)
            assert pod.breaker.permit(now) is not None
            settle(pod.breaker, Verdict.SUCCESS, now, rng)
            assert pod.breaker.ejections == 0
    assert hinted > 0, "they did hear of it"


def test_a_peer_that_heard_ejects_after_one_failure_instead_of_five() -> None:
    """What hints are for: the second sidecar does not have to find out for itself."""
    rng, sightings = random.Random(1), Sightings()
    first, second, deaf = Pod("first"), Pod("second"), Pod("deaf")
    for _ in range(5):
        settle(first.breaker, Verdict.FAILURE, 0.0, rng)
    first.tell(sightings, 0.0)
    second.hear(sightings, 1.0)
    for pod in (second, deaf):
        settle(pod.breaker, Verdict.FAILURE, 1.0, rng)
    assert (second.breaker.state(1.0), deaf.breaker.state(1.0)) == ("ejected", "serving")
    assert sightings.hints("first", POLICY, 1.0) == (), "nobody is told its own word"
