"""
Which tier and which targets a call gets, and why each other target was passed over.

Order of the decision (contract §1): budget max > bound max > bound min > rule > default. A model that nothing claims
goes through as asked and is never downgraded. Left out: prices and fields (`admission`), health (`attempts`).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from spendmesh_sidecar.core.globs import matches
from spendmesh_sidecar.core.once import once
from spendmesh_sidecar.core.refusals import refuse
from spendmesh_sidecar.core.shape import Shape
from spendmesh_sidecar.core.specs import ModelPattern, ProviderSpec, RoutingSpec, TargetSpec, TierSpec, When
from spendmesh_sidecar.core.types import Refusal

OWN_MODELS = "spendmesh/"
"""`spendmesh/auto` and `spendmesh/<tier>` are always claimed."""
OBSERVED_PROVIDERS = "observed/"
"""Providers that only an observed policy names: without a key, never called."""


class Candidate(Struct, frozen=True, gc=False):
    """A target that may take the call."""

    target: TargetSpec
    provider: ProviderSpec
    tier: str
    """Empty: as asked."""
    key: str
    """`alias/model`: the name of its breaker, and what `x-spendmesh-model` says."""


class PassedOver(Struct, frozen=True, gc=False):
    """A target that did not get the call, and why."""

    target: str
    reason: str


class Route(Struct, frozen=True, gc=False):
    """The tier of a call and its targets in order."""

    policy: str
    tier: str
    """Empty: as asked."""
    reason: str
    candidates: tuple[Candidate, ...]
    passed_over: tuple[PassedOver, ...] = ()


class Ceiling(Struct, frozen=True, gc=False):
    """A Downgrade in force: no dearer tier than `max_tier`."""

    max_tier: str
    budget: str
    """`namespace/name/limit`."""


NotDearer = Callable[[Candidate], bool]
"""Whether a target is proven not dearer than the model that was asked for."""


def route(
    shape: Shape,
    routing: RoutingSpec,
    providers: tuple[ProviderSpec, ...],
    ceilings: tuple[Ceiling, ...],
    not_dearer: NotDearer,
) -> Route | Refusal:
    """Choose tier and targets, or say why there is none."""
    if shape.model.startswith(OWN_MODELS):
        tier = shape.model.removeprefix(OWN_MODELS)
        names = [spec.name for spec in routing.tiers]
        if not names or (tier != "auto" and tier not in names):
            return _no_such_tier(routing, shape.model, names)
        return _by_tier(shape, routing, providers, ceilings, "" if tier == "auto" else tier, None)
    pattern = _claim(routing, shape.model)
    if pattern is not None and routing.tiers:
        capped = not_dearer if pattern.ceiling == "Asked" else None
        return _by_tier(shape, routing, providers, ceilings, "", capped)
    if shape.model and routing.unmatched == "Deny":
        return refuse(
            "model_denied",
            f"Policy {routing.name} does not allow models by name, and none of its patterns claims {shape.model!r}. "
            f"Ask for {OWN_MODELS}auto or one of its tiers.",
            param="model",
        )
    return as_asked(shape, routing.name, providers)


def as_asked(shape: Shape, policy: str, providers: tuple[ProviderSpec, ...]) -> Route | Refusal:
    """Through the provider that was asked for, else the first one of the request's dialect; the model unchanged."""
    dialect = shape.operation.dialect
    known = tuple(provider for provider in providers if not provider.alias.startswith(OBSERVED_PROVIDERS))
    if shape.provider and shape.provider not in {provider.alias for provider in known}:
        return refuse(
            "no_capable_target",
            f"Policy {policy} has no provider {shape.provider!r}; it has {_names([p.alias for p in known])}.",
        )
    passed: list[PassedOver] = []
    for provider in known:
        if shape.provider and provider.alias != shape.provider:
            continue
        if provider.dialect != dialect:
            passed.append(PassedOver(f"{provider.alias}/{shape.model}", f"speaks {provider.dialect}"))
            continue
        target = TargetSpec(name=shape.model, provider=provider.alias, model=shape.model)
        return Route(policy, "", "asked", (_candidate(target, provider, ""),), tuple(passed))
    return _no_capable(policy, dialect, passed)


