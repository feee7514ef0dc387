"""What a new pod is injected with: its policy's keys and a copy of that policy, as they are compiled now. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from spendmesh_operator.compile import Compiled, CompiledPolicy
from spendmesh_operator.index import Index
from spendmesh_operator.injection import Decision, InjectionConfig, ProviderKey, mutate
from spendmesh_operator.injection.names import LABEL_INJECT
from spendmesh_sidecar.protocol import Bootstrap, Snapshot, Stamp, pack_bootstrap

Json = dict[str, Any]

BORN: Final = Stamp(epoch=0, sequence=0)
"""Older than any stamp that a leader gives: whatever the stream says later is newer than the copy."""

SELECTED: Final = {LABEL_INJECT: "enabled"}
"""The API server asks only where its selectors matched, and it knows a namespace's labels sooner than we do."""


class Injector:
    """Decides about pods of the webhook; remembers packed copies, since pods of one class come in numbers."""

    def __init__(self, index: Index, compiled: Callable[[], Compiled | None], config: Callable[[], InjectionConfig]):
        self._index = index
        self._compiled = compiled
        self._config = config
        self._packed: dict[str, str] = {}

    def decide(self, pod: Json, namespace: str) -> Decision:
        """The webhook's `Decide`."""
        compiled = self._compiled()
        if compiled is None:
            return mutate(pod, SELECTED, self._config())
        metadata = pod.get("metadata") or {}
        policy = compiled.policy_for(
            namespace,
            metadata.get("labels") or {},
            self._index.owner_chain(namespace, metadata),
            metadata.get("name") or "",
        )
        return mutate(
            pod,
            SELECTED,
            self._config(),
            keys=provider_keys(policy),
            bootstrap=self._bootstrap(policy, compiled),
        )

    def _bootstrap(self, policy: CompiledPolicy, compiled: Compiled) -> str:
        if policy.digest not in self._packed:
            if len(self._packed) > len(compiled.policies) + 100:
                self._packed.clear()
            self._packed[policy.digest] = packed(policy, compiled)
        return self._packed[policy.digest]


def provider_keys(policy: CompiledPolicy) -> tuple[ProviderKey, ...]:
    """The keys that a pod of this class needs."""
    return tuple(ProviderKey(key_name=need.provider, secret=need.secret, item=need.key) for need in policy.secrets)


def packed(policy: CompiledPolicy, compiled: Compiled) -> str:
    """The bootstrap copy of a policy; empty where its price table is not at hand."""
    table = compiled.price_tables.get(policy.price_table)
    if table is None:
        return ""
    snapshot = Snapshot(digest=policy.digest, stamp=BORN, policy=msgspec.Raw(policy.encoded))
    return pack_bootstrap(Bootstrap(snapshot=snapshot, price_table=msgspec.Raw(table)))
