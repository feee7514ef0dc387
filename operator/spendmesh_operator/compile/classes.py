"""One class of pods to one policy: the joint of routing, budgets, retries and providers, with notes on each object."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec

from spendmesh_operator.compile.attachment import Contest, Placed, beside, contest
from spendmesh_operator.compile.budgets import (
    budget_findings,
    budget_spec,
    features,
    for_routing,
    price_advice,
    provider_reference_findings,
    unverifiable,
)
from spendmesh_operator.compile.economics import price_findings, target_prices
from spendmesh_operator.compile.inheritance import inherit
from spendmesh_operator.compile.model import ClassKey, CompiledPolicy, CompileSettings, SecretNeed
from spendmesh_operator.compile.providers import provider_spec, secret_need
from spendmesh_operator.compile.retries import features as retry_features, retry_specs
from spendmesh_operator.compile.routing import Note, Routed, route
from spendmesh_operator.index import ObjectKey
from spendmesh_operator.manifests import ModelBudget, ModelProvider
from spendmesh_operator.prices import BuiltInPrices, subset
from spendmesh_sidecar.core.specs import BudgetSpec, ProviderSpec, RoutingSpec, TargetSpec, TierSpec
from spendmesh_sidecar.policy import Policy, Source, digest, encode

OBSERVED = "observed/"
"""Prefix of an alias that only an observed routing uses: no path can name it, since it has a slash."""


@dataclass(frozen=True)
class World:
    """Every object as it is in force for one compilation. Immutable: isolation tries variations of it."""

    objects: Mapping[ObjectKey, Placed]
    settings: CompileSettings
    prices: BuiltInPrices
    shelf: PriceShelf
    remembered: Mapping[str, BudgetSpec]
    """Last valid meaning of budgets by `namespace/name`, from the books: for those that are unreadable now."""
    namespaces: Mapping[str, Mapping[str, str]]
    """Labels of namespaces."""
    operator_namespace: str

    def without_or_with(self, changes: Mapping[ObjectKey, Placed | None]) -> World:
        """The same world where some objects are replaced, or left out (None)."""
        objects = {key: placed for key, placed in self.objects.items() if key not in changes}
        objects |= {key: placed for key, placed in changes.items() if placed is not None}
        return replace(self, objects=objects)

    def providers_of(self, namespace: str) -> frozenset[str]:
        """Names of the ModelProviders that a namespace has."""
        return self._providers.get(namespace, frozenset())

    @cached_property
    def _providers(self) -> Mapping[str, frozenset[str]]:
        found: defaultdict[str, set[str]] = defaultdict(set)
        for key in self.objects:
            if key.kind == "ModelProvider":
                found[key.namespace].add(key.name)
        return {namespace: frozenset(names) for namespace, names in found.items()}

    def provider(self, namespace: str, name: str) -> ModelProvider | None:
        """A ModelProvider that is in force."""
        placed = self.objects.get(ObjectKey("ModelProvider", namespace, name))
        manifest = placed.manifest if placed is not None else None
        return manifest if isinstance(manifest, ModelProvider) else None


class PriceShelf:
    """Encoded parts of one price table, made once for each combination of lists."""

    def __init__(self, prices: BuiltInPrices) -> None:
        self.prices = prices
        self.documents: dict[str, bytes] = {}
        self._digests: dict[frozenset[str], str] = {}

    def digest_of(self, lists: frozenset[str]) -> str:
        """Digest of the part with these lists; its bytes are then in `documents`."""
        if lists not in self._digests:
            encoded = encode(subset(self.prices.table, lists))
            self._digests[lists] = digest(encoded)
            self.documents[digest(encoded)] = encoded
        return self._digests[lists]


@dataclass(frozen=True)
class ClassResult:
    """A class's policy, and what there is to say about the objects that went into it."""

    compiled: CompiledPolicy
    effective: frozenset[ObjectKey]
    """Objects of which something acts (or, in mode Observe, is evaluated)."""
    conflicts: Mapping[ObjectKey, ObjectKey]
    overridden: Mapping[ObjectKey, ObjectKey]
    """Objects that a more specific one replaces."""
    notes: tuple[Note, ...]


def compile_class(key: ClassKey, world: World) -> ClassResult:
    """The policy of one class. Objects of the key that the world does not have are left out."""
    present = [world.objects[member] for member in key.objects if member in world.objects]
    routes = contest(_of_kind(present, "RoutingPolicy", readable=True))
    retries = contest(_of_kind(present, "RetryBudget", readable=True))
    budgets = _of_kind(present, "ModelBudget")

    routing, observed = _routings(routes, world)
    specs, observed_spec = _providers(routing, observed, world)
    by_alias = {provider.alias: provider for provider in specs}
    spec = routing.spec if routing is not None else None
    retry, observed_retry = retry_specs(retries)
    meant = {budget.ref: budget_spec(budget) or world.remembered.get(budget.ref) for budget in budgets}
    inherited = inherit([(budget, meant[budget.ref] or unverifiable(budget)) for budget in budgets])
    budget_specs = tuple(for_routing(budget, spec) for budget in inherited.budgets)
    providers = _used_providers(routing, observed)

    requires = [
        *features(budget_specs),
        *(["routing/1"] if routing is not None else []),
        *retry_features(retry, observed_retry),
    ]
    contributors = _contributors(routing, observed, retries, budgets) - inherited.displaced.keys()
    policy = Policy(
        cluster=world.settings.cluster,
        namespace=key.namespace,
        requires=tuple(sorted(requires)),
        sources=_sources(contributors | frozenset(providers), world),
        price_table=world.shelf.digest_of(frozenset(provider.price_list for provider in specs)),
        providers=specs,
        routing=spec,
        observed_routing=observed_spec,
        budgets=budget_specs,
        unbudgeted=world.settings.unbudgeted,
        retry=retry,
        observed_retry=observed_retry,
    )
    notes = [
        *(routing.notes if routing else ()),
        *(observed.notes if observed else ()),
        *_advice(routing, spec, by_alias, world),
        *_advice(observed, observed_spec, by_alias, world),
    ]
    notes += inherited.notes
    targets = target_prices(spec, by_alias, world.prices)
    for budget in budgets:
        if isinstance(budget.manifest, ModelBudget):
            notes += [(budget.key, finding) for finding in budget_findings(budget.manifest, spec)]
            notes += [
                (budget.key, finding) for finding in price_advice(meant[budget.ref] or unverifiable(budget), targets)
            ]
            if budget.reach is None:
                known = world.providers_of(budget.key.namespace)
                notes += [(budget.key, finding) for finding in provider_reference_findings(budget.manifest, known)]
    encoded = encode(policy)
    unreadable = frozenset(ref for ref, budget_or_none in meant.items() if budget_or_none is None)
    return ClassResult(
        compiled=CompiledPolicy(key, policy, encoded, digest(encoded), _secrets(routing), unreadable),
        effective=contributors | frozenset(providers),
        conflicts={**routes.conflicts, **retries.conflicts},
        overridden=_overridden((routes, retries), contributors) | inherited.displaced,
        notes=tuple(notes),
    )


