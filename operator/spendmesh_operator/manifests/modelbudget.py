"""ModelBudget: what may be spent, in which period, and what happens on the way there. The books are the ledger's."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from spendmesh_operator.manifests.attachment import OrganisationAttachment
from spendmesh_operator.manifests.common import (
    ACCEPTED,
    AGE,
    MODE,
    PROGRAMMED,
    Column,
    CrdNames,
    Currency,
    Manifest,
    Name,
    ObjectName,
    Pattern,
)
from spendmesh_operator.manifests.conditions import ModelBudgetStatus
from spendmesh_operator.manifests.division import Per
from spendmesh_operator.manifests.override import COUNT_MAX, Override
from spendmesh_operator.manifests.quantities import TOKENS_MAX, WHOLE, DecimalText, nanos
from spendmesh_operator.manifests.rules import SET, UNSTORED, Node, Rule, TransitionRule, list_map, unchanged
from spendmesh_operator.manifests.windows import SAME_WINDOW, Window

Unit = Literal["Cost", "InputTokens", "OutputTokens", "TotalTokens", "Requests"]

COST_MAX = 10**9
"""In nano-units 10^18: the largest power of ten that a BIGINT holds."""


class Action(Node):
    """What is done when a threshold is reached."""

    RULES = (
        Rule(
            "self.type == 'Downgrade' ? has(self.maxTier) : !has(self.maxTier)",
            lambda action: (action.type == "Downgrade") == (action.max_tier is not None),
            "maxTier goes with type Downgrade and with nothing else: add maxTier: <tier>, or take it out",
        ),
        Rule(
            "self.type == 'Clamp' ? has(self.maxOutputTokens) : !has(self.maxOutputTokens)",
            lambda action: (action.type == "Clamp") == (action.max_output_tokens is not None),
            "maxOutputTokens goes with type Clamp and with nothing else: add maxOutputTokens: <count>, or take it out",
        ),
    )

    type: Literal["Notify", "Downgrade", "Clamp"]
    """Notify: an Event and a condition. Downgrade: calls that a policy chooses for get maxTier at most. Clamp: calls
    that the limit counts get maxOutputTokens at most, whichever model they name. Example: Downgrade"""
    max_tier: Name | None = None
    """With Downgrade: the highest tier. A policy without a tier of that name uses its cheapest. Example: economy"""

    max_output_tokens: Annotated[int, Field(ge=1, le=TOKENS_MAX), WHOLE] | None = None
    """With Clamp: the most output tokens that a call may ask for; more is lowered to it, and it stands in where a call
    names no maximum. Of several reached thresholds the least counts. Example: 1024"""


class Threshold(Node):
    """Acts before the limit is reached."""

    percent: Annotated[int, Field(ge=1, le=99), WHOLE]
    """Percent of the amount, of what is settled or quarantined. Example: 80"""
    actions: Annotated[tuple[Action, ...], Field(min_length=1, max_length=3), list_map("type")]
    """What is done from there on until the period ends. Example: [{type: Downgrade, maxTier: economy}]"""


class Limit(Node):
    """One amount in one period."""

    RULES = (
        Rule(
            "self.unit == 'Cost' ? has(self.currency) : !has(self.currency)",
            lambda limit: (limit.unit == "Cost") == (limit.currency is not None),
            "currency goes with unit Cost and with nothing else: add currency: USD (or another), or take it out",
        ),
        Rule(
            "self.unit != 'Cost' || !isQuantity(string(self.amount)) || "
            f"quantity(string(self.amount)).compareTo(quantity('{COST_MAX}')) <= 0",
            lambda limit: limit.unit != "Cost" or limit.amount <= COST_MAX,
            f"a Cost limit is at most {COST_MAX}: write a smaller amount",
            ".amount",
        ),
        Rule(
            "self.unit == 'Cost' || string(self.amount).matches('^[0-9]+$')",
            lambda limit: limit.unit == "Cost" or limit.amount.as_tuple().exponent == 0,
            "tokens and requests are counted: write a whole number without a point",
            ".amount",
        ),
        Rule(
            "(has(self.onUnverifiable) && self.onUnverifiable == 'Survival') == has(self.survivalPercent)",
            lambda limit: (limit.on_unverifiable == "Survival") == (limit.survival_percent is not None),
            "survivalPercent goes with onUnverifiable Survival and with nothing else: add one, or take it out",
        ),
        Rule(
            "(has(self.onUnverifiable) && self.onUnverifiable == 'Allow') == has(self.allowCap)",
            lambda limit: (limit.on_unverifiable == "Allow") == (limit.allow_cap is not None),
            "allowCap goes with onUnverifiable Allow and with nothing else: add one, or take it out",
        ),
        Rule(
            "!has(self.allowCap) || (self.unit == 'Cost' ? "
            f"quantity(string(self.allowCap)).compareTo(quantity('{COST_MAX}')) <= 0 : "
            "string(self.allowCap).matches('^[0-9]+$'))",
            lambda limit: (
                limit.allow_cap is None
                or (limit.allow_cap <= COST_MAX if limit.unit == "Cost" else limit.allow_cap.as_tuple().exponent == 0)
            ),
            f"allowCap of a Cost limit is at most {COST_MAX}, of a counted one a whole number",
        ),
        Rule(
            "(!has(self.reservation) || self.reservation == 'Strict') != has(self.overshootPercent)",
            lambda limit: (limit.reservation == "Strict") == (limit.overshoot_percent is None),
            "overshootPercent goes with reservation Streaming and Expected, not with Strict: add one, or take it out",
        ),
    )
    TRANSITIONS = (
        TransitionRule(
            "self.unit == oldSelf.unit",
            lambda old, new: old.unit == new.unit,
            "unit of a limit never changes: add a limit with a new name",
            ".unit",
        ),
        TransitionRule(
            unchanged("currency"),
            lambda old, new: old.currency == new.currency,
            "currency of a limit never changes: add a limit with a new name",
        ),
        TransitionRule(
            SAME_WINDOW,
            lambda old, new: old.window == new.window,
            "window of a limit never changes: add a limit with a new name",
            ".window",
        ),
        TransitionRule(
            unchanged("models"),
            lambda old, new: set(old.models) == set(new.models),
            "models of a limit never change: add a limit with a new name",
        ),
        TransitionRule(
            unchanged("providers"),
            lambda old, new: set(old.providers) == set(new.providers),
            "providers of a limit never change: add a limit with a new name",
        ),
        TransitionRule(
            "(has(self.per) ? self.per : []) == (has(oldSelf.per) ? oldSelf.per : [])",
            lambda old, new: old.per == new.per,
            "per of a limit never changes: add a limit with a new name",
        ),
    )

    name: Name
    """Name of the limit. It identifies the account: a limit with a new name starts at zero. Example: monthly"""
    unit: Unit = "Cost"
    """What is counted: Cost in a currency, InputTokens, OutputTokens, TotalTokens (both), or Requests. It never
    changes. Example: TotalTokens"""
    currency: Currency | None = None
    """With unit Cost: currency of the amount, ISO 4217. Nothing is converted. It never changes. Example: USD"""
    amount: Annotated[Decimal, DecimalText(COUNT_MAX, positive=True)]
    """What may be spent in one period, in the unit: an integer or a quoted decimal; Cost at most 1000000000 with at
    most 9 decimals, counts whole and at most 10^15. Example: "2500.00\""""
    window: Window
    """The period. It never changes. Example: {type: Calendar, period: Month, timeZone: Europe/Berlin}"""
    models: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=32), SET] = ()
    """Models that the limit counts, as they are sent to the provider; * stands for any text. Calls to others take
    nothing from it. Absent: all models. It never changes. Example: [gpt-*, o3]"""
    providers: Annotated[tuple[ObjectName, ...], Field(min_length=1, max_length=16), SET] = ()
    """ModelProviders that the limit counts, by name: of this namespace, or with namespaceSelector of that name in any
    namespace. Calls to others take nothing from it. Absent: all. It never changes. Example: [openai]"""
    thresholds: Annotated[tuple[Threshold, ...], Field(max_length=16), list_map("percent")] = ()
    """What is done on the way, in any order. Example: [{percent: 80, actions: [{type: Notify}]}]"""
    on_exhausted: Literal["Deny"] = "Deny"
    """What becomes of a call that does not fit any more: Deny refuses it with budget_exceeded. Example: Deny"""

    on_unverifiable: Annotated[Literal["Deny", "Survival", "Allow"], UNSTORED] = "Deny"
    """What becomes of a call that lacks rights while nobody answers. Deny refuses it with budget_unverifiable. Survival
    lets sidecars keep survivalPercent of the amount between them for that time. Allow lets each spend up to allowCap
    without rights, which is booked afterwards and can exceed the limit. The strictest limit of a call decides.
    Example: Survival"""
    survival_percent: Annotated[int, Field(ge=1, le=50), WHOLE] | None = None
    """With Survival: percent of the amount, which is then not spent while the operator answers. Example: 5"""
    allow_cap: Annotated[Decimal, DecimalText(COUNT_MAX, positive=True)] | None = None
    """With Allow: what each sidecar may spend without rights in a period, in the limit's unit. Example: "1.00\""""
    reservation: Annotated[Literal["Strict", "Streaming", "Expected"], UNSTORED] = "Strict"
    """What a call holds while it runs. Strict: all that it may cost, so that the amount is never exceeded. Streaming:
    of a stream its input and the next 1,024 tokens of its output; it is ended when no more can be held. Expected: what
    95 % of the calls to its model have cost lately. The latter two as far as overshootPercent allows; else all. May
    change. Example: Expected"""
    overshoot_percent: Annotated[int, Field(ge=1, le=100), WHOLE] | None = None
    """With Streaming and Expected: percent of the amount that may be spent above it, whatever clients do. Calls under
    way are exposed to no more than that beyond what they hold. May change. Example: 5"""
    per: Per = ()
    """What the limit is divided by: each combination of values has the whole amount for itself. Absent: all calls share
    one. A call without a value is counted under the value other. It never changes. Example: [{type: User}]"""
    max_values: Annotated[int, Field(ge=1, le=10_000), WHOLE] | None = None
    """With per: combinations with an account of their own in one period, of which one pod can open half of what is
    left; further ones share the value other. Absent: 1000. Example: 5000"""

    @property
    def amount_units(self) -> int:
        """The amount as the books count it: nano-units of the currency for Cost, the count itself otherwise."""
        return self.units(self.amount)

    def units(self, amount: Decimal) -> int:
        """An amount in the limit's unit as the books count it."""
        return nanos(amount) if self.unit == "Cost" else int(amount)