def _by_tier(
    shape: Shape,
    routing: RoutingSpec,
    providers: tuple[ProviderSpec, ...],
    ceilings: tuple[Ceiling, ...],
    asked_tier: str,
    not_dearer: NotDearer | None,
) -> Route | Refusal:
    position, reason = choose_tier(routing, shape, ceilings, asked_tier)
    by_alias = _by_alias(providers)
    passed: list[PassedOver] = []
    while position >= 0:
        tier = routing.tiers[position]
        capable = _capable(shape, tier, by_alias, passed)
        affordable = capable
        if not_dearer is not None:
            affordable = tuple(found for found in capable if not_dearer(found))
            dearer = (found for found in capable if found not in affordable)
            passed += [PassedOver(found.key, "dearer than the model asked for") for found in dearer]
        if affordable:
            ordered = sorted(affordable, key=_priority) if len(affordable) > 1 else affordable
            return Route(routing.name, tier.name, reason, tuple(ordered), tuple(passed))
        if not_dearer is None or not capable:
            return _no_capable(routing.name, shape.operation.dialect, passed)
        position, reason = position - 1, "asked"
    return as_asked(shape, routing.name, providers)  # nothing is proven cheaper than the model itself


@once
def _by_alias(providers: tuple[ProviderSpec, ...]) -> dict[str, ProviderSpec]:
    return {provider.alias: provider for provider in providers}


@once
def _positions(tiers: tuple[TierSpec, ...]) -> dict[str, int]:
    return {tier.name: position for position, tier in enumerate(tiers)}


def _priority(candidate: Candidate) -> int:
    return candidate.target.priority


def _capable(
    shape: Shape, tier: TierSpec, by_alias: dict[str, ProviderSpec], passed: list[PassedOver]
) -> tuple[Candidate, ...]:
    found: list[Candidate] = []
    for target in tier.targets:
        provider = by_alias.get(target.provider)
        if provider is None:
            why = "its provider is not resolved"
        elif provider.dialect != shape.operation.dialect:
            why = f"speaks {provider.dialect}"
        elif shape.provider and provider.alias != shape.provider:
            why = f"provider {shape.provider} was asked for"
        else:
            found.append(_candidate(target, provider, tier.name))
            continue
        passed.append(PassedOver(f"{target.provider}/{target.model}", why))
    return tuple(found)


def _candidate(target: TargetSpec, provider: ProviderSpec, tier: str) -> Candidate:
    return Candidate(target, provider, tier, f"{provider.alias}/{target.model}")


def choose_tier(
    routing: RoutingSpec, shape: Shape, ceilings: tuple[Ceiling, ...], asked_tier: str = ""
) -> tuple[int, str]:
    """Position of the tier (0 is cheapest) and the word for what decided it."""
    positions = _positions(routing.tiers)
    if asked_tier:
        position, reason = positions[asked_tier], "asked"
    else:
        tier, reason = routing.default_tier, "default"
        for rule in routing.rules:
            if _holds(rule.when, shape):
                tier, reason = rule.tier, f"rule:{rule.name}"
                break
        position = positions.get(tier, 0)
    holding = [bound for bound in routing.bounds if _holds(bound.when, shape)]
    for bound in holding:
        if bound.min_tier and (lowest := positions.get(bound.min_tier, 0)) > position:
            position, reason = lowest, f"bound:{bound.name}"
    for bound in holding:
        if bound.max_tier and (highest := positions.get(bound.max_tier, 0)) < position:
            position, reason = highest, f"bound:{bound.name}"
    for ceiling in ceilings:
        if (highest := positions.get(ceiling.max_tier, 0)) < position:
            position, reason = highest, f"budget:{ceiling.budget}"
    return position, reason


def _claim(routing: RoutingSpec, model: str) -> ModelPattern | None:
    for pattern in routing.models if model else ():
        if matches(pattern.pattern, model):
            return pattern
    return None


def _holds(when: When, shape: Shape) -> bool:
    return (not when.tasks or shape.task in when.tasks) and (not when.user_plans or shape.user_plan in when.user_plans)


def _no_such_tier(routing: RoutingSpec, model: str, names: list[str]) -> Refusal:
    if not names:
        return refuse("model_denied", f"Policy {routing.name} has no tiers, so {model!r} means nothing.", param="model")
    known = ", ".join(f"{OWN_MODELS}{name}" for name in ("auto", *names))
    return refuse("model_denied", f"Policy {routing.name} has no tier for {model!r}; it has {known}.", param="model")


def _no_capable(policy: str, dialect: str, passed: list[PassedOver]) -> Refusal:
    why = "; ".join(f"{one.target}: {one.reason}" for one in passed) or "it has no target"
    return refuse(
        "no_capable_target",
        f"Policy {policy} has no target that can take this {dialect} call ({why}). "
        "Use a client of the target's dialect, or add a target to the tier.",
    )


def _names(names: list[str]) -> str:
    return ", ".join(names) or "none"
