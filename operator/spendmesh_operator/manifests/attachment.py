"""How policy kinds attach to pods: by workload, by labels, by namespace, and from the operator's namespace to others.
Who wins where several apply is compile's."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from spendmesh_operator.manifests.common import ObjectName
from spendmesh_operator.manifests.rules import ATOMIC, SET, UNSTORED, Node, Rule, list_map, text_rule

Mode = Literal["Enforce", "Observe"]

_GROUP_KINDS = {
    "apps": ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"),
    "batch": ("Job", "CronJob"),
    "": ("Pod",),
}


class TargetRef(Node):
    """One workload of the same namespace."""

    RULES = (
        Rule(
            "self.group == 'apps' ? self.kind in ['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet'] : "
            "self.group == 'batch' ? self.kind in ['Job', 'CronJob'] : self.kind == 'Pod'",
            lambda ref: ref.kind in _GROUP_KINDS[ref.group],
            "kind is not in that group: Deployment, StatefulSet, DaemonSet and ReplicaSet are in apps, "
            'Job and CronJob in batch (write group: batch), Pod in the core group (write group: "")',
            ".kind",
        ),
    )

    group: Literal["apps", "batch", ""] = "apps"
    """API group of the workload's kind: apps; batch for Job and CronJob; "" for Pod. Example: batch"""
    kind: Literal["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod"]
    """Kind of the workload. Example: Deployment"""
    name: ObjectName
    """Name of the workload, in this object's namespace. It need not exist yet. Example: checkout"""


LabelValue = Annotated[
    str,
    Field(max_length=63),
    text_rule(
        "(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?", "must be a label value: letters, digits, '-', '_', '.'"
    ),
]
QUALIFIED = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"


LabelKey = Annotated[
    str,
    Field(max_length=317),
    text_rule(QUALIFIED, "must be a label key such as app or example.com/team"),
]


class LabelRequirement(Node):
    """One condition on a label."""

    RULES = (
        Rule(
            "self.operator in ['In', 'NotIn'] ? (has(self.values) && size(self.values) > 0) : !has(self.values)",
            lambda requirement: (
                (requirement.operator in ("In", "NotIn")) == bool(requirement.values)
                and (requirement.values is None or bool(requirement.values))
            ),
            "values goes with In and NotIn (at least one value) and with nothing else",
        ),
    )

    key: LabelKey
    """Key of the label. Example: app"""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label is compared with values. Exists and DoesNotExist take no values. Example: In"""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=32), SET] | None = None
    """Values to compare with, for In and NotIn. Example: [checkout, cart]"""


_KEY = re.compile(QUALIFIED)
LABEL_KEY_LENGTH_MAX = 317  # 253 for the prefix, a slash and 63


def _labels_without_nulls(labels: Any) -> Any:
    """As in objects, the API server drops nulls from maps."""
    return {key: value for key, value in labels.items() if value is not None} if isinstance(labels, dict) else labels


MatchLabels = Annotated[
    dict[str, LabelValue],
    Field(max_length=16),
    BeforeValidator(_labels_without_nulls),
    Rule(
        f"self.all(key, key.size() <= {LABEL_KEY_LENGTH_MAX} && key.matches('^{QUALIFIED}$'))",
        lambda labels: all(len(key) <= LABEL_KEY_LENGTH_MAX and _KEY.fullmatch(key) is not None for key in labels),
        "a key is no label key: write one such as app or example.com/team",
    ),
]


class LabelSelector(Node):
    """Selects by labels; all conditions must hold. An empty one selects everything."""

    match_labels: MatchLabels | None = None
    """Labels that it must have, with exactly these values. Example: {app: checkout}"""
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=16), ATOMIC] | None = None
    """Conditions on labels. Example: [{key: stage, operator: NotIn, values: [dev]}]"""


class PodSelector(LabelSelector):
    """Selects pods by their labels; all conditions must hold."""

    RULES = (
        Rule(
            "(has(self.matchLabels) && size(self.matchLabels) > 0) || "
            "(has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            lambda selector: bool(selector.match_labels or selector.match_expressions),
            "an empty selector is refused: name at least one label, or leave podSelector out for the whole namespace",
        ),
    )


class Attachment(Node):
    """What the specs of the policy kinds have in common: to which pods they apply, and how."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.targetRefs) && has(self.podSelector))",
            lambda spec: spec.target_refs is None or spec.pod_selector is None,
            "targetRefs and podSelector exclude each other: keep one of them, or neither for the whole namespace",
        ),
    )

    mode: Mode = "Enforce"
    """Enforce acts. Observe computes and records what would have happened and changes nothing. Example: Observe"""
    target_refs: (
        Annotated[tuple[TargetRef, ...], Field(min_length=1, max_length=16), list_map("group", "kind", "name")] | None
    ) = None
    """Workloads of this namespace that it applies to; it wins over podSelector and over the namespace's own. Not
    together with podSelector; neither means every pod of the namespace.
    Example: [{kind: Deployment, name: checkout}]"""
    pod_selector: PodSelector | None = Field(default=None, json_schema_extra={"x-kubernetes-map-type": "atomic"})
    """Pods of this namespace that it applies to, by their labels; it wins over the namespace's own. Not together with
    targetRefs. Example: {matchLabels: {app: checkout}}"""


class OrganisationAttachment(Attachment):
    """An attachment that can reach beyond its own namespace, where the operator's namespace has the object."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *Attachment.RULES,
        Rule(
            "!(has(self.namespaceSelector) && has(self.targetRefs))",
            lambda spec: spec.namespace_selector is None or spec.target_refs is None,
            "namespaceSelector and targetRefs exclude each other: select pods of other namespaces with podSelector",
        ),
        Rule(
            "!has(self.inheritance) || self.inheritance == 'Override' || has(self.namespaceSelector)",
            lambda spec: spec.inheritance == "Override" or spec.namespace_selector is not None,
            "inheritance: Default is what namespaces start with: add namespaceSelector ({} for all), or take it out",
            ".inheritance",
        ),
    )

    namespace_selector: LabelSelector | None = Field(
        default=None, json_schema_extra={"x-kubernetes-map-type": "atomic"}
    )
    """Namespaces that it applies to, by their labels; {} selects all. Only in the operator's namespace, where the
    platform writes. With podSelector, only the pods there that it selects. Not together with targetRefs.
    Example: {matchLabels: {department: research}}"""
    inheritance: Annotated[Literal["Override", "Default"], UNSTORED] = "Override"
    """With namespaceSelector. Override: it always applies. Default: a starting value; a namespace's own budget with a
    limit of the same unit (and currency) replaces that limit on the pods that it applies to. Example: Default"""