class ModelBudgetSpec(OrganisationAttachment):
    """What the pods that it applies to may spend together. All budgets that match a call apply to it."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *OrganisationAttachment.RULES,
        Rule(
            "!has(self.overrides) || self.overrides.all(o, self.limits.exists(l, l.name == o.limit))",
            lambda spec: {each.limit for each in spec.overrides} <= {limit.name for limit in spec.limits},
            "an override names a limit that this budget does not have: write one of its limits",
            ".overrides",
        ),
        Rule(
            "!has(self.overrides) || self.overrides.all(o, self.limits.all(l, l.name != o.limit || (l.unit == 'Cost' ? "
            f"quantity(string(o.increase)).compareTo(quantity('{COST_MAX}')) <= 0 : "
            "string(o.increase).matches('^[0-9]+$'))))",
            lambda spec: all(
                each.increase <= COST_MAX if limit.unit == "Cost" else each.increase.as_tuple().exponent == 0
                for each in spec.overrides
                for limit in spec.limits
                if limit.name == each.limit
            ),
            f"an increase of a Cost limit is at most {COST_MAX}, of a counted one a whole number",
            ".overrides",
        ),
    )

    limits: Annotated[tuple[Limit, ...], Field(min_length=1, max_length=8), list_map("name")]
    """Limits; all of them apply. What a limit counts and when never changes: add a limit with a new name.
    Example: [{name: monthly, currency: USD, amount: "2500.00", window: {type: Calendar, period: Month}}]"""
    overrides: Annotated[tuple[Override, ...], Field(max_length=16), list_map("name")] = ()
    """More for a while, without touching a limit.
    Example: [{name: launch, limit: monthly, increase: 1000, from: "2026-12-01T00:00:00Z",
    until: "2026-12-03T00:00:00Z", reason: launch week}]"""

    unpriced_models: Annotated[Literal["Deny", "Allow"], UNSTORED] = "Deny"
    """What becomes of a call without a price in the currency of a Cost limit. Deny refuses it. Allow lets it pass that
    limit uncounted; condition Priced and the metric spendmesh_uncounted_attempts_total tell of it. Example: Allow"""


class ModelBudget(Manifest):
    """What may be spent on models. A limit holds also while the operator is away: rights are handed out before they are
    spent, and a call that does not fit any more is refused with 402."""

    CRD: ClassVar[CrdNames] = CrdNames(
        plural="modelbudgets",
        short="mbud",
        policy="inherited",
        columns=(
            Column(name="Limit", path=".status.tightest.limit", description="The limit nearest to its end."),
            Column(name="Period", path=".status.tightest.period", description="Its period."),
            Column(name="Spent", path=".status.tightest.used", description="Settled and quarantined in this period."),
            Column(name="Held", path=".status.tightest.held", description="Reserved for calls under way."),
            Column(name="Of", path=".status.tightest.amount", description="The limit's amount."),
            Column(name="Currency", path=".status.tightest.currency", description="Currency of a Cost limit."),
            Column(name="Used%", path=".status.tightest.percent", type="integer", description="Spent in percent."),
            Column(name="Forecast", path=".status.tightest.forecast", description="Spent at the period's end."),
            MODE,
            ACCEPTED,
            PROGRAMMED,
            AGE,
        ),
    )
    STATUS: ClassVar[type[Node] | None] = ModelBudgetStatus

    kind: Literal["ModelBudget"]
    spec: ModelBudgetSpec
