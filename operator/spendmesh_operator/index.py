"""
Every object and pod that we know, joined by reference: what `compile` reads. No I/O, no clock, no Kubernetes client.

Objects arrive raw, as the API server or a YAML file gives them, in any order. One that does not parse keeps what it
last validly meant; what follows from all of them is `compile`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from spendmesh_operator.manifests import (
    API_VERSION,
    FieldError,
    Manifest,
    ManifestError,
    parse,
    placement_errors,
    transition_errors,
)
from spendmesh_operator.workloads import (
    MountedKey,
    ObjectKey as ObjectKey,
    Owner as Owner,
    Parents,
    PodInfo as PodInfo,
    controller_of,
    mounted_keys,
)

POLICY_KINDS = ("RoutingPolicy", "ModelBudget", "RetryBudget")
"""Kinds that attach to pods."""
KINDS = ("ModelProvider", *POLICY_KINDS)
"""Kinds that people write."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

OPERATOR_NAMESPACE = "spendmesh-system"
"""Where the documentation installs the operator: what is assumed offline."""
NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"
"""The API server puts it on every namespace."""

_POLICY_SOURCES = frozenset({*KINDS, "Namespace"})
_FINISHED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True)
class Entry:
    """One object of ours: its newest generation, and what is in force."""

    key: ObjectKey
    uid: str
    generation: int
    """The newest one seen; `manifest` may be older."""
    created: datetime | None
    manifest: Manifest | None
    """The last valid meaning; None: there never was one."""
    errors: tuple[FieldError, ...] = ()
    """Why the newest generation is not in force."""
    raw: Mapping[str, Any] | None = None
    """The newest generation as it came, trimmed to what the object says."""


