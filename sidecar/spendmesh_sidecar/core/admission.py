"""
Whether a call may be made at all, and at which targets and prices: policy, fields, prices, budgets present.

Runs once, before anything is reserved. Left out: how much is left (`reservation`) and how targets fare (`attempts`).
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from spendmesh_sidecar.core.ledger.charges import Subject
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.view import ceilings, clamp, stepped
from spendmesh_sidecar.core.needs import Needs, needs_of
from spendmesh_sidecar.core.once import once
from spendmesh_sidecar.core.operations.fields import refused
from spendmesh_sidecar.core.output_field import output_field
from spendmesh_sidecar.core.policy_view import PolicyView
from spendmesh_sidecar.core.prices.costs import Pricing, never_dearer, unpriced_tiers
from spendmesh_sidecar.core.refusals import refuse
from spendmesh_sidecar.core.router import Candidate, Ceiling, PassedOver, Route, as_asked, route
from spendmesh_sidecar.core.shape import Shape, shape_of
from spendmesh_sidecar.core.specs import BudgetSpec, ModelPrice
from spendmesh_sidecar.core.types import Hints, ParsedRequest, Refusal

DEFAULT_OUTPUT_TOKENS = 4096
"""Injected where a limit needs a bound and neither client nor price knows one: the output limit that small models of
both dialects have long had."""
MAX_PLANS = 256
"""Plans that are remembered, about 3 KB each: clients choose models, tasks and maxima."""


class Priced(Struct, frozen=True, gc=False):
    """A target with its price, and the output that a reservation assumes."""

    candidate: Candidate
    price: ModelPrice | None
    max_output_tokens: int | None
    """The client's maximum, or the one for it; None: the operation has no output."""
    injected: bool = False
    """The maximum is ours: it is set in the request, and may shrink to what fits."""
    clamped: bool = False
    """The client's maximum is more than the model that policy chose can write or than a Clamp allows, or its name does
    not bind there: ours is sent in its place."""
    listed: ModelPrice | None = None
    """The built-in price, where budgets of the organisation count the dearer of both."""
    clamped_by: str = ""
    """`namespace/name/limit` of the Clamp that lowered the output maximum."""
    output_field: str = ""
    """Where the maximum is sent, if it is ours."""


def subject_of(candidate: Candidate, hints: Hints = Hints()) -> Subject:
    """What the limits are asked about an attempt at a target."""
    return Subject(candidate.target.model, candidate.provider.ref, hints)


class Plan(Struct, frozen=True, gc=False):
    """An admitted call."""

    route: Route
    targets: tuple[Priced, ...]
    """In order of preference; never empty."""
    include_usage: bool
    unpriced: tuple[PassedOver, ...] = ()
    """Targets of the route that limits cannot be checked for."""
    observed: Route | None = None
    """What the observed policy would have chosen; None: there is none, or it would have refused."""


def admit(
    request: ParsedRequest, policy: PolicyView, ledger: Ledger, pricing: Pricing, now: float, now_unix: int
) -> Plan | Refusal:
    """Check a call against policy and prices, and list its targets; nothing is booked."""
    steps = stepped(policy.budgets)
    downgrades = ceilings(ledger, policy.budgets, now, request.hints) if steps else ()
    plan = _plans.plan(shape_of(request), policy, pricing, downgrades, now_unix)
    if isinstance(plan, Refusal) or not steps:
        return plan
    return replace(plan, targets=tuple(_clamped(priced, request, policy, ledger, now) for priced in plan.targets))


