"""RoutingPolicy: which tier and target a call gets. What a target costs is ModelProvider's, what may be spent is
ModelBudget's."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from spendmesh_operator.manifests.attachment import Attachment
from spendmesh_operator.manifests.common import (
    ACCEPTED,
    AGE,
    MODE,
    PROGRAMMED,
    Column,
    CrdNames,
    Manifest,
    ModelName,
    Name,
    ObjectName,
    Pattern,
)
from spendmesh_operator.manifests.conditions import Status
from spendmesh_operator.manifests.quantities import WHOLE
from spendmesh_operator.manifests.rules import ATOMIC, SET, Node, Rule, list_map, text_rule, unique

Hint = Annotated[
    str,
    Field(max_length=63),
    text_rule(
        r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*",
        "must be letters, digits and . _ : / @ + - only, starting with a letter or digit",
    ),
]
"""A value of a request hint (`x-spendmesh-task`, `x-spendmesh-user-plan`)."""
Hints = Annotated[tuple[Hint, ...], Field(min_length=1, max_length=32), SET]


class ProviderRef(Node):
    """A ModelProvider of the same namespace."""

    name: ObjectName
    """Name of the ModelProvider. Example: openai"""


class ProviderAlias(Node):
    """A local name for a ModelProvider."""

    name: Name
    """The alias, used by targets, in /providers/<alias>/ and in x-spendmesh-model. Example: openai"""
    ref: ProviderRef
    """The ModelProvider behind it. Example: {name: openai}"""


class ModelClaim(Node):
    """Names of models for which the policy chooses."""

    pattern: Pattern
    """A model's name as applications ask for it; * stands for any text and is the only wildcard. Example: gpt-*"""
    ceiling: Literal["None", "Asked"] = "None"
    """Asked: never a target that is dearer than the model that was asked for. None: the tiers alone decide.
    Example: Asked"""


class Match(Node):
    """Which calls the policy chooses for, and what becomes of the others."""

    models: Annotated[tuple[ModelClaim, ...], Field(max_length=64), ATOMIC, unique("pattern", "entries of models")] = ()
    """Names that this policy chooses for; the first pattern that fits counts. spendmesh/auto and spendmesh/<tier> are
    always claimed. Example: [{pattern: auto}, {pattern: gpt-*, ceiling: Asked}]"""
    unmatched: Literal["PassThrough", "Deny"] = "PassThrough"
    """What becomes of a model that nothing claims: PassThrough forwards it as asked, priced and budgeted; Deny refuses
    it with model_denied. Example: Deny"""


class Target(Node):
    """One model at one provider."""

    name: Name
    """Name of the target, unique in its tier. Example: medium"""
    provider: Name
    """Alias of its provider, from providers. Example: openai"""
    model: ModelName
    """The model as that provider names it. Example: gpt-5-mini"""
    priority: Annotated[int, Field(ge=0, le=9), WHOLE] = 0
    """0 is tried first; a higher one is used when all below it fail or are ejected. Example: 1"""


class Tier(Node):
    """Targets that are good enough for the same work."""

    name: Name
    """Name of the tier, unique in the policy. Example: standard"""
    targets: Annotated[
        tuple[Target, ...], Field(min_length=1, max_length=16), ATOMIC, unique("name", "targets of a tier")
    ]
    """Targets of the tier, by priority, then in this order.
    Example: [{name: medium, provider: openai, model: gpt-5-mini}]"""


class When(Node):
    """Conditions on a call's hints. All that are present must hold; one value of each suffices."""

    RULES = (
        Rule(
            "has(self.tasks) || has(self.userPlans)",
            lambda when: when.tasks is not None or when.user_plans is not None,
            "when has no condition: add tasks or userPlans; calls that no rule picks get defaultTier, "
            "and a bound for every call has no when",
        ),
    )

    tasks: Hints | None = None
    """Values of the request's x-spendmesh-task. Example: [extract, classify]"""
    user_plans: Hints | None = None
    """Values of the request's x-spendmesh-user-plan. Example: [enterprise]"""


class RoutingRule(Node):
    """Picks a tier for calls that fulfil a condition."""

    name: Name
    """Name of the rule, shown in x-spendmesh-reason as rule:<name>. Example: extract"""
    when: When
    """The condition. Example: {tasks: [extract, classify]}"""
    tier: Name
    """The tier that such calls get. Example: economy"""


class Bound(Node):
    """Keeps calls within tiers, whatever a rule or a caller chose."""

    RULES = (
        Rule(
            "has(self.minTier) || has(self.maxTier)",
            lambda bound: bound.min_tier is not None or bound.max_tier is not None,
            "a bound needs minTier or maxTier: add one of them",
        ),
    )

    name: Name
    """Name of the bound, shown in x-spendmesh-reason as bound:<name>. Example: vip"""
    when: When | None = None
    """The condition; absent: every call. Example: {userPlans: [enterprise]}"""
    min_tier: Name | None = None
    """The lowest tier that such calls get. Example: premium"""
    max_tier: Name | None = None
    """The highest tier that such calls get; it wins over minTier of another bound. Example: standard"""


def _has_tier(spec: "RoutingPolicySpec", name: str | None) -> bool:
    return spec.tiers is None or name is None or any(tier.name == name for tier in spec.tiers)


