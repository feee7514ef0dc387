"""Whole calls of one pod, interleaved: every leave that was given is settled once, however a call ends."""

from __future__ import annotations

from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from msgspec.structs import replace

from exchange_world import CONNECT, RETRY, UNIX, World, chat, failure, policy, success, throttled
from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.failures.breaker import PROBE_LEASE_SECONDS
from spendmesh_sidecar.core.outcome import broken
from spendmesh_sidecar.core.specs import BreakerSpec, ConcurrencySpec
from spendmesh_sidecar.core.types import Acquire, Attempt, Kind, Outcome, Respond, Step, Wait

ENDS = (
    success(),
    failure(500),
    failure(503),
    failure(400, kind=Kind.NON_RETRYABLE),
    throttled(),
    throttled(2.0),
    CONNECT,
    Outcome(Kind.CLIENT_GONE),
    Outcome(Kind.UNWRITTEN),
    broken(Kind.CUT, status=200, committed=True),
    broken(Kind.TIMEOUT),
)


class Call:
    """One exchange and the step that its driver has to do."""

    def __init__(self, exchange: Exchange, step: Step) -> None:
        self.exchange, self.step = exchange, step

    @property
    def target(self) -> str:
        """Where its attempt is in flight; empty: it has none."""
        return f"{self.step.provider.alias}/{self.step.model}" if isinstance(self.step, Attempt) else ""


class Pod(RuleBasedStateMachine):
    """Calls that begin, get first bytes, end, are cancelled or wait, in any order."""

    calls = Bundle("calls")

    @initialize(
        consecutive=st.integers(1, 3),
        on_all_ejected=st.sampled_from(("Serve", "Deny")),
        on_limit=st.sampled_from(("Serve", "Deny")),
        mode=st.sampled_from(("Enforce", "Observe")),
        maximum=st.integers(1, 4),
    )
    def start(self, consecutive: int, on_all_ejected: str, on_limit: str, mode: str, maximum: int) -> None:
        breaker = BreakerSpec(
            mode=mode,  # type: ignore[arg-type]
            consecutive_5xx_errors=consecutive,
            min_requests=4,
            on_all_ejected=on_all_ejected,  # type: ignore[arg-type]
        )
        limits = ConcurrencySpec(maximum=maximum, on_limit=on_limit)  # type: ignore[arg-type]
        retry = replace(RETRY, breaker=breaker, concurrency=limits, min_retry_count=50)
        self.limits, self.world = limits, World(policy(retry=retry))
        self.live: list[Call] = []

    @rule(seconds=st.floats(0.01, 20))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(target=calls, model=st.sampled_from(("auto", "spendmesh/economy")))
    def begins(self, model: str) -> Call:
        exchange = self.world.exchange(chat(model=model))
        call = Call(exchange, exchange.begin(self.world.now, UNIX))
        self.live.append(call)
        self.rights_come(call)
        return call

    def rights_come(self, call: Call) -> None:
        if isinstance(call.step, Acquire):
            call.step = self.world._acquire(call.exchange, call.step)

    @rule(call=calls)
    def gets_its_first_byte(self, call: Call) -> None:
        call.exchange.started(self.world.now)

    @rule(call=calls, outcome=st.sampled_from(ENDS))
    def ends(self, call: Call, outcome: Outcome) -> None:
        if isinstance(call.step, Attempt):
            call.step = call.exchange.observe(outcome, self.world.now, UNIX)
            self.rights_come(call)

    @rule(call=calls)
    def has_waited(self, call: Call) -> None:
        if isinstance(call.step, Wait):
            self.world.now += call.step.seconds
            call.step = call.exchange.resume(self.world.now, UNIX)
            self.rights_come(call)

    @rule(call=consumes(calls))
    def is_closed(self, call: Call) -> None:
        """By its end, a client that left, a cancelled task or a failed driver: the exchange is told no more."""
        call.exchange.close(self.world.now)
        call.step = Respond()
        self.live.remove(call)

    @invariant()
    def places_are_those_of_the_attempts_in_flight(self) -> None:
        running = [call.target for call in self.live if call.target]
        for key in ("openai/small-1", "openai/medium-1", "backup/medium-2"):
            limiter = self.world.limiters.of(key, self.limits)
            assert limiter.in_flight == running.count(key)
            assert self.limits.on_limit == "Serve" or limiter.in_flight <= self.limits.maximum

    @invariant()
    def each_generation_has_one_probe_at_a_time(self) -> None:
        probes = [
            (call.target, flight.permit.generation)
            for call in self.live
            if (flight := call.exchange._flight) is not None
            and flight.permit.probe
            and not flight.permit.settled
            and self.world.now - self.sent_at(call) < PROBE_LEASE_SECONDS
        ]
        assert len(probes) == len(set(probes))

    def sent_at(self, call: Call) -> float:
        assert call.exchange._tries is not None
        return call.exchange._tries.health._sent

    def teardown(self) -> None:
        """Whatever is left ends with its exchange, and leaves nothing behind."""
        for call in getattr(self, "live", ()):
            call.exchange.close(self.world.now)
        if hasattr(self, "world"):
            assert all(limiter.in_flight == 0 for _, limiter in self.world.limiters.items())
            assert self.world.ledger.open_reservations == 0


Pod.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestPod = Pod.TestCase
