"""
`spendmesh inject`: adds the sidecar to workload manifests offline, by the webhook's own function.

For clusters where nobody may install a webhook, and to see in a diff what a pod will get.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spendmesh_cli.load import load
from spendmesh_operator.compile import Compiled, CompileSettings, compile_index
from spendmesh_operator.index import OPERATOR_NAMESPACE, Index, Owner
from spendmesh_operator.injecting import packed, provider_keys
from spendmesh_operator.injection import Decision, Injected, InjectionConfig, Refused, mutate
from spendmesh_operator.injection.names import LABEL_INJECT
from spendmesh_operator.prices import load_prices

Json = dict[str, Any]

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Where each kind has its pods."""


@dataclass(frozen=True)
class Outcome:
    """Manifests with their sidecars, and what is to be said about them."""

    documents: tuple[Json, ...]
    remarks: tuple[str, ...] = ()
    refused: bool = False


class Injection:
    """Adds sidecars to manifests. `policies`: what they obey; none: a sidecar without keys and bootstrap copy."""

    def __init__(self, config: InjectionConfig, namespace: str = "default", policies: Compiled | None = None) -> None:
        self._config = config
        self._namespace = namespace
        self._policies = policies
        self._remarks: list[str] = []

    def apply(self, documents: Sequence[Json]) -> Outcome:
        """Every workload gets its sidecar; other objects stay as they are."""
        refused = False
        changed: list[Json] = []
        for document in documents:
            if document.get("kind") == "List":
                inner = self.apply(document.get("items") or [])
                refused = refused or inner.refused
                changed.append({**document, "items": list(inner.documents)})
                continue
            result = self._one(document)
            refused = refused or result is None
            changed.append(document if result is None else result)
        return Outcome(tuple(changed), tuple(self._remarks), refused)

    def _one(self, document: Json) -> Json | None:
        path = TEMPLATES.get(str(document.get("kind")))
        if path is None:
            return document
        name = f"{document['kind']}/{(document.get('metadata') or {}).get('name', '')}"
        template = _pod_in(document, path)
        if template is None:
            self._remarks.append(f"{name}: refused: it has no {'.'.join((*path, 'spec'))} with containers")
            return None
        decision = self._decide(document, template)
        if isinstance(decision, Refused):
            self._remarks.append(f"{name}: refused: {decision.reason}")
            return None
        if not isinstance(decision, Injected):
            self._remarks.append(f"{name}: left alone: {decision.reason}")
            return document
        self._remarks.extend(f"{name}: warning: {warning}" for warning in decision.warnings)
        self._remarks.append(f"{name}: {'injected' if decision.patch else 'carries its sidecar already'}")
        return _with(document, path, decision.pod)

    def _decide(self, document: Json, template: Json) -> Decision:
        selected = {LABEL_INJECT: "enabled"}
        if self._policies is None:
            return mutate(template, selected, self._config)
        metadata, labels = document.get("metadata") or {}, (template.get("metadata") or {}).get("labels") or {}
        kind, name = str(document["kind"]), str(metadata.get("name", ""))
        owners = () if kind == "Pod" else (Owner(kind, name),)
        namespace = str(metadata.get("namespace") or self._namespace)
        policy = self._policies.policy_for(namespace, labels, owners, name if kind == "Pod" else "")
        return mutate(
            template, selected, self._config, keys=provider_keys(policy), bootstrap=packed(policy, self._policies)
        )


def _pod_in(document: Json, path: tuple[str, ...]) -> Json | None:
    """The pod or pod template at the path, if it looks like one."""
    found: Any = document
    for step in (*path, "spec"):
        parent, found = found, found.get(step) if isinstance(found, dict) else None
    containers = found.get("containers") if isinstance(found, dict) else None
    if not isinstance(containers, list) or not all(isinstance(one, dict) for one in containers):
        return None
    return parent if isinstance(parent, dict) else None


