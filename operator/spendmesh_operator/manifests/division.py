"""What a limit is divided by: users, features, workloads and what else tells calls apart."""

import re
from typing import Annotated, Literal

from pydantic import Field

from spendmesh_operator.manifests.attachment import LABEL_KEY_LENGTH_MAX, QUALIFIED
from spendmesh_operator.manifests.rules import ATOMIC, Node, Rule

_HEADER = "[a-z0-9]+(?:-[a-z0-9]+)*"
_HEADER_LENGTH_MAX = 64
_TAKEN_PREFIXES = ("x-spendmesh-", "x-stainless-", "anthropic-", "openai-", "proxy-", "sec-")
_TAKEN = (
    *("accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-type"),
    *("cookie", "expect", "host", "idempotency-key", "origin", "te", "traceparent", "tracestate", "trailer"),
    *("transfer-encoding", "upgrade", "user-agent", "x-api-key"),
)
_KEY = re.compile(QUALIFIED)
_NAMED = ("Header", "PodLabel")


def _is_free_header(name: str) -> bool:
    fits = len(name) <= _HEADER_LENGTH_MAX and re.fullmatch(_HEADER, name) is not None
    return fits and name not in _TAKEN and not name.startswith(_TAKEN_PREFIXES)


def _cel_list(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


class PerPart(Node):
    """One thing that tells accounts apart."""

    RULES = (
        Rule(
            f"self.type in {_cel_list(_NAMED)} ? has(self.name) : !has(self.name)",
            lambda part: (part.type in _NAMED) == (part.name is not None),
            "name goes with type Header (the header) and PodLabel (the label's key) and with nothing else",
        ),
        Rule(
            f"self.type != 'Header' || !has(self.name) || (size(self.name) <= {_HEADER_LENGTH_MAX} && "
            f"self.name.matches('^{_HEADER}$') && !(self.name in {_cel_list(_TAKEN)}) && "
            f"!{_cel_list(_TAKEN_PREFIXES)}.exists(prefix, self.name.startsWith(prefix)))",
            lambda part: part.type != "Header" or part.name is None or _is_free_header(part.name),
            f"must be a header of your own in lower case such as x-tenant, at most {_HEADER_LENGTH_MAX} characters; "
            "headers that mean something else to clients, providers or Spendmesh cannot be used",
            ".name",
        ),
        Rule(
            f"self.type != 'PodLabel' || !has(self.name) || self.name.matches('^{QUALIFIED}$')",
            lambda part: part.type != "PodLabel" or part.name is None or _KEY.fullmatch(part.name) is not None,
            "must be a label key such as team or example.com/team",
            ".name",
        ),
    )

    type: Literal["Namespace", "Workload", "Pod", "User", "Feature", "Header", "PodLabel"]
    """Namespace, Workload, Pod and PodLabel are those of the calling pod; User and Feature are what the request says in
    x-spendmesh-user and x-spendmesh-feature, Header what it says in a header of your own. Example: User"""
    name: Annotated[str, Field(max_length=LABEL_KEY_LENGTH_MAX)] | None = None
    """With Header: its name in lower case. It must be set by what calls the sidecar, and is not sent to providers.
    With PodLabel: the label's key. Example: x-tenant"""


_DIFFERENT = Rule(
    "self.all(a, self.exists_one(b, b == a))",
    lambda parts: len(set(parts)) == len(parts),
    "two parts are the same: give each once",
)
Per = Annotated[tuple[PerPart, ...], Field(max_length=4), ATOMIC, _DIFFERENT]
"""What a limit is divided by; empty: nothing."""
