"""The status that every kind of ours reports. Who computes and writes it is elsewhere; here is only its shape."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from spendmesh_operator.manifests.quantities import WHOLE
from spendmesh_operator.manifests.rules import ATOMIC, Node, list_map

Generation = Annotated[int, Field(ge=0), WHOLE]
Count = Annotated[int, Field(ge=0), WHOLE]
AmountText = Annotated[str, Field(max_length=40)]
ShortText = Annotated[str, Field(max_length=63)]


class Condition(Node):
    """One observation about the object, as in metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """What is observed: Accepted, ResolvedRefs, Priced, Programmed, Effective, WithinBudget, Accounted, Funded or
    SoleRetrier. Example: Accepted"""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so. Example: "True\""""
    observed_generation: Generation | None = None
    """The metadata.generation that was looked at; older than the object's means: not yet seen. Example: 3"""
    last_transition_time: datetime
    """When status changed last, RFC 3339. Example: 2026-01-31T09:30:00Z"""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why, in one CamelCase word for programs. Example: TierNotFound"""
    message: Annotated[str, Field(max_length=32768)]
    """Why, for people, with what to do. Example: no tier "gold" here; the cheapest one is used"""


class Workloads(Node):
    """How many workloads it concerns. A workload is the topmost owner of a pod, or a pod without an owner."""

    matched: Count | None = None
    """Workloads that it selects. Example: 4"""
    effective: Count | None = None
    """Matched workloads on which nothing more specific or older replaces it. Example: 3"""
    programmed: Count | None = None
    """Effective workloads whose running pods have all acknowledged it. Example: 3"""


class Status(Node):
    """What the operator reports about the object. Written by the operator only."""

    observed_generation: Generation | None = None
    """The metadata.generation that this status describes. Example: 3"""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), list_map("type")] | None = None
    """Observations by type: Accepted (valid and in use), ResolvedRefs (everything it names exists), Priced (every
    target has a price), Programmed (the pods have it), Effective, for budgets WithinBudget and Accounted (little is
    charged for pods that vanished before they reported), for ModelProviders Funded (no sidecar hears that its account
    is out of money), for RetryBudgets SoleRetrier (no client retries as well).
    Example: [{type: Accepted, status: "True"}]"""
    workloads: Workloads | None = None
    """Counts of workloads. Example: {matched: 4, effective: 4, programmed: 3}"""


class TightestLimit(Node):
    """The limit that is nearest to its end: what `kubectl get mbud` shows."""

    limit: ShortText
    """Name of the limit. Example: monthly"""
    period: ShortText | None = None
    """Its period: Hour, Day, Week, Month, Quarter or Year, or Rolling with its length. Example: Month"""
    used: AmountText | None = None
    """Settled and quarantined in the current period, in the limit's unit. Example: "2251.10\""""
    held: AmountText | None = None
    """Reserved for calls that are under way, in the limit's unit. Example: "18.00\""""
    amount: AmountText | None = None
    """The limit. Example: "2500.00\""""
    currency: ShortText | None = None
    """Currency of a Cost limit; absent for counts. Example: USD"""
    percent: Count | None = None
    """used in percent of amount, rounded down. Example: 90"""
    forecast: AmountText | None = None
    """What used will be at the end of the period if spend goes on as it does; absent in its first hundredth. It may
    exceed amount. Example: "2710.00\""""


class QuarantineStatus(Node):
    """Rights that are charged in full because their pods have not accounted for them."""

    reason: ShortText
    """Why: Silent, PodDeleted, LogLost, StateCopied or RightsExceeded. Example: PodDeleted"""
    amount: AmountText
    """How much, in the limit's unit. Example: "0.75\""""


class HolderStatus(Node):
    """A pod that holds rights to spend."""

    pod: Annotated[str, Field(max_length=512)]
    """Namespace and name of the pod. Example: team-a/support-7d9f-x2x4"""
    used: AmountText
    """What it has reported as spent, on the rights that it holds now. Example: "3.10\""""
    held: AmountText
    """Rights that it has beyond that. Example: "0.40\""""
    state: ShortText
    """Reporting, or why its rights are in quarantine. Example: Reporting"""


