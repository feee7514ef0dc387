"""
Why a pod cannot take a sidecar, and whether what it already carries under our names is what we would add.

Each function answers one sentence for the person who applied the pod, or None. Defaults that the API server and
other webhooks fill in do not count as a difference; anything that changes what the sidecar runs or sees does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spendmesh_operator.injection import names

Json = dict[str, Any]

_GROUPS = ("initContainers", "containers", "ephemeralContainers")
_PORTS = (names.PORT_DATA, names.PORT_ADMIN)
_MUST_BE_ABSENT = ("args", "command", "envFrom", "lifecycle", "stdin", "tty", "volumeDevices", "workingDir")
_MUST_BE_EQUAL = ("image", "restartPolicy", "ports")


def impossible(pod: Json) -> str | None:
    """What about this pod makes a sidecar useless or unsafe."""
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        return (
            f"hostNetwork shares 127.0.0.1:{names.PORT_DATA} with every pod of the node: "
            f"remove hostNetwork, or label the pod {names.LABEL_INJECT}=disabled"
        )
    for setting in ("hostPID", "shareProcessNamespace"):
        if spec.get(setting) and (reason := _may_read_processes(spec, setting)):
            return reason
    for container in _others(spec):
        for port in container.get("ports") or []:
            if port.get("containerPort") in _PORTS and port.get("protocol", "TCP") == "TCP":
                return (
                    f"container {container.get('name')} uses port {port['containerPort']}, which is the sidecar's: "
                    f"use another port ({' and '.join(map(str, _PORTS))} are taken)"
                )
    return None


def misused_names(pod: Json) -> str | None:
    """Our names in places where we never put them: no container but the sidecar may see its volumes."""
    spec = pod["spec"]
    for container in spec.get("containers") or []:
        if container.get("name") == names.CONTAINER:
            return f"containers[] has one named {names.CONTAINER}, which is the sidecar's name: rename it"
    for container in _others(spec):
        for mount in container.get("volumeMounts") or []:
            if str(mount.get("name", "")).startswith(names.VOLUME_PREFIX):
                return (
                    f"container {container.get('name')} mounts volume {mount['name']}: volumes whose names begin "
                    f"with {names.VOLUME_PREFIX} are the sidecar's alone (keys are in them); rename the volume"
                )
    for container in spec.get("ephemeralContainers") or []:
        if container.get("targetContainerName") == names.CONTAINER:
            return (
                f"container {container.get('name')} targets {names.CONTAINER}: it would see the sidecar's files, and "
                "keys are in them; target a container of the application"
            )
    return None


def container_difference(existing: Json, wanted: Json) -> str | None:
    """The first part of the existing sidecar container that is not what we would inject."""
    for field in _MUST_BE_ABSENT:
        if existing.get(field):
            return _differs(f"{field} is set")
    for field in _MUST_BE_EQUAL:
        if existing.get(field) != wanted.get(field):
            return _differs(f"{field} is {_short(existing.get(field))}, not {_short(wanted.get(field))}")
    context = {key: value for key, value in (existing.get("securityContext") or {}).items() if key != "procMount"}
    if context != wanted["securityContext"]:
        return _differs("securityContext is another")
    if name := _differing_environment(existing, wanted):
        return _differs(f"environment variable {name} is another")
    mounts = [mount for mount in existing.get("volumeMounts") or [] if not _is_service_account_mount(mount)]
    if not _covers(sorted(wanted["volumeMounts"], key=_mount_path), sorted(mounts, key=_mount_path)):
        return _differs("volumeMounts are others")
    return None


def volume_difference(existing: Json, wanted: Json) -> str | None:
    """Why an existing volume of our name is not ours. In the keys' volume other Secrets may stand: they are updated."""
    name = wanted["name"]
    if name == names.VOLUME_KEYS:
        sources = (existing.get("projected") or {}).get("sources") or []
        if set(existing) == {"name", "projected"} and all(_is_optional_item(source) for source in sources):
            return None
    elif _covers(wanted, existing):
        return None
    return f"volume {name} is not the one that Spendmesh injects: rename it, or remove it and let it be injected"


def _differs(what: str) -> str:
    return (
        f"init container {names.CONTAINER} is not the one that this operator injects ({what}): "
        f"remove it together with the volumes {names.VOLUME_PREFIX}* and let it be injected anew"
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _others(spec: Json) -> Iterator[Json]:
    for container in (one for group in _GROUPS for one in spec.get(group) or []):
        if container.get("name") != names.CONTAINER:
            yield container


def _may_read_processes(spec: Json, setting: str) -> str | None:
    """
    In a shared process namespace /proc/PID/root and environ are open to the same user, and root can become it.

    See proc(5) and ptrace(2), PTRACE_MODE_READ_FSCREDS.
    """
    pod_user = (spec.get("securityContext") or {}).get("runAsUser")
    for container in _others(spec):
        user = (container.get("securityContext") or {}).get("runAsUser", pod_user)
        if user in (None, 0, names.USER_ID):
            who = "the image's user, which may be root" if user is None else f"user {user}"
            return (
                f"{setting} lets container {container.get('name')} ({who}) read the sidecar's keys through /proc: "
                f"set its runAsUser to another than 0 and {names.USER_ID}, or remove {setting}"
            )
    return None


def _differing_environment(existing: Json, wanted: Json) -> str | None:
    has = {str(entry.get("name", "")): entry for entry in existing.get("env") or []}
    wants = {entry["name"]: entry for entry in wanted["env"]}
    for name, entry in wants.items():
        if not _covers(entry, has.get(name, {})):
            return str(name)
    extra = (name for name in has if name not in wants and name.startswith(names.ENVIRONMENT_PREFIX))
    return next(extra, None)


def _mount_path(mount: Json) -> str:
    return str(mount.get("mountPath", ""))


def _is_service_account_mount(mount: Json) -> bool:
    # The ServiceAccount admission plugin adds it to every container, ours too when webhooks are run again.
    return mount.get("mountPath") == names.SERVICE_ACCOUNT_DIRECTORY


def _is_optional_item(source: Json) -> bool:
    secret = source.get("secret") or {}
    return set(source) == {"secret"} and bool(secret.get("optional")) and bool(secret.get("items"))


def _covers(wanted: Any, existing: Any) -> bool:
    """All that is wanted is there; mappings may hold more (defaults of the API server), lists may not."""
    if isinstance(wanted, dict):
        return isinstance(existing, dict) and all(
            key in existing and _covers(value, existing[key]) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(existing, list)
            and len(wanted) == len(existing)
            and all(_covers(one, other) for one, other in zip(wanted, existing, strict=True))
        )
    return bool(wanted == existing)
