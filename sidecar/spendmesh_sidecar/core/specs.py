"""
What a policy says, as frozen data: the vocabulary that decisions in `core` take and `policy` carries.

Names are those of the kinds (contract §1) in snake_case; amounts are integers (`core.prices.money`), durations
milliseconds. Nothing here decides, and nothing here knows Kubernetes.
"""

from __future__ import annotations

from typing import Literal

from spendmesh_sidecar.core.failures.retry_specs import (
    BreakerSpec as BreakerSpec,
    ClusterShareSpec as ClusterShareSpec,
    ConcurrencySpec as ConcurrencySpec,
    DeduplicationSpec as DeduplicationSpec,
    OperationTimeouts as OperationTimeouts,
    RetryCostSpec as RetryCostSpec,
    RetrySpec as RetrySpec,
    TimeoutSpec as TimeoutSpec,
    WeightSpec as WeightSpec,
)
from spendmesh_sidecar.core.prices.specs import (
    ListedModel as ListedModel,
    ModelMatch as ModelMatch,
    ModelPrice as ModelPrice,
    PriceList as PriceList,
    PriceRow as PriceRow,
    TokenPrices as TokenPrices,
)
from spendmesh_sidecar.core.spec_base import (
    Dialect as Dialect,
    Mode as Mode,
    OperationName as OperationName,
    Period as Period,
    PerType as PerType,
    Reservation as Reservation,
    Spec as Spec,
    Unit as Unit,
)

MAX_VALUES = 1000
"""Accounts that a divided limit has in one period where it does not say how many."""

# --- providers --------------------------------------------------------------------------------------------


class ProviderSpec(Spec, frozen=True, kw_only=True):
    """Where one provider is and what it costs. Never holds a key."""

    alias: str
    """The name that this policy's targets and `/providers/<alias>/…` use."""
    ref: str
    """`namespace/name` of the ModelProvider, for people and records."""
    dialect: Dialect
    base_url: str
    """As the dialect's SDK takes it, without a trailing slash."""
    auth: Literal["APIKey", "None"] = "APIKey"
    key_name: str = ""
    """Name under which the sidecar finds the key (a file in its key directory); empty for auth None."""
    secret: str = ""
    """`Secret/item` that the key comes from, for people."""
    allowed_fields: tuple[str, ...] = ()
    price_list: str = ""
    """Which list of the built-in price table speaks for models that `prices` does not name."""
    prices: tuple[ModelPrice, ...] = ()
    platform: bool = False
    """Of the operator's namespace: its prices count for budgets of the organisation as they are."""


# --- routing ----------------------------------------------------------------------------------------------


class TargetSpec(Spec, frozen=True, kw_only=True):
    """Provider and model of one tier; priority 0 is tried first, higher ones are failover."""

    name: str
    provider: str
    model: str
    priority: int = 0


class TierSpec(Spec, frozen=True, kw_only=True):
    """One step of the order from cheap to strong."""

    name: str
    targets: tuple[TargetSpec, ...]


class ModelPattern(Spec, frozen=True, kw_only=True):
    """A glob (`*` only) of model names that the policy chooses for."""

    pattern: str
    ceiling: Literal["None", "Asked"] = "None"
    """Asked: never a target dearer than the model that was asked for."""


class When(Spec, frozen=True, kw_only=True):
    """All that is set must hold; an empty one always holds."""

    tasks: tuple[str, ...] = ()
    user_plans: tuple[str, ...] = ()


class RuleSpec(Spec, frozen=True, kw_only=True):
    """The first rule that holds picks the tier."""

    name: str
    when: When
    tier: str


class BoundSpec(Spec, frozen=True, kw_only=True):
    """Every bound that holds clamps the tier. A maximum beats a minimum (contract §1)."""

    name: str
    when: When = When()
    min_tier: str = ""
    max_tier: str = ""


