"""What all kinds share: metadata, names, attachment to pods, and mode. The kinds themselves are in their own
modules, their status in `conditions`, and how a manifest is read in `parsing`."""

import re
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from spendmesh_operator.manifests.rules import ATOMIC, SET, Node, Rule, list_map, text_rule

GROUP = "spendmesh.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"

Name = Annotated[
    str,
    Field(max_length=63),
    text_rule(_LABEL, "must be lower-case letters, digits and '-', starting and ending with a letter or digit"),
]
"""A name inside a manifest (a tier, a limit, an alias): a DNS label, since it goes into URLs, headers and metrics."""

ObjectName = Annotated[
    str,
    Field(max_length=253),
    text_rule(
        rf"{_LABEL}(?:\.{_LABEL})*",
        "must be the name of a Kubernetes object: lower-case letters, digits, '-' and '.', "
        "starting and ending with a letter or digit",
    ),
]
"""The name of a Kubernetes object: a DNS subdomain."""

ModelName = Annotated[
    str,
    Field(max_length=256),
    text_rule(
        r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*",
        "must be a model's name as its provider writes it: letters, digits and . _ : / @ + - only",
    ),
]
"""A model as its provider names it: `gpt-5-mini`, `accounts/x/models/y`, `ft:small:team::id`."""

Currency = Annotated[str, Field(max_length=3), text_rule("[A-Z]{3}", "must be an ISO 4217 code such as USD or EUR")]
"""A currency: three capital letters."""

Mode = Literal["Enforce", "Observe"]


class ObjectMeta(Node):
    """The part of a Kubernetes object's metadata that we read; the rest is ignored."""

    model_config = ConfigDict(extra="ignore")

    name: ObjectName
    namespace: Name = "default"
    uid: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Manifest(BaseModel):
    """One object of a kind as its user wrote it, with the defaults filled in. Its status is not read here."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    CRD: ClassVar["CrdNames"]
    STATUS: ClassVar[type[Node] | None] = None

    api_version: Literal["spendmesh.io/v1alpha1"]
    kind: str
    metadata: ObjectMeta

    @property
    def key(self) -> tuple[str, str, str]:
        """(kind, namespace, name)."""
        return self.kind, self.metadata.namespace, self.metadata.name

    def __str__(self) -> str:
        return f"{self.kind} {self.metadata.namespace}/{self.metadata.name}"


class Column(BaseModel):
    """A column of `kubectl get`; `wide` ones are shown by `-o wide` only."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: str
    type: Literal["string", "integer", "date"] = "string"
    description: str
    wide: bool = False


class CrdNames(BaseModel):
    """How a kind is called and shown by Kubernetes."""

    model_config = ConfigDict(frozen=True)

    plural: str
    short: str | None
    policy: Literal["inherited", "direct"] | None
    """Value of the label `gateway.networking.k8s.io/policy` (GEP-713); None for what is no policy."""
    columns: tuple[Column, ...]


AGE = Column(name="Age", path=".metadata.creationTimestamp", type="date", description="Time since creation.")
MODE = Column(
    name="Mode", path=".spec.mode", description="Enforce, or Observe: computed and recorded, nothing changed."
)


def condition_column(condition: str, description: str) -> Column:
    """The column that shows the status of one condition."""
    path = f".status.conditions[?(@.type=='{condition}')].status"
    return Column(name=condition, path=path, description=description)


ACCEPTED = condition_column("Accepted", "True when the object is valid and in use.")
PROGRAMMED = condition_column("Programmed", "True when every running pod that it matches has acknowledged it.")

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
_QUALIFIED = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"


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

    key: Annotated[
        str,
        Field(max_length=317),
        text_rule(_QUALIFIED, "must be a label key such as app or example.com/team"),
    ]
    """Key of the label. Example: app"""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label is compared with values. Exists and DoesNotExist take no values. Example: In"""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=32), SET] | None = None
    """Values to compare with, for In and NotIn. Example: [checkout, cart]"""


_KEY = re.compile(_QUALIFIED)
LABEL_KEY_LENGTH_MAX = 317  # 253 for the prefix, a slash and 63


def _labels_without_nulls(labels: Any) -> Any:
    """As in objects, the API server drops nulls from maps."""
    return {key: value for key, value in labels.items() if value is not None} if isinstance(labels, dict) else labels


MatchLabels = Annotated[
    dict[str, LabelValue],
    Field(max_length=16),
    BeforeValidator(_labels_without_nulls),
    Rule(
        f"self.all(key, key.size() <= {LABEL_KEY_LENGTH_MAX} && key.matches('^{_QUALIFIED}$'))",
        lambda labels: all(len(key) <= LABEL_KEY_LENGTH_MAX and _KEY.fullmatch(key) is not None for key in labels),
        "a key is no label key: write one such as app or example.com/team",
    ),
]


class PodSelector(Node):
    """Selects pods of the same namespace by their labels; all conditions must hold."""

    RULES = (
        Rule(
            "(has(self.matchLabels) && size(self.matchLabels) > 0) || "
            "(has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            lambda selector: bool(selector.match_labels or selector.match_expressions),
            "an empty selector is refused: name at least one label, or leave podSelector out for the whole namespace",
        ),
    )

    match_labels: MatchLabels | None = None
    """Labels that a pod must have, with exactly these values. Example: {app: checkout}"""
    match_expressions: Annotated[tuple[LabelRequirement, ...], Field(max_length=16), ATOMIC] | None = None
    """Conditions on labels. Example: [{key: stage, operator: NotIn, values: [dev]}]"""


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