class CorrectionStatus(Node):
    """Proof that came later, booked by a person."""

    reference: Annotated[str, Field(max_length=128)]
    """Its unique reference. Example: invoice-2026-01"""
    amount: AmountText
    """What it adds to what is spent; negative takes back. Example: "-1.20\""""
    evidence: Annotated[str, Field(max_length=256)]
    """What it rests on. Example: line 17 of the provider's invoice"""
    time: datetime
    """When it was booked, RFC 3339. Example: 2026-01-31T09:30:00Z"""


class LimitStatus(Node):
    """One limit in its current period. Amounts are decimal numbers in the limit's own unit."""

    name: ShortText
    """Name of the limit. Example: monthly"""
    values: Count | None = None
    """Of a limit with per: values that were used in this period. All other figures are those of the fullest one, which
    is not named. Example: 12"""
    used: AmountText | None = None
    """Settled and quarantined in this period. Example: "2251.10\""""
    held: AmountText | None = None
    """Reserved for calls that are under way, or leased to a sidecar. Example: "18.00\""""
    quarantined: AmountText | None = None
    """Part of used: rights of sidecars that vanished before they reported, counted as spent. Example: "0.75\""""
    remaining: AmountText | None = None
    """What can still be handed out: amount less used and held. Example: "230.90\""""
    period_start: datetime | None = None
    """Start of the current period, or of the window that counts now, RFC 3339. Example: 2026-01-01T00:00:00+01:00"""
    resets_at: datetime | None = None
    """Start of the next period, when used is 0 again; of a rolling window when a part comes free. RFC 3339.
    Example: 2026-02-01T00:00:00+01:00"""
    percent: Count | None = None
    """used in percent of amount, rounded down. Example: 90"""
    stage: ShortText | None = None
    """What the limit does now: Within, Notify, Clamp, Downgrade, Exhausted or NameTaken. Example: Downgrade"""
    forecast: AmountText | None = None
    """What used will be at the end of the period if spend goes on as it does: used + time left × (average rate of the
    period + recent rate) / 2. Absent in the first hundredth of the period. Example: "2710.00\""""
    quarantine: Annotated[tuple[QuarantineStatus, ...], Field(max_length=8), list_map("reason")] | None = None
    """The quarantined part of used, by reason. Example: [{reason: PodDeleted, amount: "0.75"}]"""
    holder_count: Count | None = None
    """How many pods hold rights, or have them in quarantine. Example: 12"""
    holders: Annotated[tuple[HolderStatus, ...], Field(max_length=16), ATOMIC] | None = None
    """Those that hold most, at most ten.
    Example: [{pod: team-a/web-1, used: "3.10", held: "0.40", state: Reporting}]"""
    corrections: Annotated[tuple[CorrectionStatus, ...], Field(max_length=8), ATOMIC] | None = None
    """The last corrections, the newest first, at most five.
    Example: [{reference: invoice-2026-01, amount: "-1.20", evidence: line 17, time: 2026-01-31T09:30:00Z}]"""


class ModelBudgetStatus(Status):
    """What the operator reports about a budget. Coarse: live numbers are metrics."""

    tightest: TightestLimit | None = None
    """The limit that is nearest to its end. Example: {limit: monthly, used: "2251.10", amount: "2500.00"}"""
    limits: Annotated[tuple[LimitStatus, ...], Field(max_length=8), list_map("name")] | None = None
    """Every limit in its current period. Example: [{name: monthly, used: "2251.10", percent: 90}]"""


class ClusterShareStatus(Node):
    """How a RetryBudget of scope Cluster is divided. Coarse: live numbers are metrics."""

    members: Count | None = None
    """Pods that share it. Example: 12"""
    capacity_per_interval: Count | None = None
    """Retries that all pods together may make in budget.interval, by their calls and minRetryRate. Example: 40"""
    granted: Count | None = None
    """The part of that which pods hold as shares. Example: 37"""
    learning_until: datetime | None = None
    """Until then a new leader only repeats the shares that pods say they hold, RFC 3339; absent: it divides them.
    Example: 2026-01-31T09:30:15Z"""


class RetryBudgetStatus(Status):
    """What the operator reports about a RetryBudget."""

    cluster: ClusterShareStatus | None = None
    """With scope Cluster, how it is divided; absent while no pod shares it.
    Example: {members: 12, capacityPerInterval: 40, granted: 37}"""