class Plans:
    """Plans under one policy, the newest, by what they follow from; what they are is `_plan`'s."""

    def __init__(self) -> None:
        self._of: tuple[PolicyView, Pricing] | None = None
        self._compares_prices = False
        self._known: dict[tuple[Shape, tuple[Ceiling, ...], int], Plan] = {}

    @property
    def known(self) -> int:
        """Plans that are remembered."""
        return len(self._known)

    def plan(
        self, shape: Shape, policy: PolicyView, pricing: Pricing, downgrades: tuple[Ceiling, ...], now_unix: int
    ) -> Plan | Refusal:
        """Of calls of one shape under one policy the same, for as long as no price has begun in between."""
        if self._of is None or self._of[0] is not policy or self._of[1] is not pricing:
            self._of, self._known = (policy, pricing), {}
            self._compares_prices = _compares_prices(policy)
        key = shape, downgrades, now_unix if self._compares_prices else 0
        known = self._known.get(key)
        if known is not None:
            return known
        plan = _plan(shape, policy, pricing, downgrades, now_unix)
        if isinstance(plan, Plan):
            if len(self._known) >= MAX_PLANS:
                self._known.clear()
            self._known[key] = plan
        return plan


_plans = Plans()


def _compares_prices(policy: PolicyView) -> bool:
    """Whether a route depends on prices, which change with time."""
    patterns = (
        pattern for routing in (policy.routing, policy.observed_routing) if routing for pattern in routing.models
    )
    return any(pattern.ceiling == "Asked" for pattern in patterns)


def _plan(
    shape: Shape, policy: PolicyView, pricing: Pricing, downgrades: tuple[Ceiling, ...], now_unix: int
) -> Plan | Refusal:
    routing = policy.routing or policy.observed_routing
    if routing is None:
        return refuse("policy_missing", "No RoutingPolicy applies to this workload: apply one that matches its pod.")

    def not_dearer(candidate: Candidate) -> bool:
        return _proven_not_dearer(shape, policy, pricing, candidate, now_unix)

    lone_observer = policy.routing is None or routing.mode == "Observe"
    chosen = (
        as_asked(shape, routing.name, policy.providers)
        if lone_observer or not shape.model
        else route(shape, routing, policy.providers, downgrades, not_dearer)
    )
    if isinstance(chosen, Refusal):
        return chosen
    priced = _priced(shape, chosen, policy, pricing)
    if isinstance(priced, Refusal):
        return priced
    targets, unpriced = priced
    watched = routing if lone_observer else policy.observed_routing
    observed = route(shape, watched, policy.providers, (), not_dearer) if watched and shape.model else None
    include_usage = shape.usage_unasked and (enforced(policy.budgets) or not lone_observer)
    return Plan(chosen, targets, include_usage, unpriced, observed if isinstance(observed, Route) else None)


@once
def enforced(budgets: tuple[BudgetSpec, ...]) -> bool:
    """Whether any budget can refuse a call."""
    return any(budget.mode == "Enforce" for budget in budgets)


_Found = tuple[tuple[Priced, ...], tuple[PassedOver, ...]]


def _priced(shape: Shape, chosen: Route, policy: PolicyView, pricing: Pricing) -> _Found | Refusal:
    """Targets that can be priced as far as the limits need it, or the refusal that the first reason gives."""
    found: list[Priced] = []
    passed: list[PassedOver] = []
    refusal: Refusal | None = None
    for candidate in chosen.candidates:
        price = pricing.resolve(candidate.provider, candidate.target.model) if shape.model else None
        needs = needs_of(policy.budgets, subject_of(candidate), price.currency if price else "")
        why = _inadmissible(shape, candidate, price, needs, policy.unbudgeted) if shape.operation.billed else None
        if why is None:
            priced = _bounded(shape, candidate, price, needs, pricing)
            if needs.listed:
                priced = replace(priced, listed=_listed(candidate, price, pricing))
            found.append(priced)
        else:
            passed.append(PassedOver(candidate.key, why.message))
            refusal = refusal or why
    if found:
        return tuple(found), tuple(passed)
    assert refusal is not None  # a route has at least one candidate
    return refusal


def _inadmissible(
    shape: Shape, candidate: Candidate, price: ModelPrice | None, needs: Needs, unbudgeted: str
) -> Refusal | None:
    """Why the enforced limits cannot be checked for a target, or why none of them would be."""
    if not needs.any and unbudgeted == "Deny":
        return refuse(
            "policy_missing",
            f"No ModelBudget in mode Enforce that applies to this workload counts calls to {candidate.key}, and this "
            "installation refuses unbudgeted calls: apply one that matches its pod.",
        )
    return _unpriceable(shape, candidate, price, needs)


