"""A real API server and the models agree on every file and on what is near it; users see columns and explanations."""

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.strategies import DrawFn

from kinds_samples import Sample, examples_documents, samples
from kinds_server import KindsServer
from spendmesh_operator.manifests import KINDS, ManifestError, parse


def test_definitions_are_established_and_structural(kinds_server: KindsServer) -> None:
    """No condition complains, and nothing needs conversion."""
    for kind in KINDS.values():
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.CRD.plural}.spendmesh.io"
        conditions = kinds_server.plane.api.call("GET", path)["status"]["conditions"]
        assert {condition["type"]: condition["status"] for condition in conditions} == {
            "NamesAccepted": "True",
            "Established": "True",
        }


def test_an_accepted_file_is_created_with_the_defaults_of_the_model(
    kinds_server: KindsServer, accepted: Sample
) -> None:
    """The server takes it, and what it stores means to the model what the file meant: defaults agree."""
    for document in accepted.documents:
        status, stored = kinds_server.create(document)
        assert status == 201, stored["message"]
        meant, kept = parse(document), parse(stored)
        assert kept.model_dump(exclude={"metadata"}) == meant.model_dump(exclude={"metadata"})


def test_an_example_is_accepted_by_the_server(kinds_server: KindsServer) -> None:
    """What a person applies first is taken as it stands, but for the namespace, which this server does not have."""
    ours = [document for document in examples_documents() if document["kind"] in KINDS]
    assert {document["kind"] for document in ours} >= {"ModelProvider", "RoutingPolicy", "ModelBudget", "RetryBudget"}
    for document in ours:
        elsewhere = {**document, "metadata": {**document["metadata"], "namespace": kinds_server.namespace}}
        status, answer = kinds_server.create(elsewhere, dry_run=True)
        assert status == 201, f"{document['metadata']}: {answer['message']}"


def test_a_rejected_file_is_refused_with_field_and_message(kinds_server: KindsServer, rejected: Sample) -> None:
    """What a user reads after kubectl apply names the field and says why."""
    status, answer = kinds_server.create(rejected.documents[0])
    assert status in (400, 422)
    assert rejected.message in answer["message"]
    # A schema error writes a map's key as a field, a CEL error in brackets.
    assert any(field in answer["message"] for field in (rejected.field, rejected.field.replace("[app]", ".app")))


def test_an_update_is_refused_where_the_meaning_of_a_limit_would_change(
    kinds_server: KindsServer, updated: Sample
) -> None:
    """unit, currency and window stay; everything else may change."""
    before, after = updated.documents
    status, stored = kinds_server.create(before)
    assert status == 201, stored["message"]
    status, answer = kinds_server.replace(after, stored["metadata"]["resourceVersion"])
    assert (status == 422) == updated.refused, answer
    assert not updated.refused or (updated.field in answer["message"] and updated.message in answer["message"])


TREASURY: list[Any] = [
    *(None, True, 0, 1, -1, 2, 99, 100, 101, 10**9, 10**9 + 1, 10**15, 10**16, 0.5, 2.0),
    *("", "0", "1", "00", "1.5", "1.", ".5", "1e3", "+1", " 1", "1\n", "٣", "1000000000.000000001", "9" * 17),
    *("a", "A", "a-", "-a", "a.b", "a/b", "a*", "*", "a" * 63, "a" * 64, "ä", "a b", "USD", "usd", "EUR", "US"),
    *("1s", "1h", "61m", "0s", "1ms", "99999h", "1h1ms", "1m1m", "30S", "1µs", "1us"),
    *("Cost", "Requests", "TotalTokens", "Downgrade", "Notify", "APIKey", "None", "Asked", "Observe", "Exists", "In"),
    *("UTC", "Europe/Paris", "EST5EDT", "GMT+0", "Etc/GMT-14", "Nowhere", "Local", "US/Pacific", "Zulu", "Factory"),
    *(
        "apps",
        "batch",
        "Pod",
        "Job",
        "standard",
        "economy",
        "premium",
        "openai",
        "http://x",
        "https://x:1/y",
        "https://x/",
    ),
    *([], [1], ["a"], ["a", "a"], ["a", "b"], [None], {}, {"a": "b"}, {"a": None}, {"name": "a"}, {"a/b/c": "d"}),
]
"""Values near the edges of what the kinds allow."""
CORPUS = [document for sample in samples("accepted").values() for document in sample.documents]


