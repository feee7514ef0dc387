"""
The compiled policy of one class of pods: the contract that the operator fills and the sidecar obeys.

Frozen, canonical, digestible; knows nothing of Kubernetes and holds no secret (contract §3). The price table is
a second document, addressed by its own digest, so that a policy edit does not move the prices.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from spendmesh_sidecar.core.specs import (
    BudgetSpec,
    ListedModel as ListedModel,  # the price table's own words, for who builds one
    ModelMatch as ModelMatch,
    PriceList,
    ProviderSpec,
    RetrySpec,
    RoutingSpec,
    Spec,
)

FEATURES = frozenset(
    {"routing/1", "budgets/1", "budgets/2", "budgets/3", "retries/1", "retries/2", "deduplication/1", "retry-scope/1"}
)
"""What this sidecar understands. A policy that `requires` anything else is refused (NACK), never half obeyed.
`budgets/2`: limits that count some calls only or are divided, and budgets that let unpriced models pass, Clamp,
and budgets of the organisation. `budgets/3`: limits that do not reserve all that a call may cost. `retries/2`: the
breaker's mode, its share of bad calls and slow first bytes, adaptive concurrency; retries weighed and bounded in money,
hints, jitter and timeouts. `deduplication/1`: calls that get another call's answer. `retry-scope/1`: retry budgets that
all pods share.
"""


class Source(Spec, frozen=True, kw_only=True):
    """An object that went into the policy: for people who ask why."""

    kind: str
    name: str
    uid: str
    generation: int


class Policy(Spec, frozen=True, kw_only=True):
    """Everything one workload's sidecar needs to decide on its own."""

    format: Literal[1] = 1
    cluster: str
    """Ledger domain: the configured cluster name."""
    namespace: str
    requires: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    price_table: str
    """SHA-256 (hex) of the canonical JSON of the `PriceTable` this policy is priced by."""
    providers: tuple[ProviderSpec, ...] = ()
    """In the order of the policy: the first of a dialect takes models that nothing claims."""
    routing: RoutingSpec | None = None
    """None: no RoutingPolicy applies, every call is refused with `policy_missing`."""
    observed_routing: RoutingSpec | None = None
    """Evaluated beside `routing`, changes nothing."""
    budgets: tuple[BudgetSpec, ...] = ()
    unbudgeted: Literal["Allow", "Deny"] = "Allow"
    """What happens to a workload without any enforced budget (Helm `unbudgeted`)."""
    retry: RetrySpec = RetrySpec()
    observed_retry: RetrySpec | None = None

    @property
    def targets(self) -> frozenset[str]:
        """`alias/model` of every target that the routing names."""
        tiers = self.routing.tiers if self.routing else ()
        return frozenset(f"{target.provider}/{target.model}" for tier in tiers for target in tier.targets)


class PriceTable(Spec, frozen=True, kw_only=True):
    """The built-in dated prices (from genai-prices), or the part of them that a policy can need."""

    format: Literal[1] = 1
    version: str
    """Source and its version, for example `genai-prices 0.2.3`: stored with every record."""
    date: str
    """ISO date of the snapshot."""
    lists: tuple[PriceList, ...]


class PolicyError(ValueError):
    """A document that this sidecar cannot accept; the message goes back in the NACK."""


def encode(document: Policy | PriceTable) -> bytes:
    """Canonical JSON: keys in field order, defaults left out, no spaces; equal documents give equal bytes."""
    return msgspec.json.encode(document)


def digest(encoded: bytes) -> str:
    """SHA-256 in hex of a canonical document."""
    return hashlib.sha256(encoded).hexdigest()


def decode_policy(encoded: bytes) -> Policy:
    """
    Read and check a policy.

    Unknown fields are ignored (an older sidecar under a newer operator); what must be understood is named in
    `requires`. Raises PolicyError with a sentence for the person who reads the object's status.
    """
    try:
        policy = msgspec.json.decode(encoded, type=Policy)
    except msgspec.DecodeError as error:
        raise PolicyError(f"policy is not readable: {error}") from error
    unknown = sorted(set(policy.requires) - FEATURES)
    if unknown:
        raise PolicyError(f"policy requires {', '.join(unknown)}, which this sidecar does not know: upgrade the pod")
    _check_references(policy)
    return policy


def decode_price_table(encoded: bytes) -> PriceTable:
    """Read a price table. Raises PolicyError."""
    try:
        return msgspec.json.decode(encoded, type=PriceTable)
    except msgspec.DecodeError as error:
        raise PolicyError(f"price table is not readable: {error}") from error


def _check_references(policy: Policy) -> None:
    aliases = {provider.alias for provider in policy.providers}
    for routing in (policy.routing, policy.observed_routing):
        if routing is None:
            continue
        tiers = {tier.name for tier in routing.tiers}
        named = {routing.default_tier, *(rule.tier for rule in routing.rules)}
        if routing.tiers and (missing := sorted(named - tiers)):
            raise PolicyError(f"policy {routing.name} names tiers that it does not have: {', '.join(missing)}")
        targets = {target.provider for tier in routing.tiers for target in tier.targets}
        if missing := sorted(targets - aliases):
            raise PolicyError(f"policy {routing.name} names providers that it does not have: {', '.join(missing)}")