def _in_order(spec: "RoutingPolicySpec", bound: Bound) -> bool:
    if spec.tiers is None or bound.min_tier is None or bound.max_tier is None:
        return True
    names = [tier.name for tier in spec.tiers]
    if bound.min_tier not in names or bound.max_tier not in names:
        return True  # another rule says so
    return names.index(bound.min_tier) <= names.index(bound.max_tier)


class RoutingPolicySpec(Attachment):
    """Which tier and target a call gets. An absent section (providers with tiers and defaultTier; match; rules) comes
    from the next more general policy; bounds of all levels apply."""

    RULES = (
        *Attachment.RULES,
        Rule(
            "has(self.providers) == has(self.tiers) && has(self.tiers) == has(self.defaultTier)",
            lambda spec: (spec.providers is None) == (spec.tiers is None) == (spec.default_tier is None),
            "providers, tiers and defaultTier are one section: write all three, or none to inherit them",
        ),
        Rule(
            "!has(self.tiers) || !has(self.defaultTier) || self.tiers.exists(t, t.name == self.defaultTier)",
            lambda spec: _has_tier(spec, spec.default_tier),
            "defaultTier names no tier of this policy: write the name of one of tiers",
            ".defaultTier",
        ),
        Rule(
            "!has(self.tiers) || !has(self.providers) || "
            "self.tiers.all(t, t.targets.all(g, self.providers.exists(p, p.name == g.provider)))",
            lambda spec: (
                spec.tiers is None
                or spec.providers is None
                or {target.provider for tier in spec.tiers for target in tier.targets}
                <= {provider.name for provider in spec.providers}
            ),
            "a target names a provider that is no alias here: add it to providers, or write one of its names",
            ".tiers",
        ),
        Rule(
            "!has(self.tiers) || !has(self.rules) || self.rules.all(r, self.tiers.exists(t, t.name == r.tier))",
            lambda spec: all(_has_tier(spec, rule.tier) for rule in spec.rules or ()),
            "a rule names a tier that is not in tiers: write the name of one of tiers",
            ".rules",
        ),
        Rule(
            "!has(self.tiers) || !has(self.bounds) || self.bounds.all(b, "
            "(!has(b.minTier) || self.tiers.exists(t, t.name == b.minTier)) && "
            "(!has(b.maxTier) || self.tiers.exists(t, t.name == b.maxTier)))",
            lambda spec: all(
                _has_tier(spec, name) for bound in spec.bounds for name in (bound.min_tier, bound.max_tier)
            ),
            "a bound names a tier that is not in tiers: write the name of one of tiers",
            ".bounds",
        ),
        Rule(
            "!has(self.tiers) || !has(self.bounds) || self.bounds.all(b, !has(b.minTier) || !has(b.maxTier) || "
            "self.tiers.filter(t, t.name == b.minTier || t.name == b.maxTier).size() < 2 || "
            "self.tiers.filter(t, t.name == b.minTier || t.name == b.maxTier)[0].name == b.minTier)",
            lambda spec: all(_in_order(spec, bound) for bound in spec.bounds),
            "a bound's minTier is above its maxTier: tiers are ordered from cheap to strong, exchange the two",
            ".bounds",
        ),
    )

    providers: Annotated[tuple[ProviderAlias, ...], Field(min_length=1, max_length=16), list_map("name")] | None = None
    """Local names of ModelProviders; together with tiers and defaultTier. A model that nothing claims goes to the first
    one that speaks the call's dialect. Example: [{name: openai, ref: {name: openai}}]"""
    match: Match | None = None
    """Which calls the policy chooses for. Example: {models: [{pattern: auto}], unmatched: PassThrough}"""
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1, max_length=16), ATOMIC, unique("name", "tiers")] | None = (
        None
    )
    """Tiers from cheap to strong; the order counts. Together with providers and defaultTier.
    Example: [{name: economy, targets: [{name: small, provider: openai, model: gpt-5-nano}]}]"""
    default_tier: Name | None = None
    """The tier of calls that no rule picks. Example: standard"""
    rules: Annotated[tuple[RoutingRule, ...], Field(max_length=64), ATOMIC, unique("name", "rules")] | None = None
    """Rules in order; the first that fits picks the tier. An empty list inherits none.
    Example: [{name: extract, when: {tasks: [extract]}, tier: economy}]"""
    bounds: Annotated[tuple[Bound, ...], Field(max_length=64), ATOMIC, unique("name", "bounds")] = ()
    """Bounds; all that fit apply, also those of more general policies. Order of the decision: a budget's maxTier, then
    maxTier, minTier, rule, defaultTier. Example: [{name: vip, when: {userPlans: [enterprise]}, minTier: premium}]"""


class RoutingPolicy(Manifest):
    """Which tier and target a call gets: tiers from cheap to strong, rules that pick one, bounds that clamp."""

    CRD: ClassVar[CrdNames] = CrdNames(
        plural="routingpolicies",
        short="rpol",
        policy="inherited",
        columns=(
            MODE,
            Column(name="Default-Tier", path=".spec.defaultTier", description="Tier of calls that no rule picks."),
            Column(name="Tiers", path=".spec.tiers[*].name", description="First tier: the cheapest one.", wide=True),
            Column(name="Matched", path=".status.workloads.matched", type="integer", description="Workloads selected."),
            ACCEPTED,
            PROGRAMMED,
            AGE,
        ),
    )
    STATUS: ClassVar[type[Node] | None] = Status

    kind: Literal["RoutingPolicy"]
    spec: RoutingPolicySpec
