"""`spendmesh check`: manifests offline, with the operator's own verdicts. Nothing is sent anywhere."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spendmesh_cli.load import Files, Loaded, Place, load
from spendmesh_cli.workloads import INJECT, KINDS as WORKLOAD_KINDS, injected, pod_of
from spendmesh_operator.compile import Compiled, CompileSettings, Finding, Verdict, compile_index
from spendmesh_operator.index import KINDS, OPERATOR_NAMESPACE, Index, ObjectKey
from spendmesh_operator.manifests import GROUP, ManifestError, parse
from spendmesh_operator.prices import load_prices
from spendmesh_sidecar.policy import PolicyError, decode_policy

Severity = Literal["error", "warning"]
_SEVERITY: Mapping[str, Severity] = {
    "Accepted": "error",
    "ResolvedRefs": "error",
    "Priced": "warning",
    "Effective": "warning",
}
_SAID = frozenset({"Observing", "Invalid"})
"""Reasons of conditions that say what the author asked for, or what the error in a field has said."""


@dataclass(frozen=True)
class Remark:
    """One thing to say about a manifest."""

    severity: Severity
    place: Place
    subject: str
    """`ModelBudget team-a/team`; empty where the file itself is meant."""
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.severity}: {self.subject + ': ' if self.subject else ''}{self.message}"


@dataclass(frozen=True)
class Report:
    """What `check` found."""

    remarks: tuple[Remark, ...]
    verdicts: Mapping[ObjectKey, Verdict]
    readable: bool
    """Whether every file could be read."""

    def exit_code(self, *, strict: bool = False) -> int:
        """0: in order. 1: something must be corrected (with `strict`: also warnings). 2: a file could not be read."""
        if not self.readable:
            return 2
        return int(any(remark.severity == "error" or strict for remark in self.remarks))


def check(paths: Sequence[Path], namespace: str = "default", operator_namespace: str = OPERATOR_NAMESPACE) -> Report:
    """
    Read manifests and judge them as the operator would.

    `namespace` is for objects that name none; `operator_namespace` the one whose budgets may reach others.
    """
    files = load(paths, namespace)
    remarks = [Remark("error", each.place, "", each.message) for each in files.unreadable]
    if not files.objects and not remarks:
        remarks.append(Remark("error", Place(str(paths[0]), 1, 1), "", "no object in it"))
    index = Index(operator_namespace=operator_namespace)
    remarks += _index(files, index)
    compiled = compile_index(index, CompileSettings(cluster="check"), load_prices())
    by_key = {_key(loaded): loaded for loaded in files.objects}
    workloads = any(True for _ in index.pods())
    for key, verdict in compiled.verdicts.items():
        remarks += _of_verdict(by_key[key], verdict, index, workloads=workloads)
    remarks += _refused(compiled, by_key)
    remarks.sort(key=lambda remark: (remark.place.file, remark.place.document, remark.place.line))
    return Report(tuple(remarks), compiled.verdicts, readable=bool(files.objects) and not files.unreadable)


def _index(files: Files, index: Index) -> Iterator[Remark]:
    """Put every object into the index; what the index cannot tell apart or does not know is remarked."""
    places: dict[ObjectKey, Place] = {}
    for loaded in files.objects:
        key = _key(loaded)
        if key in places:
            yield Remark("error", loaded.place, str(key), f"stands twice, first at {places[key]}: keep one")
            continue
        places[key] = loaded.place
        if key.kind in KINDS or key.kind in ("Namespace", "Secret"):
            index.add(loaded.raw)
        elif str(loaded.raw.get("apiVersion", "")).startswith(f"{GROUP}/"):
            yield from _unknown(loaded)
    for loaded in files.objects:
        if loaded.raw["kind"] in WORKLOAD_KINDS:
            yield from _add_workload(loaded, index)


def _add_workload(loaded: Loaded, index: Index) -> Iterator[Remark]:
    pod = pod_of(loaded.raw)
    if pod is None:
        return
    namespace = pod["metadata"]["namespace"]
    if injected(pod, index.namespace_labels(namespace)):
        index.add(pod)
    else:
        message = (
            f"gets no sidecar, so nothing applies to it: label its namespace or its pod template {INJECT}: enabled"
        )
        yield Remark("warning", loaded.place, str(_key(loaded)), message)


def _unknown(loaded: Loaded) -> Iterator[Remark]:
    try:
        parse(loaded.raw)
    except ManifestError as error:
        for each in error.errors:
            yield Remark("error", loaded.place_of(each.field), error.subject, str(each))


def _of_verdict(loaded: Loaded, verdict: Verdict, index: Index, *, workloads: bool) -> Iterator[Remark]:
    entry = index.entry(verdict.key)
    errors = entry.errors if entry is not None else ()
    for error in errors:
        yield Remark("error", loaded.place_of(error.field), str(verdict.key), str(error))
    for finding in verdict.conditions:
        if finding.status == "True" and finding.reason != "PartiallyConflicted":
            continue
        if finding.reason in _SAID or (finding.type == "Effective" and not workloads):
            continue
        yield _remark(loaded, verdict, finding)


def _remark(loaded: Loaded, verdict: Verdict, finding: Finding) -> Remark:
    severity: Severity = "warning" if finding.status == "True" else _SEVERITY[finding.type]
    field = finding.message.split(":", 1)[0]
    place = loaded.place_of(field) if field.startswith("spec.") else loaded.place
    return Remark(severity, place, str(verdict.key), f"{finding.message} [{finding.type}/{finding.reason}]")


def _refused(compiled: Compiled, by_key: Mapping[ObjectKey, Loaded]) -> Iterator[Remark]:
    """Policies that a sidecar of this version would refuse."""
    for policy in compiled.policies.values():
        try:
            decode_policy(policy.encoded)
        except PolicyError as error:
            for key in policy.key.objects:
                yield Remark("error", by_key[key].place, str(key), f"a sidecar refuses the policy made of it: {error}")


def _key(loaded: Loaded) -> ObjectKey:
    metadata: Mapping[str, Any] = loaded.raw["metadata"]
    return ObjectKey(loaded.raw["kind"], metadata.get("namespace", ""), metadata["name"])


# --- command ----------------------------------------------------------------------------------------------


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the program; `arguments.run(arguments)` answers the exit status."""
    parser = subparsers.add_parser(
        "check",
        help="say what the operator would say about manifests, offline",
        description="Judges manifests as the operator would: errors, references, prices, and what applies to whom. "
        "Give workloads, Namespaces and Secrets along to have them considered. "
        "Exit status: 0 in order, 1 something must be corrected, 2 a file could not be read.",
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a YAML or JSON file, or a directory of them"
    )
    parser.add_argument("-n", "--namespace", default="default", help="for objects that name none (default: default)")
    parser.add_argument(
        "--operator-namespace", default=OPERATOR_NAMESPACE, metavar="NAME",
        help="the release's namespace, whose budgets may reach others (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, print, and answer the exit status."""
    report = check(arguments.paths, arguments.namespace, arguments.operator_namespace)
    for remark in report.remarks:
        print(remark, file=sys.stderr)
    for line in _summary(report):
        print(line)
    return report.exit_code(strict=arguments.strict)


def _summary(report: Report) -> Iterator[str]:
    for verdict in report.verdicts.values():
        wrong = [each.reason for each in verdict.conditions if each.status == "False" and each.type != "Effective"]
        effective = verdict.condition("Effective")
        words = effective.message if effective is not None and verdict.matched else "no workload given"
        reasons = f" ({', '.join(wrong)})" if wrong else ""
        yield f"{'ok' if verdict.accepted else 'no'}  {verdict.key}: {words}{reasons}"
    errors = sum(remark.severity == "error" for remark in report.remarks)
    yield f"{len(report.verdicts)} objects, {errors} errors, {len(report.remarks) - errors} warnings"