@st.composite
def near_misses(draw: DrawFn) -> dict[str, Any]:
    """An accepted document with one to three changes at any place of its spec."""
    document: dict[str, Any] = {**copy.deepcopy(draw(st.sampled_from(CORPUS))), "metadata": {"name": "near-miss"}}
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document["spec"])) if isinstance(document["spec"], dict | list) else []
        if not places:
            break
        parent, key = draw(st.sampled_from(places))
        change = draw(st.sampled_from(["replace", "replace", "remove", "double", "add", "swap"]))
        if change == "replace":
            parent[key] = copy.deepcopy(draw(st.sampled_from(TREASURY)))
        elif change == "remove":
            del parent[key]
        elif change == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif change == "add" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["extra", "name", "when", "codes", "maxTier", "currency", "rules"]))] = "a"
        elif change == "swap":
            other, place = draw(st.sampled_from(places))
            parent[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(parent[key])
    return document


def _places(node: Any) -> Any:
    """Every (container, key) below a node."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(document=near_misses())
def test_server_and_model_agree_near_every_accepted_file(kinds_server: KindsServer, document: dict[str, Any]) -> None:
    """What the one accepts the other accepts, also one to three changes away from a valid file."""
    try:
        parse(document)
        complaint = ""
    except ManifestError as error:
        complaint = str(error)
    status, answer = kinds_server.create(document, dry_run=True)
    assert (status == 201) == (not complaint), f"server: {status} {answer.get('message')}\nmodel: {complaint}"


def document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A document of ours."""
    return {"apiVersion": "spendmesh.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def test_two_managers_share_a_lists_items(kinds_server: KindsServer) -> None:
    """targetRefs, limits and prices merge by their keys under server-side apply, the defaulted key group included."""

    def policy(*refs: dict[str, str]) -> dict[str, Any]:
        return document("RoutingPolicy", "shared", {"targetRefs": list(refs)})

    for manager, refs in (
        ("one", [{"kind": "Deployment", "name": "a"}, {"kind": "StatefulSet", "name": "a"}]),
        ("two", [{"group": "apps", "kind": "Deployment", "name": "a"}, {"group": "", "kind": "Pod", "name": "a"}]),
        ("one", [{"kind": "Deployment", "name": "a"}]),
    ):
        status, stored = kinds_server.apply(policy(*refs), manager)
        assert status in (200, 201), stored["message"]
    assert stored["spec"]["targetRefs"] == [
        {"group": "apps", "kind": "Deployment", "name": "a"},
        {"group": "", "kind": "Pod", "name": "a"},
    ]


def test_a_limit_keeps_its_meaning_under_server_side_apply(kinds_server: KindsServer) -> None:
    """The rule holds on the way that GitOps uses, and a removed limit may come back with another meaning."""

    def budget(name: str, currency: str) -> dict[str, Any]:
        window = {"type": "Calendar", "period": "Day"}
        limit = {"name": name, "currency": currency, "amount": 5, "window": window}
        metadata = {"name": "applied"}
        return {
            "apiVersion": "spendmesh.io/v1alpha1",
            "kind": "ModelBudget",
            "metadata": metadata,
            "spec": {"limits": [limit]},
        }

    answers = [
        kinds_server.apply(budget(*arguments), "gitops")
        for arguments in (("a", "USD"), ("a", "EUR"), ("b", "USD"), ("a", "EUR"))
    ]
    assert [status for status, _ in answers] == [201, 422, 200, 200]
    assert "currency of a limit never changes" in answers[1][1]["message"]


def applied_status(server: KindsServer, document: dict[str, Any], status: dict[str, Any]) -> None:
    """Creates the object and applies a status to it as the operator does."""
    created, answer = server.create(document)
    assert created == 201, answer["message"]
    condition = {
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "message": "",
        "lastTransitionTime": "2026-01-31T09:30:00Z",
        "observedGeneration": 1,
    }
    conditions = [condition, {**condition, "type": "Programmed", "status": "False", "reason": "Reconciling"}]
    whole = {"observedGeneration": 1, "conditions": conditions, **status}
    head = {key: document[key] for key in ("apiVersion", "kind", "metadata")}
    code, answer = server.apply({**head, "status": whole}, "spendmesh-operator", status=True)
    assert code == 200, answer["message"]
    assert answer["status"] == whole
    assert answer["spec"]


def table(server: KindsServer, *arguments: str) -> list[list[str]]:
    """The cells of what kubectl get prints; columns are two spaces apart at least."""
    printed = server.plane.kubectl("get", *arguments, "-n", server.namespace).stdout
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in printed.splitlines()]


def named(kind: str, name: str) -> dict[str, Any]:
    """The accepted document that shows the whole kind, under another name."""
    short = KINDS[kind].CRD.short
    (document,) = samples("accepted")[f"{short}-contract"].documents
    return {**copy.deepcopy(document), "metadata": {"name": name}}


def test_get_mbud_reads_like_a_bill(kinds_server: KindsServer) -> None:
    """Limit, period, spent, held, amount, percent, mode and conditions, one line for each budget."""
    tightest = {
        "limit": "monthly",
        "period": "Month",
        "used": "2251.10",
        "held": "18.00",
        "amount": "2500.00",
        "currency": "USD",
        "percent": 90,
        "forecast": "2710.00",
    }
    limit = {"name": "monthly", "used": "2251.10", "held": "18.00", "quarantined": "0.75", "remaining": "230.90"}
    limit |= {"periodStart": "2026-01-01T00:00:00+01:00", "resetsAt": "2026-02-01T00:00:00+01:00", "stage": "Downgrade"}
    details = {
        "forecast": "2710.00",
        "quarantine": [{"reason": "PodDeleted", "amount": "0.75"}],
        "holderCount": 12,
        "holders": [{"pod": "team-a/web-1", "used": "3.10", "held": "0.40", "state": "Reporting"}],
        "corrections": [
            {"reference": "invoice-1", "amount": "-1.20", "evidence": "line 17", "time": "2026-01-31T09:30:00Z"}
        ],
    }
    status = {"tightest": tightest, "limits": [{**limit, **details, "percent": 90}]}
    applied_status(kinds_server, named("ModelBudget", "bill"), status)
    header, line = table(kinds_server, "mbud", "bill")
    assert header == [
        *(
            "NAME",
            "LIMIT",
            "PERIOD",
            "SPENT",
            "HELD",
            "OF",
            "CURRENCY",
            "USED%",
            "FORECAST",
            "MODE",
            "ACCEPTED",
            "PROGRAMMED",
            "AGE",
        )
    ]
    assert " ".join(line[:-1]) == "bill monthly Month 2251.10 18.00 2500.00 USD 90 2710.00 Enforce True False"


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("RoutingPolicy", {"MODE": "Enforce", "DEFAULT-TIER": "standard", "MATCHED": "4", "PROGRAMMED": "False"}),
        ("RetryBudget", {"MODE": "Enforce", "PERCENT": "10", "RETRIES": "2", "MATCHED": "4", "ACCEPTED": "True"}),
        ("ModelProvider", {"DIALECT": "OpenAI", "URL": "https://api.openai.com/v1", "ACCEPTED": "True"}),
    ],
)
def test_columns_show_what_matters(kinds_server: KindsServer, kind: str, columns: dict[str, str]) -> None:
    """kubectl get by short name shows mode, the main values of spec, and the conditions."""
    workloads = {"workloads": {"matched": 4, "effective": 4, "programmed": 3}}
    applied_status(kinds_server, named(kind, "columns"), workloads)
    header, line = table(kinds_server, str(KINDS[kind].CRD.short), "columns")
    shown = dict(zip(header, line, strict=True))
    assert {name: shown[name] for name in columns} == columns


