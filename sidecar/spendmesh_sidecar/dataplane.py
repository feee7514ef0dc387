"""
What one sidecar process knows while it runs: the policy in force and the state that outlives a policy swap.

Only holds things together; deciding is `core`'s and doing is the pipeline's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from random import Random

from spendmesh_sidecar.clock import Clock
from spendmesh_sidecar.control.leases import Leases
from spendmesh_sidecar.control.policy_source import Installed
from spendmesh_sidecar.core.failures.breaker import Breakers, State
from spendmesh_sidecar.core.failures.client_retries import ClientRetries
from spendmesh_sidecar.core.failures.concurrency import Limiters
from spendmesh_sidecar.core.failures.restraints import Restraints
from spendmesh_sidecar.core.failures.retry_budgets import RetryBudgets
from spendmesh_sidecar.core.failures.retry_share import SharedRetryBudget
from spendmesh_sidecar.core.joins.joining import Joins
from spendmesh_sidecar.core.ledger import view as ledger_view
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.partitions import scope_headers
from spendmesh_sidecar.core.prices.costs import Pricing
from spendmesh_sidecar.keys import KeySource
from spendmesh_sidecar.limits import Limits
from spendmesh_sidecar.protocol import Ejection
from spendmesh_sidecar.state.ledger_log import Log, NoLog
from spendmesh_sidecar.telemetry.exporter import Telemetry
from spendmesh_sidecar.telemetry.metrics import Labels, Metrics
from spendmesh_sidecar.upstream.wire import Upstream

_BREAKER_STATES: dict[State, int] = {"serving": 0, "probing": 1, "ejected": 2}


@dataclass(slots=True)
class DataPlane:
    """Everything a request needs. `installed`, `pricing` and `scope_headers` change together at a policy swap."""

    clock: Clock
    rng: Random
    new_id: Callable[[], str]
    upstream: Upstream
    keys: KeySource
    ledger: Ledger
    leases: Leases
    metrics: Metrics
    telemetry: Telemetry
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    log: Log = field(default_factory=NoLog)
    limits: Limits = field(default_factory=Limits)
    retry_budgets: RetryBudgets = field(default_factory=RetryBudgets)
    breakers: Breakers = field(default_factory=Breakers)
    limiters: Limiters = field(default_factory=Limiters)
    restraints: Restraints = field(default_factory=Restraints)
    client_retries: ClientRetries = field(default_factory=ClientRetries)
    joins: Joins = field(default_factory=Joins)
    installed: Installed | None = None
    pricing: Pricing | None = None
    scope_headers: frozenset[str] = frozenset()
    """Request headers that a limit of the policy is divided by."""
    active: int = 0
    """Requests in progress; `idle` is set while there are none."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    listening: bool = False
    """The data listener takes calls: until then the application must not start."""
    stopping: bool = False
    """Not ready any more; what runs is finished."""
    watched: tuple[asyncio.Task[None], ...] = ()
    """Background work that never ends by itself while the sidecar serves."""
    draining: int = 0
    """Answers read to their end for a client that has left."""

    def __post_init__(self) -> None:
        self.idle.set()

    def enter(self) -> None:
        """A request begins."""
        self.active += 1
        self.idle.clear()

    def leave(self) -> None:
        """A request has ended, whatever way."""
        self.active -= 1
        if not self.active:
            self.idle.set()

    @property
    def broken(self) -> str:
        """Name of background work that has ended by a defect; the container has to be restarted then."""
        return "" if self.stopping else next((task.get_name() for task in self.watched if task.done()), "")

    def install(self, installed: Installed) -> None:
        """Swap the policy. Requests in flight finish under the one they began with."""
        if self.installed is None or self.installed.digest != installed.digest:
            self.joins.clear()
        self.pricing = Pricing(installed.prices.lists, installed.prices.version)
        self.scope_headers = scope_headers(installed.policy.budgets)
        self.installed = installed
        self.ledger.set_budgets(installed.policy.budgets, self.clock.monotonic())

    def client_retried(self, outcome: str) -> None:
        """A client has retried on its own; what became of it, or `unmarked`: it did not say so."""
        self.metrics.add("spendmesh_client_retries_total", (("outcome", outcome),))
        self.client_retries.seen("unmarked" if outcome == "unmarked" else "marked", self.clock.monotonic())

    def heed(self, hints: tuple[Ejection, ...]) -> None:
        """Other sidecars have ejected targets of this policy, for so long."""
        if self.installed is None:
            return
        policy, now = self.installed.policy, self.clock.monotonic()
        spec = policy.retry.breaker
        for hint in hints:
            if hint.target in policy.targets:
                lasts_ms = min(hint.reopens_in_ms, spec.max_ejection_ms)
                self.breakers.of(hint.target, spec).hint(now + lasts_ms / 1000)

    def ejections(self, now: float) -> dict[tuple[str, int], float]:
        """By target of the policy and generation of its breaker: seconds left, of those that others do not know of."""
        policy = self.installed.policy if self.installed else None
        if policy is None or policy.retry.breaker.mode == "ForcedOpen":
            return {}  # a person's word is in everybody's policy
        return {
            (key, breaker.generation): breaker.reopens_in(now)
            for key, breaker in self.breakers.items()
            if breaker.state(now) == "ejected" and key in policy.targets and not breaker.hinted(now)
        }

    @property
    def shared_retries(self) -> tuple[SharedRetryBudget, ...]:
        """Retry budgets of the policy that are shares of what all pods may retry."""
        return tuple(self.retry_budgets.shared(self.installed.policy)) if self.installed else ()

    def gauges(self) -> dict[str, list[tuple[Labels, int]]]:
        """What is read at the moment of a scrape; names that end in `_total` only grow."""
        now = self.clock.monotonic()
        return {
            "spendmesh_breaker_state": [
                ((("target", key),), _BREAKER_STATES[state]) for key, state in self._breaker_states(now).items()
            ],
            "spendmesh_account_unpaid": [
                ((("provider", alias),), int(bool(code))) for alias, code in self.unpaid_accounts().items()
            ],
            "spendmesh_breaker_hinted": [
                ((("target", key),), 1) for key, breaker in self.breakers.items() if breaker.hinted(now)
            ],
            **self._breaker_counts(),
            **self._concurrency(),
            "spendmesh_joins_total": [((("outcome", name),), count) for name, count in self.joins.outcomes.items()],
            "spendmesh_joinable_bytes": [((), self.joins.kept_bytes)],
            **self._retry_shares(now),
            "spendmesh_requests_active": [((), self.active)],
            "spendmesh_leases_reachable": [((), int(self.leases.reachable))],
            "spendmesh_ledger_writable": [((), int(not self.log.problem))],
        }

    def _breaker_counts(self) -> dict[str, list[tuple[Labels, int]]]:
        """What breakers did, by target as `_breaker_states` names them."""
        targets = self.installed.policy.targets if self.installed else frozenset()
        counted: dict[str, Counter[Labels]] = {
            "spendmesh_breaker_ejections_total": Counter(),
            "spendmesh_breaker_probes_total": Counter(),
            "spendmesh_breaker_bypasses_total": Counter(),
        }
        ejections, probes, bypasses = counted.values()
        for key, breaker in self.breakers.items():
            target = ("target", key if key in targets else "other")
            for reason, times in breaker.ejected_for.items():
                ejections[target, ("reason", reason)] += times
            probes[target,] += breaker.probes
            bypasses[target,] += breaker.bypasses
        return {name: [(labels, count) for labels, count in each.items() if count] for name, each in counted.items()}

    def _retry_shares(self, now: float) -> dict[str, list[tuple[Labels, int]]]:
        """Of retry budgets that all pods share, in hundredths of a retry in each interval."""
        shown = [((("budget", each.spec.name),), each) for each in self.shared_retries]
        return {
            "spendmesh_retry_share": [(labels, each.limit(now)) for labels, each in shown],
            "spendmesh_retry_share_left": [(labels, max(0, each.balance(now))) for labels, each in shown],
            "spendmesh_retry_share_leased": [(labels, int(each.leased(now))) for labels, each in shown],
        }

    def _concurrency(self) -> dict[str, list[tuple[Labels, int]]]:
        """Limits by target of the policy; what only clients name is not shown."""
        targets = self.installed.policy.targets if self.installed else frozenset()
        shown = [((("target", key),), each) for key, each in self.limiters.items() if key in targets]
        return {
            "spendmesh_concurrency_limit": [(labels, int(limiter.limit)) for labels, limiter in shown],
            "spendmesh_concurrency_in_flight": [(labels, limiter.in_flight) for labels, limiter in shown],
            "spendmesh_concurrency_full_total": [(labels, limiter.full) for labels, limiter in shown if limiter.full],
        }

    def _breaker_states(self, now: float) -> dict[str, State]:
        """By target of the policy. Other names come from clients: together they are `other`, as bad as the worst."""
        targets = self.installed.policy.targets if self.installed else frozenset()
        states: dict[str, State] = {}
        for key, breaker in self.breakers.items():
            name, state = key if key in targets else "other", breaker.state(now)
            states[name] = max(state, states.get(name, state), key=_BREAKER_STATES.__getitem__)
        return states

    def unpaid_accounts(self) -> dict[str, str]:
        """By alias, what the provider says of an account that is out of money; empty where it pays."""
        providers = self.installed.policy.providers if self.installed else ()
        return {provider.alias: self.restraints.unpaid(provider) for provider in providers}

    def status(self) -> dict[str, object]:
        """`/status`: policy, rights and breakers in the words of the tests. No key, no user value."""
        now = self.clock.monotonic()
        installed = self.installed
        return {
            "policy": None
            if installed is None
            else {
                "digest": installed.digest,
                "epoch": installed.stamp.epoch,
                "sequence": installed.stamp.sequence,
                "routing": installed.policy.routing.name if installed.policy.routing else None,
                "retry": installed.policy.retry.name or "built-in defaults",
                "prices": f"{installed.prices.version} of {installed.prices.date}",
                "sources": [f"{s.kind} {s.name}@{s.generation}" for s in installed.policy.sources],
            },
            "control": {"leases": "reachable" if self.leases.reachable else "unreachable", "nonce": self.ledger.nonce},
            "log": self.log.problem or "writable",
            "rights": [asdict(account) for account in ledger_view.status(self.ledger, now)],
            "breakers": self._breaker_states(now),
            "unpaid": {alias: code for alias, code in self.unpaid_accounts().items() if code},
            "requests": {"active": self.active, "draining": self.draining, "reserved": self.ledger.open_reservations},
        }