class Index:
    """All known objects. Each change answers whether it may matter, so that a status update of ours does not."""

    def __init__(self, *, operator_namespace: str = OPERATOR_NAMESPACE, secrets_complete: bool = False) -> None:
        """
        `operator_namespace`: the one whose objects may reach into others.

        `secrets_complete`: every Secret is added, so that one which is not known does not exist (offline use).
        """
        self.operator_namespace = operator_namespace
        self.secrets_complete = secrets_complete
        self._entries: dict[ObjectKey, Entry] = {}
        self._pods: dict[str, PodInfo] = {}
        self._pod_uids: dict[tuple[str, str], str] = {}
        self._parents = Parents()
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._secrets: dict[tuple[str, str], frozenset[str]] = {}
        self.objects_version = 0
        """Rises with each change of what people wrote and of namespaces' labels; pods and their owners do not count."""

    # --- changes ----------------------------------------------------------------------------------------

    def add(self, raw: Mapping[str, Any]) -> bool:
        """Take in a new object or a new version of a known one. Kinds that mean nothing to us are ignored."""
        changed = self._take(raw)
        self._note(str(raw.get("kind")), changed)
        return changed

    def _take(self, raw: Mapping[str, Any]) -> bool:
        kind = raw.get("kind")
        if kind in KINDS:
            return self._add_object(raw)
        metadata = raw.get("metadata") or {}
        namespace, name = metadata.get("namespace", "default"), metadata.get("name", "")
        match kind:
            case "Pod":
                return self._add_pod(raw, namespace, name)
            case "ReplicaSet" | "Job":
                return self._parents.add(kind, namespace, name, metadata)
            case "Namespace":
                return _put(self._namespaces, name, dict(metadata.get("labels") or {}))
            case "Secret":
                items = frozenset([*(raw.get("data") or {}), *(raw.get("stringData") or {})])
                return _put(self._secrets, (namespace, name), items)
        return False

    def remove(self, kind: str, namespace: str, name: str) -> bool:
        """Forget an object that was deleted, its last valid meaning included."""
        changed = self._forget(kind, namespace, name)
        self._note(kind, changed)
        return changed

    def _forget(self, kind: str, namespace: str, name: str) -> bool:
        key = ObjectKey(kind, namespace, name)
        match kind:
            case "Pod":
                uid = self._pod_uids.pop((namespace, name), None)
                return uid is not None and self._pods.pop(uid, None) is not None
            case "ReplicaSet" | "Job":
                return self._parents.remove(kind, namespace, name)
            case "Namespace":
                return self._namespaces.pop(name, None) is not None
            case "Secret":
                return self._secrets.pop((namespace, name), None) is not None
        return self._entries.pop(key, None) is not None

    def replace(self, kind: str, raws: Iterable[Mapping[str, Any]]) -> bool:
        """Take a whole list of one kind: what is not in it is gone."""
        objects = list(raws)
        listed = {
            ("" if kind == "Namespace" else raw["metadata"].get("namespace", "default"), raw["metadata"]["name"])
            for raw in objects
        }
        gone = [where for where in self._names_of(kind) if where not in listed]
        removed = [self.remove(kind, namespace, name) for namespace, name in gone]
        added = [self.add({"kind": kind, "apiVersion": API_VERSION, **raw}) for raw in objects]
        return any(removed) or any(added)

    # --- what is known ----------------------------------------------------------------------------------

    def entries(self) -> tuple[Entry, ...]:
        """All objects of ours, sorted by key."""
        return tuple(self._entries[key] for key in sorted(self._entries))

    def entry(self, key: ObjectKey) -> Entry | None:
        """One object of ours."""
        return self._entries.get(key)

    def pods(self) -> tuple[PodInfo, ...]:
        """All running pods, sorted by namespace and name."""
        return tuple(self._resolved(self._pods[uid]) for _, uid in sorted(self._pod_uids.items()))

    def pod_uids(self) -> frozenset[str]:
        """Of all running pods."""
        return frozenset(self._pods)

    def given_keys(self) -> dict[str, frozenset[MountedKey] | None]:
        """The provider keys that each running pod was given when it was made, by uid."""
        return {uid: pod.keys for uid, pod in self._pods.items()}

    def pod(self, uid: str) -> PodInfo | None:
        """One running pod."""
        pod = self._pods.get(uid)
        return self._resolved(pod) if pod is not None else None

    def workload_of(self, uid: str) -> str:
        """The topmost owner of a running pod, `Kind namespace/name`; empty for a pod that is not known."""
        pod = self.pod(uid)
        return str(pod.workload) if pod is not None else ""

    def namespace_labels(self, name: str) -> Mapping[str, str] | None:
        """Labels of a namespace; None where it is not known."""
        return self._namespaces.get(name)

    def namespaces(self) -> Mapping[str, Mapping[str, str]]:
        """Labels of all known namespaces; a copy."""
        return dict(self._namespaces)

    def secret_keys(self, namespace: str, name: str) -> frozenset[str] | None:
        """Names of a Secret's items (never a value); None where the Secret is not known."""
        return self._secrets.get((namespace, name))

    def owner_chain(self, namespace: str, metadata: Mapping[str, Any]) -> tuple[Owner, ...]:
        """Controllers of a pod from its metadata, nearest first; works for one that has no name yet."""
        return self._parents.climb(namespace, controller_of(metadata), metadata.get("labels") or {})

    # --- how it is kept ---------------------------------------------------------------------------------

    def _note(self, kind: str, changed: bool) -> None:
        if changed and kind in _POLICY_SOURCES:
            self.objects_version += 1

    def _names_of(self, kind: str) -> list[tuple[str, str]]:
        match kind:
            case "Pod":
                return list(self._pod_uids)
            case "ReplicaSet" | "Job":
                return self._parents.names_of(kind)
            case "Namespace":
                return [("", name) for name in self._namespaces]
            case "Secret":
                return list(self._secrets)
        return [(key.namespace, key.name) for key in self._entries if key.kind == kind]

    def _add_object(self, raw: Mapping[str, Any]) -> bool:
        metadata = raw.get("metadata") or {}
        key = ObjectKey(str(raw["kind"]), str(metadata.get("namespace", "default")), str(metadata.get("name", "")))
        known = self._entries.get(key)
        trimmed = _trimmed(raw)
        if known is not None and known.raw == trimmed:
            return False
        entry = Entry(
            key=key,
            uid=str(metadata.get("uid", "")),
            generation=_generation(metadata),
            created=_timestamp(metadata.get("creationTimestamp")),
            manifest=None,
            raw=trimmed,
        )
        self._entries[key] = self._read(entry, known)
        return True

    def _read(self, entry: Entry, known: Entry | None) -> Entry:
        """`entry` with its meaning: its own if it is valid, else the last valid one."""
        assert entry.raw is not None
        before = known.manifest if known is not None and known.uid == entry.uid else None
        try:
            manifest = parse(entry.raw)
        except ManifestError as error:
            return replace(entry, manifest=before, errors=error.errors)
        # The API server refuses these edits by CEL; here they are refused where there is no API server.
        errors = transition_errors(before, manifest) if before is not None else ()
        errors += placement_errors(manifest, self.operator_namespace)
        if errors:
            return replace(entry, manifest=before, errors=errors)
        return replace(entry, manifest=manifest)

    def _add_pod(self, raw: Mapping[str, Any], namespace: str, name: str) -> bool:
        metadata = raw["metadata"]
        uid = str(metadata.get("uid") or f"{namespace}/{name}")
        if (raw.get("status") or {}).get("phase") in _FINISHED:
            return self.remove("Pod", namespace, name)
        direct, labels = controller_of(metadata), dict(metadata.get("labels") or {})
        pod = PodInfo(namespace, name, uid, labels, (direct,) if direct else (), mounted_keys(raw))
        before = self._pod_uids.get((namespace, name))
        if before is not None and before != uid:
            self._pods.pop(before, None)
        self._pod_uids[namespace, name] = uid
        return _put(self._pods, uid, pod)

    def _resolved(self, pod: PodInfo) -> PodInfo:
        direct = pod.owners[0] if pod.owners else None
        return replace(pod, owners=self._parents.climb(pod.namespace, direct, pod.labels))


def _put(table: dict[_Key, _Value], key: _Key, value: _Value) -> bool:
    changed = key not in table or table[key] != value
    table[key] = value
    return changed


def _trimmed(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the object says, without status and the bookkeeping in its metadata (managedFields dominate memory)."""
    metadata = raw.get("metadata") or {}
    kept = ("name", "namespace", "uid", "generation", "creationTimestamp")
    return {
        **{field: value for field, value in raw.items() if field not in ("metadata", "status")},
        "metadata": {field: metadata[field] for field in kept if field in metadata},
    }


def _generation(metadata: Mapping[str, Any]) -> int:
    generation = metadata.get("generation", 0)
    return generation if isinstance(generation, int) else 0


def _timestamp(value: object) -> datetime | None:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
