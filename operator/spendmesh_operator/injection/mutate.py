"""The decision about one pod: inject (with a JSON patch), leave alone, or refuse with a reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spendmesh_operator.injection import conflicts, names
from spendmesh_operator.injection.additions import (
    InjectionConfig,
    InvalidTunable,
    ProviderKey,
    sidecar_container,
    sidecar_volumes,
)
from spendmesh_operator.injection.wiring import wire

Json = dict[str, Any]

ANNOTATIONS_BYTES_MAX = 256 * 1024
"""All annotations of an object together, keys and values (apimachinery TotalAnnotationSizeLimitB)."""
ANNOTATIONS_RESERVE_BYTES = 32 * 1024
"""Left to whoever annotates after us (Multus, Istio, kubectl)."""


@dataclass(frozen=True)
class Injected:
    """Apply `patch` (RFC 6902) to the pod, or take `pod`, which is the same. An empty patch: it is all there."""

    pod: Json
    patch: tuple[Json, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftAlone:
    """Not for us; the reason is for logs and `spendmesh inject`."""

    reason: str


@dataclass(frozen=True)
class Refused:
    """The pod asked for a sidecar and cannot have one; the reason says what to change."""

    reason: str


Decision = Injected | LeftAlone | Refused


def mutate(
    pod: Json,
    namespace_labels: Mapping[str, str],
    config: InjectionConfig,
    *,
    keys: Sequence[ProviderKey] = (),
    bootstrap: str = "",
) -> Decision:
    """
    Decide about a pod as the API server or a template gives it; never changes `pod`.

    `keys` are those that the pod's policy and namespace name; `bootstrap` is `pack_bootstrap`'s text or empty.
    Calling it again on its own answer changes nothing.
    """
    spec, metadata = pod.get("spec") or {}, pod.get("metadata") or {}
    pod = {**pod, "spec": spec, "metadata": metadata}
    annotations = metadata.get("annotations") or {}
    if reason := _unwanted(pod, namespace_labels):
        return LeftAlone(reason)
    if reason := conflicts.impossible(pod) or conflicts.misused_names(pod):
        return Refused(reason)
    try:
        container = sidecar_container(config, annotations)
    except InvalidTunable as error:
        return Refused(str(error))
    init_containers = list(spec.get("initContainers") or [])
    existing = next((one for one in init_containers if one.get("name") == names.CONTAINER), None)
    if existing is None:
        init_containers.insert(0, container)
    elif reason := conflicts.container_difference(existing, container):
        return Refused(reason)
    volumes = _merged_volumes(spec.get("volumes") or [], sidecar_volumes(keys, config.durability))
    if isinstance(volumes, Refused):
        return volumes
    return _finished(pod, init_containers, volumes, bootstrap)


def debug(pod: Json) -> LeftAlone | Refused:
    """Decide about a running pod that gets an ephemeral container: it may not reach what only the sidecar may see."""
    pod = {**pod, "spec": pod.get("spec") or {}}
    if reason := conflicts.misused_names(pod) or conflicts.impossible(pod):
        return Refused(reason)
    return LeftAlone("no ephemeral container reaches the sidecar")


def _unwanted(pod: Json, namespace_labels: Mapping[str, str]) -> str | None:
    own = (pod["metadata"].get("labels") or {}).get(names.LABEL_INJECT)
    wish = own or namespace_labels.get(names.LABEL_INJECT)
    if wish != "enabled":
        whose = "pod" if own else "namespace"
        return f"{whose} is not labeled {names.LABEL_INJECT}=enabled"
    spec = pod["spec"]
    selected = (spec.get("nodeSelector") or {}).get("kubernetes.io/os", "")
    if "windows" in ((spec.get("os") or {}).get("name", ""), selected):
        return "Windows pods have no sidecar"
    if "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {}):
        return "a mirror of a static pod cannot be changed"
    return None


def _merged_volumes(existing: list[Json], wanted: list[Json]) -> list[Json] | Refused:
    ours = {volume["name"]: volume for volume in wanted}
    merged: list[Json] = []
    for volume in existing:
        name = volume.get("name")
        if name not in ours:
            merged.append(volume)
            continue
        mine = ours.pop(name)
        if reason := conflicts.volume_difference(volume, mine):
            return Refused(reason)
        merged.append(_with_todays_keys(volume, mine))
    return [*merged, *ours.values()]


def _with_todays_keys(existing: Json, wanted: Json) -> Json:
    if wanted["name"] != names.VOLUME_KEYS:
        return existing
    sources = (existing["projected"] or {}).get("sources") or []
    if sources == wanted["projected"]["sources"]:
        return existing
    return {**existing, "projected": {**existing["projected"], **wanted["projected"]}}


def _finished(pod: Json, init_containers: list[Json], volumes: list[Json], bootstrap: str) -> Injected:
    spec, metadata = pod["spec"], pod["metadata"]
    warnings: list[str] = []

    def wired(container: Json) -> Json:
        if container.get("name") == names.CONTAINER:
            return container
        changed, said = wire(container)
        warnings.extend(said)
        return changed

    containers = [wired(container) for container in spec.get("containers") or []]
    new_spec = {
        **spec,
        "initContainers": [wired(container) for container in init_containers],
        "containers": containers,
        "volumes": volumes,
    }
    annotations = dict(metadata.get("annotations") or {})
    if containers:
        annotations.setdefault(names.ANNOTATION_DEFAULT_CONTAINER, str(containers[0].get("name", "")))
    annotations.pop(names.ANNOTATION_BOOTSTRAP, None)  # never a user's own: the sidecar believes it
    if bootstrap and _size(annotations) + len(bootstrap) > ANNOTATIONS_BYTES_MAX - ANNOTATIONS_RESERVE_BYTES:
        warnings.append(f"the bootstrap copy ({len(bootstrap)} bytes) does not fit beside this pod's annotations")
    elif bootstrap:
        annotations[names.ANNOTATION_BOOTSTRAP] = bootstrap
    labels = {**(metadata.get("labels") or {}), names.LABEL_INJECTED: "true"}
    changed = {**pod, "metadata": {**metadata, "annotations": annotations, "labels": labels}, "spec": new_spec}
    return Injected(changed, _patch(pod, changed), tuple(warnings))


def _size(annotations: Mapping[str, str]) -> int:
    return sum(len(key.encode()) + len(str(value).encode()) for key, value in annotations.items())


def _patch(before: Json, after: Json) -> tuple[Json, ...]:
    """Whole lists are replaced: the patch is for exactly the object that the API server has just sent."""
    operations: list[Json] = []
    for section in ("metadata", "spec"):
        for field, value in after[section].items():
            if field not in before[section]:
                operations.append({"op": "add", "path": f"/{section}/{field}", "value": value})
            elif before[section][field] != value:
                operations.append({"op": "replace", "path": f"/{section}/{field}", "value": value})
    return tuple(operations)