def _unpriceable(shape: Shape, candidate: Candidate, price: ModelPrice | None, needs: Needs) -> Refusal | None:
    if not (needs.money or needs.tokens):
        return None
    unpriced = shape.unpriced_fields
    if unpriced and (fields := refused(unpriced, candidate.provider.allowed_fields)):
        kind = "priced, and a budget in money applies" if needs.money else "bounded, and a budget in tokens applies"
        return refuse(
            "field_not_allowed",
            f"{fields[0]} cannot be {kind}. Leave it out, or have the platform team add it to allowedFields of "
            f"ModelProvider {candidate.provider.ref}.",
            param=fields[0],
        )
    if not needs.money:
        return None
    model = candidate.target.model
    if price is None:
        return refuse(
            "model_unpriced",
            f"Model {model!r} of ModelProvider {candidate.provider.ref} has no price, and a budget in money applies. "
            "Ask for a priced model, or have the platform team add its price to the ModelProvider.",
            param="model",
        )
    if other := sorted(needs.currencies - {price.currency}):
        return refuse(
            "model_unpriced",
            f"Model {model!r} of ModelProvider {candidate.provider.ref} is priced in {price.currency}, and a budget in "
            f"{other[0]} applies (CurrencyMismatch; nothing is converted). Add a price in {other[0]}, or a limit in "
            f"{price.currency}.",
            param="model",
        )
    if tiers := unpriced_tiers(price, shape.service_tiers):
        return refuse(
            "field_not_allowed",
            f"{tiers[0]} has no price for model {model!r} of ModelProvider {candidate.provider.ref}, and a budget in "
            "money applies. Leave it out, or ask for a model that the built-in price table has with that tier.",
            param="service_tier",
        )
    return None


def _bounded(shape: Shape, candidate: Candidate, price: ModelPrice | None, needs: Needs, pricing: Pricing) -> Priced:
    if not shape.output_field or not shape.operation.billed:
        return Priced(candidate, price, None)
    asked, most = shape.max_output_tokens, price.max_output_tokens if price else None
    field = output_field(shape, candidate.provider, candidate.target.model, pricing)
    if asked is not None:
        if candidate.target.model == shape.model:  # the client knows which name and maximum its model takes
            return Priced(candidate, price, asked, output_field=shape.output_field)
        least = asked if most is None else min(asked, most)
        return Priced(candidate, price, least, clamped=least < asked or field != shape.output_field, output_field=field)
    maximum = most or DEFAULT_OUTPUT_TOKENS
    return Priced(candidate, price, maximum, injected=needs.output, output_field=field)


def _listed(candidate: Candidate, price: ModelPrice | None, pricing: Pricing) -> ModelPrice | None:
    """The built-in price beside one that a namespace has set itself."""
    if price is None or candidate.provider.platform:
        return None
    listed = pricing.listed(candidate.provider, candidate.target.model)
    return listed if listed is not None and listed is not price and listed.currency == price.currency else None


def _clamped(priced: Priced, request: ParsedRequest, policy: PolicyView, ledger: Ledger, now: float) -> Priced:
    """The target with no more output than a Clamp allows."""
    limit = clamp(ledger, policy.budgets, now, subject_of(priced.candidate, request.hints))
    maximum = priced.max_output_tokens
    if limit is None or maximum is None or maximum <= limit.max_output_tokens:
        return priced
    return replace(priced, max_output_tokens=limit.max_output_tokens, clamped=True, clamped_by=limit.budget)


def _proven_not_dearer(shape: Shape, policy: PolicyView, pricing: Pricing, candidate: Candidate, now_unix: int) -> bool:
    asked = as_asked(shape, "", policy.providers)
    if isinstance(asked, Refusal):
        return False
    asked_price = pricing.resolve(asked.candidates[0].provider, shape.model)
    price = pricing.resolve(candidate.provider, candidate.target.model)
    if asked_price is None or price is None or asked_price.currency != price.currency:
        return False
    return never_dearer(price, asked_price, now_unix)
