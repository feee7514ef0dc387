"""RoutingPolicies of a class to one RoutingSpec: inheritance by section, references resolved, nothing silently lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from spendmesh_operator.compile.attachment import Placed
from spendmesh_operator.compile.model import Finding
from spendmesh_operator.index import ObjectKey
from spendmesh_operator.manifests import ModelProvider, RoutingPolicy
from spendmesh_operator.manifests.routingpolicy import Bound, RoutingRule, Tier, When
from spendmesh_sidecar.core.specs import (
    BoundSpec,
    Mode,
    ModelPattern,
    RoutingSpec,
    RuleSpec,
    TargetSpec,
    TierSpec,
    When as WhenSpec,
)

Note = tuple[ObjectKey, Finding]
FindProvider = Callable[[str, str], ModelProvider | None]
"""(namespace, name) -> the ModelProvider in force."""


@dataclass(frozen=True)
class Routed:
    """A routing with the providers that its tiers use."""

    spec: RoutingSpec
    providers: tuple[tuple[str, ModelProvider], ...]
    """By alias, in the order of the policy: the first of a dialect takes models that nothing claims."""
    sections: ObjectKey
    """The policy that gave the tiers, or the most specific one where none has tiers."""
    contributors: frozenset[ObjectKey]
    """Every policy of which something is in the routing."""
    notes: tuple[Note, ...]


def route(chain: Sequence[Placed], mode: Mode, find_provider: FindProvider) -> Routed | None:
    """Join a chain of policies, the most specific first. None: there is none."""
    policies = [(placed, placed.manifest.spec) for placed in chain if isinstance(placed.manifest, RoutingPolicy)]
    if not policies:
        return None
    tiered = next(((placed, spec) for placed, spec in policies if spec.tiers is not None), None)
    matching = next(((placed, spec.match) for placed, spec in policies if spec.match is not None), None)
    ruling = next(((placed, spec.rules) for placed, spec in policies if spec.rules is not None), None)
    owner = tiered[0] if tiered else policies[0][0]

    notes: list[Note] = []
    providers: dict[str, ModelProvider] = {}
    tiers: tuple[TierSpec, ...] = ()
    if tiered is None:
        notes.append((owner.key, _no_tiers()))
    else:
        spec = tiered[1]
        for position, alias in enumerate(spec.providers or ()):
            provider = find_provider(owner.key.namespace, alias.ref.name)
            if provider is None:
                notes.append((owner.key, _no_provider(owner, position, alias.ref.name)))
            else:
                providers[alias.name] = provider
        tiers = tuple(_tier(tier, providers) for tier in spec.tiers or ())
    default_tier = (tiered[1].default_tier or "") if tiered else ""

    rules: list[RuleSpec] = []
    for rule in (ruling[1] or ()) if ruling and tiers else ():
        rules.append(_rule(rule, tiers, default_tier))
        if ruling and rules[-1].tier != rule.tier:
            finding = _tier_missing(f"rules[{rule.name}].tier", rule.tier, owner, tiers, default_tier)
            notes.append((ruling[0].key, finding))
    bounds: list[BoundSpec] = []
    for placed, spec in policies if tiers else ():
        for bound in spec.bounds:
            notes.extend((placed.key, finding) for finding in _bound_findings(bound, owner, tiers))
            bounds.extend(_bound(bound, tiers))

    sections = [part[0].key for part in (tiered, matching, ruling) if part is not None]
    return Routed(
        spec=RoutingSpec(
            name=f"{owner.ref}@{owner.generation}",
            mode=mode,
            tiers=tiers,
            default_tier=default_tier,
            models=tuple(
                ModelPattern(pattern=claim.pattern, ceiling=claim.ceiling)
                for claim in (matching[1].models if matching else ())
            ),
            unmatched=matching[1].unmatched if matching else "PassThrough",
            rules=tuple(rules),
            bounds=tuple(bounds),
        ),
        providers=tuple(providers.items()),
        sections=owner.key,
        contributors=frozenset([*sections, *(placed.key for placed, spec in policies if spec.bounds)]),
        notes=tuple(notes),
    )


def _tier(tier: Tier, providers: dict[str, ModelProvider]) -> TierSpec:
    """A tier without the targets of missing providers. An empty one stays: the order of tiers is a promise."""
    return TierSpec(
        name=tier.name,
        targets=tuple(
            TargetSpec(name=target.name, provider=target.provider, model=target.model, priority=target.priority)
            for target in tier.targets
            if target.provider in providers
        ),
    )


def _when(when: When | None) -> WhenSpec:
    if when is None:
        return WhenSpec()
    return WhenSpec(tasks=tuple(sorted(when.tasks or ())), user_plans=tuple(sorted(when.user_plans or ())))


def _has(tiers: tuple[TierSpec, ...], name: str) -> bool:
    return any(tier.name == name for tier in tiers)


def _rule(rule: RoutingRule, tiers: tuple[TierSpec, ...], default_tier: str) -> RuleSpec:
    tier = rule.tier if _has(tiers, rule.tier) else default_tier
    return RuleSpec(name=rule.name, when=_when(rule.when), tier=tier)


def _bound(bound: Bound, tiers: tuple[TierSpec, ...]) -> Iterator[BoundSpec]:
    """The bound in tiers that exist: a maximum becomes the cheapest tier, a minimum that means nothing is left out."""
    low = bound.min_tier if bound.min_tier is not None and _has(tiers, bound.min_tier) else ""
    high = bound.max_tier or ""
    if high and not _has(tiers, high):
        high = tiers[0].name
    if low or high:
        yield BoundSpec(name=bound.name, when=_when(bound.when), min_tier=low, max_tier=high)


def _bound_findings(bound: Bound, owner: Placed, tiers: tuple[TierSpec, ...]) -> Iterator[Finding]:
    field = f"bounds[{bound.name}]"
    if bound.max_tier is not None and not _has(tiers, bound.max_tier):
        yield _tier_missing(f"{field}.maxTier", bound.max_tier, owner, tiers, tiers[0].name)
    if bound.min_tier is not None and not _has(tiers, bound.min_tier):
        yield _tier_missing(f"{field}.minTier", bound.min_tier, owner, tiers, "")


def _no_tiers() -> Finding:
    return Finding(
        "ResolvedRefs",
        "False",
        "TiersNotFound",
        "spec.tiers: neither this policy nor a more general one has tiers, so no call has anywhere to go: write "
        "providers, tiers and defaultTier here or in a RoutingPolicy for the whole namespace",
    )


def _no_provider(owner: Placed, position: int, name: str) -> Finding:
    return Finding(
        "ResolvedRefs",
        "False",
        "ProviderNotFound",
        f"spec.providers[{position}].ref.name: {name!r}: no valid ModelProvider of that name in namespace "
        f"{owner.key.namespace}: create it there, or write the name of one that is; its targets are left out "
        "until then",
    )


def _tier_missing(field: str, name: str, owner: Placed, tiers: tuple[TierSpec, ...], used: str) -> Finding:
    meaning = f"{used!r} is used" if used else "it has no effect"
    known = ", ".join(tier.name for tier in tiers)
    return Finding(
        "ResolvedRefs",
        "False",
        "TierNotFound",
        f"spec.{field}: {name!r}: RoutingPolicy {owner.ref}, which gives the tiers, has no such tier; {meaning}: "
        f"write one of {known}",
    )