class RoutingSpec(Spec, frozen=True, kw_only=True):
    """A whole RoutingPolicy after inheritance by section."""

    name: str
    """`namespace/name@generation` of the policy that gave the tiers: the header `x-spendmesh-policy`."""
    mode: Mode = "Enforce"
    tiers: tuple[TierSpec, ...] = ()
    default_tier: str = ""
    models: tuple[ModelPattern, ...] = ()
    unmatched: Literal["PassThrough", "Deny"] = "PassThrough"
    rules: tuple[RuleSpec, ...] = ()
    bounds: tuple[BoundSpec, ...] = ()


# --- budgets ----------------------------------------------------------------------------------------------


class ThresholdSpec(Spec, frozen=True, kw_only=True):
    """A step of the ladder, in percent of settled and quarantined, below 100."""

    percent: int
    notify: bool = False
    max_tier: str = ""
    """Downgrade: no dearer tier than this from here on."""
    max_output_tokens: int = 0
    """Clamp: no call may ask for more output than this from here on; 0: none."""


class WindowSpec(Spec, frozen=True, kw_only=True):
    """Which period an account belongs to. Only the coordinator computes boundaries."""

    type: Literal["Calendar", "Rolling"] = "Calendar"
    period: Period | None = None
    """Of a calendar window."""
    time_zone: str = "Etc/UTC"
    anchor_day: int = 1
    """Month, Quarter and Year begin on this day of their first month, or on its last where it is shorter."""
    duration_seconds: int = 0
    """Length of a rolling window: at any instant, what was reserved in the last so many seconds counts."""


class PerSpec(Spec, frozen=True, kw_only=True):
    """One part of what a limit is divided by: each combination of values is an account of its own."""

    type: PerType
    name: str = ""
    """Of the header (lower case) or the pod's label; else empty."""


class OverrideSpec(Spec, frozen=True, kw_only=True):
    """An amount beside a limit's own, drained first from `starts` to `ends`; what is unspent then lapses."""

    name: str
    """It identifies the account."""
    amount: int
    starts: int
    """Unix seconds."""
    ends: int


class LimitSpec(Spec, frozen=True, kw_only=True):
    """One amount in one unit per period."""

    name: str
    unit: Unit = "Cost"
    currency: str = ""
    amount: int
    """Nano-units of `currency` for Cost, else a count."""
    window: WindowSpec
    models: tuple[str, ...] = ()
    """Globs of the models that it counts, as sent to the provider; empty: all. Sorted."""
    providers: tuple[str, ...] = ()
    """Globs of `namespace/name` of the ModelProviders that it counts; empty: all. Sorted."""
    thresholds: tuple[ThresholdSpec, ...] = ()
    """Sorted by percent."""
    on_exhausted: Literal["Deny"] = "Deny"
    on_unverifiable: Literal["Deny", "Survival", "Allow"] = "Deny"
    """What becomes of a call that lacks rights while nobody answers."""
    survival_percent: int = 0
    """With Survival: percent of the amount that holders keep for that time, between them."""
    allow_cap: int = 0
    """With Allow: what each sidecar may spend without rights in a period, as `amount`."""
    reservation: Reservation = "Strict"
    overshoot_percent: int = 0
    """Unless Strict: what all calls together may cost above what they hold, in percent of the amount."""
    per: tuple[PerSpec, ...] = ()
    """Empty: one account for all that matches. Else `amount` is that of each combination of values."""
    max_values: int = MAX_VALUES
    """With `per`: accounts of their own in one period; the coordinator puts further values into `other`."""
    overrides: tuple[OverrideSpec, ...] = ()
    """The one that ends first comes first: it is drained first."""


class BudgetSpec(Spec, frozen=True, kw_only=True):
    """One ModelBudget that matches the workload; every matching one applies to each attempt."""

    name: str
    """`namespace/name`."""
    mode: Mode = "Enforce"
    limits: tuple[LimitSpec, ...]
    unpriced_models: Literal["Deny", "Allow"] = "Deny"
    """Allow: a call without a price in a Cost limit's currency passes that limit uncounted."""
    organisation: bool = False
    """It reaches several namespaces: what one of them says a model costs cannot make it cheaper than the built-in
    price."""
