"""ModelBudget to BudgetSpec: amounts in integers, thresholds in order, tiers that the pod's routing has."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import msgspec

from spendmesh_operator.compile.attachment import Placed
from spendmesh_operator.compile.economics import TargetPrice
from spendmesh_operator.compile.model import Finding
from spendmesh_operator.manifests import Limit, ModelBudget, Window
from spendmesh_operator.manifests.override import Override
from spendmesh_sidecar.core.ledger.charges import Subject, counts
from spendmesh_sidecar.core.specs import (
    MAX_VALUES,
    BudgetSpec,
    LimitSpec,
    OverrideSpec,
    PerSpec,
    RoutingSpec,
    ThresholdSpec,
    WindowSpec,
)

UNREADABLE = LimitSpec(name="unreadable", unit="Requests", amount=0, window=WindowSpec(period="Month"))
"""The limit of a budget that never had a valid meaning: nothing fits, so that it cannot loosen anything."""


def budget_spec(placed: Placed) -> BudgetSpec | None:
    """The budget as its author wrote it. None: it is unreadable."""
    budget = placed.manifest
    if not isinstance(budget, ModelBudget):
        return None
    limits = sorted(budget.spec.limits, key=lambda limit: limit.name)
    return BudgetSpec(
        name=placed.ref,
        mode=budget.spec.mode,
        limits=tuple(_limit_spec(limit, budget.spec.overrides, placed) for limit in limits),
        unpriced_models=budget.spec.unpriced_models,
        organisation=placed.reach is not None,
    )


def features(budgets: Sequence[BudgetSpec]) -> Iterator[str]:
    """What a sidecar has to understand to obey these budgets."""
    if budgets:
        yield "budgets/1"
    if any(_is_newer(budget) for budget in budgets):
        yield "budgets/2"
    if any(limit.reservation != "Strict" for budget in budgets for limit in budget.limits):
        yield "budgets/3"


def _is_newer(budget: BudgetSpec) -> bool:
    newer = (
        limit.models
        or limit.providers
        or limit.per
        or limit.overrides
        or limit.on_unverifiable != "Deny"
        or any(step.max_output_tokens for step in limit.thresholds)
        for limit in budget.limits
    )
    return budget.organisation or budget.unpriced_models != "Deny" or any(newer)


def unverifiable(placed: Placed) -> BudgetSpec:
    """What stands in for a budget that never had a valid meaning."""
    return BudgetSpec(name=placed.ref, mode="Observe" if placed.observes else "Enforce", limits=(UNREADABLE,))


def for_routing(budget: BudgetSpec, routing: RoutingSpec | None) -> BudgetSpec:
    """The budget for one class: its maximum tiers said in tiers that the class's routing has."""

    def resolved(threshold: ThresholdSpec) -> ThresholdSpec:
        if not threshold.max_tier:
            return threshold
        return msgspec.structs.replace(threshold, max_tier=resolved_max_tier(threshold.max_tier, routing))

    limits = (
        msgspec.structs.replace(limit, thresholds=tuple(map(resolved, limit.thresholds))) for limit in budget.limits
    )
    return msgspec.structs.replace(budget, limits=tuple(limits))


def _limit_spec(limit: Limit, overrides: tuple[Override, ...], placed: Placed) -> LimitSpec:
    return LimitSpec(
        name=limit.name,
        unit=limit.unit,
        currency=limit.currency or "",
        amount=limit.amount_units,
        window=_window_spec(limit.window),
        models=tuple(sorted(limit.models)),
        providers=tuple(sorted(f"{_providers_namespace(placed)}/{name}" for name in limit.providers)),
        thresholds=tuple(
            ThresholdSpec(
                percent=threshold.percent,
                notify=any(action.type == "Notify" for action in threshold.actions),
                max_tier=next((action.max_tier for action in threshold.actions if action.max_tier is not None), ""),
                max_output_tokens=next(
                    (each.max_output_tokens for each in threshold.actions if each.max_output_tokens), 0
                ),
            )
            for threshold in sorted(limit.thresholds, key=lambda threshold: threshold.percent)
        ),
        on_exhausted=limit.on_exhausted,
        on_unverifiable=limit.on_unverifiable,
        survival_percent=limit.survival_percent or 0,
        allow_cap=limit.units(limit.allow_cap) if limit.allow_cap is not None else 0,
        reservation=limit.reservation,
        overshoot_percent=limit.overshoot_percent or 0,
        per=tuple(PerSpec(type=part.type, name=part.name or "") for part in limit.per),
        max_values=limit.max_values or MAX_VALUES,
        overrides=_override_specs(limit, overrides),
    )