def _of_kind(present: Sequence[Placed], kind: str, *, readable: bool = False) -> list[Placed]:
    of_kind = [placed for placed in present if placed.key.kind == kind]
    return [placed for placed in of_kind if placed.manifest is not None] if readable else of_kind


def _routings(contested: Contest, world: World) -> tuple[Routed | None, Routed | None]:
    """The routing in force and the one evaluated beside it. A lone Observe comes first and changes nothing."""
    enforced = route(contested.enforced, "Enforce", world.provider)
    if enforced is None:
        return route(contested.observed, "Observe", world.provider), None
    if not contested.observed:
        return enforced, None
    observed = route(beside(contested), "Observe", world.provider)
    assert observed is not None
    first = contested.observed[0]
    # People who look at what is observed want the policy that they are trying out, not the one that gave the tiers.
    name = f"{first.ref}@{first.generation}"
    return enforced, replace(observed, spec=msgspec.structs.replace(observed.spec, name=name))


def _providers(
    routing: Routed | None, observed: Routed | None, world: World
) -> tuple[tuple[ProviderSpec, ...], RoutingSpec | None]:
    """
    All providers of a policy, and the observed routing in their aliases.

    Observing changes nothing: a provider that only the observed routing has comes last, without a key, under an alias
    that no request can name, and never brings a dialect that the enforced routing does not serve.
    """
    mine = routing.providers if routing is not None else ()
    specs = [provider_spec(provider, alias, world.prices, world.operator_namespace) for alias, provider in mine]
    if observed is None:
        return tuple(specs), None
    dialects = {provider.dialect for provider in specs}
    renamed: dict[str, str] = {}
    for alias, provider in observed.providers:
        same = next((known for known, other in mine if other.key == provider.key), None)
        if same is not None:
            renamed[alias] = same
        elif provider.spec.dialect in dialects:
            renamed[alias] = OBSERVED + alias
            extra = provider_spec(provider, OBSERVED + alias, world.prices, world.operator_namespace)
            specs.append(msgspec.structs.replace(extra, auth="None", key_name=""))
    tiers = tuple(
        TierSpec(
            name=tier.name,
            targets=tuple(
                TargetSpec(
                    name=target.name, provider=renamed[target.provider], model=target.model, priority=target.priority
                )
                for target in tier.targets
                if target.provider in renamed
            ),
        )
        for tier in observed.spec.tiers
    )
    return tuple(specs), msgspec.structs.replace(observed.spec, tiers=tiers)


def _used_providers(*routings: Routed | None) -> frozenset[ObjectKey]:
    return frozenset(
        ObjectKey(*provider.key) for routing in routings if routing is not None for _, provider in routing.providers
    )


def _contributors(
    routing: Routed | None, observed: Routed | None, retries: Contest, budgets: Sequence[Placed]
) -> frozenset[ObjectKey]:
    keys = {budget.key for budget in budgets}
    for routed in (routing, observed):
        keys |= routed.contributors if routed is not None else frozenset()
    keys |= {side[0].key for side in (retries.enforced, retries.observed) if side}
    return frozenset(keys)


def _overridden(contests: Sequence[Contest], contributors: frozenset[ObjectKey]) -> dict[ObjectKey, ObjectKey]:
    found: dict[ObjectKey, ObjectKey] = {}
    for contested in contests:
        for side in (contested.enforced, contested.observed):
            found |= {placed.key: side[0].key for placed in side[1:] if placed.key not in contributors}
    return found


def _sources(keys: frozenset[ObjectKey], world: World) -> tuple[Source, ...]:
    placed = [world.objects[key] for key in sorted(keys)]
    return tuple(Source(kind=each.key.kind, name=each.ref, uid=each.uid, generation=each.generation) for each in placed)


def _advice(
    routed: Routed | None, spec: RoutingSpec | None, providers: Mapping[str, ProviderSpec], world: World
) -> list[Note]:
    if routed is None or spec is None:
        return []
    return [(routed.sections, finding) for finding in price_findings(spec, providers, world.prices)]


def _secrets(routing: Routed | None) -> tuple[SecretNeed, ...]:
    needs = {secret_need(provider) for _, provider in (routing.providers if routing is not None else ())}
    return tuple(sorted(need for need in needs if need is not None))