def test_the_category_lists_all_kinds(kinds_server: KindsServer) -> None:
    """kubectl get spendmesh shows everything of ours."""
    plane = kinds_server.plane
    listed = plane.kubectl("api-resources", "--categories=spendmesh", "-o", "name").stdout.split()
    assert sorted(listed) == sorted(f"{kind.CRD.plural}.spendmesh.io" for kind in KINDS.values())


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("mbud.spec.limits.amount", ['Example: "2500.00"', "9 decimals", "in the unit"]),
        ("rbud.spec.retry.backoff", ["Example: 500ms", "Default: 500ms"]),
        ("rpol.spec.tiers", ["from cheap to strong", "Example: [{name: economy"]),
        ("mprov.spec.auth.apiKey.secretKeyRef", ["Only the sidecar reads it", "name\t<string> -required-"]),
        ("mbud.status.tightest", ["nearest to its end"]),
    ],
)
def test_explain_tells_meaning_unit_and_example(kinds_server: KindsServer, path: str, parts: list[str]) -> None:
    """kubectl explain answers without a browser."""
    said = " ".join(kinds_server.plane.kubectl("explain", path).stdout.split(" "))
    flat = " ".join(said.split())
    assert [part for part in parts if part not in flat and part not in said] == []


def test_the_books_keep_what_they_hold(kinds_server: KindsServer) -> None:
    """books has a format of its own: nothing in it is dropped, nulls included."""
    books = {"accounts": {"a/b/c": {"used": "1.5", "deep": [{"x": None, "y": [1, 2.5]}]}}}
    spec = {"format": 1, "epoch": 1, "commit": "1-1", "books": books}
    document = {
        "apiVersion": "spendmesh.io/v1alpha1",
        "kind": "BudgetLedger",
        "metadata": {"name": "kept"},
        "spec": spec,
    }
    status, stored = kinds_server.create(document)
    assert status == 201, stored["message"]
    assert stored["spec"]["books"] == books
    assert json.loads(parse(stored).model_dump_json())["spec"]["books"] == books