def _with(document: Json, path: tuple[str, ...], value: Json) -> Json:
    """A copy of the document with `value` at the path."""
    if not path:
        return {**document, **value}
    first, *rest = path
    return {**document, first: _with(document[first], tuple(rest), value)}


def compile_policies(paths: Sequence[Path], namespace: str, cluster: str, operator_namespace: str) -> Compiled:
    """The policies in some files. Raises ValueError naming the first file that cannot be read."""
    files = load(paths, namespace)
    if files.unreadable:
        raise ValueError(f"{files.unreadable[0].place}: {files.unreadable[0].message}")
    index = Index(operator_namespace=operator_namespace)
    for loaded in files.objects:
        index.add(loaded.raw)
    return compile_index(index, CompileSettings(cluster=cluster), load_prices())


# --- command ----------------------------------------------------------------------------------------------


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the program; `arguments.run(arguments)` answers the exit status."""
    parser = subparsers.add_parser(
        "inject",
        help="add the sidecar to workload manifests, offline",
        description="Reads manifests, adds the sidecar to every Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, "
        "Job and CronJob, and writes YAML to standard output. The webhook leaves such pods alone. "
        "Exit status: 0 done, 1 a workload was refused, 2 a file could not be read.",
    )
    parser.add_argument(
        "-f", "--filename", action="append", required=True, metavar="FILE", help="manifests; - is standard input"
    )
    parser.add_argument(
        "-p", "--policies", action="append", type=Path, default=[], metavar="PATH",
        help="YAML of the kinds: which keys the pods mount, and the copy that they start with",
    )  # fmt: skip
    parser.add_argument("-n", "--namespace", default="default", help="for objects that name none (default: default)")
    parser.add_argument(
        "--operator-namespace", default=OPERATOR_NAMESPACE, metavar="NAME",
        help="the release's namespace, whose budgets may reach others (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--cluster", default="default", help="clusterName of the release (default: default)")
    parser.add_argument(
        "--control-ca", type=Path, required=True, metavar="FILE",
        help="authority of the control server: kubectl -n spendmesh-system get secret spendmesh-tls "
        "-o jsonpath='{.data.ca\\.crt}' | base64 -d",
    )  # fmt: skip
    parser.add_argument("--control-url", default="https://spendmesh-control.spendmesh-system.svc", metavar="URL")
    parser.add_argument("--image", default="spendmesh-sidecar:0.1.0", help="of the sidecar")
    parser.add_argument("--otlp-endpoint", default="", metavar="URL", help="OTLP/HTTP receiver for spans")
    parser.add_argument(
        "--durability", choices=("Process", "Node"), default="Process",
        help="what the ledger's log survives: a killed sidecar, or also the end of the node (default: Process)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Inject, print, and answer the exit status."""
    try:
        documents = [document for name in arguments.filename for document in _read(name)]
        policies = (
            compile_policies(arguments.policies, arguments.namespace, arguments.cluster, arguments.operator_namespace)
            if arguments.policies
            else None
        )
        config = InjectionConfig(
            image=arguments.image,
            control_url=arguments.control_url,
            control_ca=arguments.control_ca.read_text(encoding="utf-8"),
            otlp_endpoint=arguments.otlp_endpoint,
            durability=arguments.durability,
        )
    except (OSError, ValueError) as error:
        print(f"spendmesh inject: {error}", file=sys.stderr)
        return 2
    outcome = Injection(config, arguments.namespace, policies).apply(documents)
    for remark in outcome.remarks:
        print(f"spendmesh inject: {remark}", file=sys.stderr)
    if policies is None:
        print("spendmesh inject: no --policies given: the pods mount no provider key", file=sys.stderr)
    if outcome.refused:
        return 1
    yaml.safe_dump_all(outcome.documents, sys.stdout, sort_keys=False, width=120)
    return 0


def _read(name: str) -> Iterator[Json]:
    text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is no valid YAML: {error}") from error
    for document in documents:
        if not isinstance(document, dict):
            raise ValueError(f"{name}: a document in it is no Kubernetes object")  # noqa: TRY004  about the file
        yield document
