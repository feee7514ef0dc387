"""What all kinds share: metadata, names, columns. The kinds themselves are in their own modules, how they attach to
pods in `attachment`, their status in `conditions`, and how a manifest is read in `parsing`."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from spendmesh_operator.manifests.rules import Node, text_rule

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

Pattern = Annotated[
    str,
    Field(max_length=256),
    text_rule(
        r"[A-Za-z0-9*][A-Za-z0-9._:/@+*-]*",
        "must be a model's name, where * stands for any text and is the only wildcard, such as gpt-*",
    ),
]
"""A glob of model names."""

Currency = Annotated[str, Field(max_length=3), text_rule("[A-Z]{3}", "must be an ISO 4217 code such as USD or EUR")]
"""A currency: three capital letters."""


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
