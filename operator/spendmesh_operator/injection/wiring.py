"""
The environment of the application's own containers: where the model APIs are, dummy keys, and NO_PROXY.

Nothing that a user has set in `env` is overwritten, with one exception that contract §1 asks for: 127.0.0.1 is added
to NO_PROXY and no_proxy, or a proxy would be asked for the sidecar's address. What `envFrom` brings is not known here,
and kubelet lets `env` win over it: then the person who applied the pod is warned.
"""

from __future__ import annotations

import re
from typing import Any

from spendmesh_operator.injection import names

Json = dict[str, Any]

LOOPBACK = "127.0.0.1"
BASE_URLS = {
    "OPENAI_BASE_URL": f"http://{LOOPBACK}:{names.PORT_DATA}/openai/v1",
    "ANTHROPIC_BASE_URL": f"http://{LOOPBACK}:{names.PORT_DATA}/anthropic",
}
KEYS = {
    # The SDKs refuse to start without a key; the sidecar strips whatever they send.
    "OPENAI_API_KEY": "spendmesh",
    "ANTHROPIC_API_KEY": "spendmesh",
}


def wire(container: Json) -> tuple[Json, list[str]]:
    """A copy of an application's container that reaches the sidecar, and warnings for the person who applied it."""
    environment: list[Json] = [dict(entry) for entry in container.get("env") or []]
    present = {str(entry.get("name", "")) for entry in environment}
    warnings = [
        f"container {container.get('name')} sets {name} itself: its calls are governed only if that is the sidecar"
        for name, address in BASE_URLS.items()
        if name in present and _literal(environment, name) != address
    ]
    missing = {name: value for name, value in {**BASE_URLS, **KEYS}.items() if name not in present}
    environment += [{"name": name, "value": value} for name, value in missing.items()]
    if missing and container.get("envFrom"):
        warnings.append(
            f"container {container.get('name')} uses envFrom: if that sets {', '.join(missing)}, the sidecar's value "
            "wins; to keep your own, set it in env"
        )
    environment = _with_loopback_excluded(environment, has_env_from=bool(container.get("envFrom")))
    return {**container, "env": environment}, warnings


def _literal(environment: list[Json], name: str) -> str | None:
    return next((entry.get("value") for entry in reversed(environment) if entry.get("name") == name), None)


def _with_loopback_excluded(environment: list[Json], has_env_from: bool) -> list[Json]:
    """
    Programs read NO_PROXY, no_proxy or both, some preferring one, some the other: both end up saying everything.

    A value that comes from elsewhere (valueFrom, envFrom) is not known here; it is referred to by `$(NAME)`, which
    kubelet expands. An undefined reference stays as it is written and matches no host.
    """
    merged: list[Json] = []
    for entry in environment:
        if entry.get("name") not in ("NO_PROXY", "no_proxy"):
            merged.append(entry)
        elif "valueFrom" in entry:
            kept = f"{names.USER_NO_PROXY_PREFIX}{entry['name']}"
            merged.append({**entry, "name": kept})
            merged.append({"name": entry["name"], "value": f"$({kept}),{LOOPBACK}"})
        else:
            merged.append({**entry, "value": _joined(str(entry.get("value") or ""))})
    explicit = {entry["name"] for entry in merged if entry.get("name") in ("NO_PROXY", "no_proxy")}
    for name, other in (("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")):
        if name in explicit:
            continue
        references = [f"$({name})"] if has_env_from else []
        if has_env_from or other in explicit:
            references.append(f"$({other})")
        merged.append({"name": name, "value": ",".join([*references, LOOPBACK])})
        explicit.add(name)
    return merged


def _joined(value: str) -> str:
    hosts = [host for host in re.split(r"[,\s]+", value) if host]
    if LOOPBACK in hosts or "*" in hosts:
        return value
    return ",".join([*hosts, LOOPBACK])