def _override_specs(limit: Limit, overrides: tuple[Override, ...]) -> tuple[OverrideSpec, ...]:
    mine = sorted((each for each in overrides if each.limit == limit.name), key=lambda each: (each.until, each.name))
    return tuple(
        OverrideSpec(
            name=each.name,
            amount=limit.units(each.increase),
            starts=int(each.from_.timestamp()),
            ends=int(each.until.timestamp()),
        )
        for each in mine
    )


def _providers_namespace(placed: Placed) -> str:
    """Namespaces name their ModelProviders themselves: the organisation means those of one name in all of them."""
    return "*" if placed.reach is not None else placed.key.namespace


def _window_spec(window: Window) -> WindowSpec:
    return WindowSpec(
        type=window.type,
        period=window.period,
        time_zone=window.time_zone,
        anchor_day=window.anchor_day,
        duration_seconds=math.ceil(window.duration.total_seconds()) if window.duration is not None else 0,
    )


def resolved_max_tier(name: str, routing: RoutingSpec | None) -> str:
    """`name`, or the cheapest tier where the routing lacks it (contract §1): a maximum never vanishes."""
    if routing is None or not routing.tiers or any(tier.name == name for tier in routing.tiers):
        return name
    return routing.tiers[0].name


def _passes_unclaimed(routing: RoutingSpec) -> bool:
    """Whether there are models that calls may name and get as asked."""
    return routing.unmatched == "PassThrough" and all(claim.pattern != "*" for claim in routing.models)


def provider_reference_findings(budget: ModelBudget, known: Collection[str]) -> Iterator[Finding]:
    """ModelProviders that a budget names and its namespace does not have; `known` are the names that it has."""
    for limit in budget.spec.limits:
        for name in limit.providers:
            if name not in known:
                yield Finding(
                    "ResolvedRefs",
                    "False",
                    "ProviderNotFound",
                    f"spec.limits[{limit.name}].providers: {name!r}: no ModelProvider of that name in namespace "
                    f"{budget.metadata.namespace}, so the limit counts no call to it: write the name of one that is",
                )


def price_advice(budget: BudgetSpec, targets: Collection[TargetPrice]) -> Iterator[Finding]:
    """What a budget cannot count of the targets of a class, for want of a price in its limits' currencies."""
    outcome = "are refused as unpriced" if budget.unpriced_models == "Deny" else "pass the limit uncounted"
    for limit in budget.limits:
        if limit.unit != "Cost":
            continue
        counted = [target for target in targets if counts(limit, Subject(target.model, target.provider))]
        foreign = sorted({target.currency for target in counted} - {limit.currency, ""})
        if foreign:
            which = "some models" if any(target.currency == limit.currency for target in counted) else "models"
            yield Finding(
                "Priced",
                "False",
                "CurrencyMismatch",
                f"spec.limits[{limit.name}].currency: {limit.currency!r}: {which} of its workloads are priced in "
                f"{', '.join(foreign)} and nothing is converted, so calls to them {outcome}: "
                f"add prices in {limit.currency} to the ModelProvider, or a limit in {foreign[0]}",
            )
        unpriced = sorted({target.model for target in counted if not target.currency})
        if unpriced:
            yield Finding(
                "Priced",
                "False",
                "ModelUnpriced",
                f"spec.limits[{limit.name}]: nobody prices {', '.join(map(repr, unpriced))}, so calls to them "
                f"{outcome}: add their prices to the ModelProvider",
            )


def budget_findings(budget: ModelBudget, routing: RoutingSpec | None) -> Iterator[Finding]:
    """What is wrong with a budget beside the routing of a class."""
    for limit in budget.spec.limits:
        field = f"spec.limits[{limit.name}]"
        downgrades = any(action.type == "Downgrade" for each in limit.thresholds for action in each.actions)
        if downgrades and routing is not None and _passes_unclaimed(routing):
            yield Finding(
                "Effective",
                "True",
                "Effective",
                f"{field}: calls for models that no pattern of RoutingPolicy {routing.name} claims are not downgraded: "
                "claim them in its spec.match.models, or set spec.match.unmatched: Deny",
            )
        for threshold in limit.thresholds:
            for action in threshold.actions:
                if routing is None or not routing.tiers or action.max_tier is None:
                    continue
                used = resolved_max_tier(action.max_tier, routing)
                if used != action.max_tier:
                    tiers = ", ".join(tier.name for tier in routing.tiers)
                    yield Finding(
                        "ResolvedRefs",
                        "False",
                        "TierNotFound",
                        f"{field}.thresholds[{threshold.percent}].actions[Downgrade].maxTier: {action.max_tier!r}: "
                        f"RoutingPolicy {routing.name} has no such tier; its cheapest, {used!r}, is used: "
                        f"write one of {tiers}",
                    )
