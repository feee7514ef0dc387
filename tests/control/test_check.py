"""`spendmesh check`: the operator's verdicts offline, each error with file, document, line, field, value and fix."""

from __future__ import annotations

import argparse
from pathlib import Path
from textwrap import dedent

import pytest

from spendmesh_cli.check import Report, add_parser, check
from spendmesh_cli.load import FILE_BYTES_MAX, load, secret_values
from spendmesh_cli.resources import examples

GOOD = """\
apiVersion: spendmesh.io/v1alpha1
kind: ModelProvider
metadata: {name: openai, namespace: team-a}
spec:
  dialect: OpenAI
  baseURL: https://api.openai.com/v1
  auth: {type: APIKey, apiKey: {secretKeyRef: {name: keys, key: openai}}}
---
# the smallest route
apiVersion: spendmesh.io/v1alpha1
kind: RoutingPolicy
metadata: {name: route, namespace: team-a}
spec:
  podSelector: {matchLabels: {app: web}}
  providers: [{name: openai, ref: {name: openai}}]
  tiers:
  - name: only
    targets: [{name: only, provider: openai, model: gpt-5-mini}]
  defaultTier: only
"""
WORKLOADS = """\
apiVersion: v1
kind: Namespace
metadata: {name: team-a, labels: {spendmesh.io/inject: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: team-a}
spec: {template: {metadata: {labels: {app: web}}}}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: team-a}
stringData: {openai: sk-canary}
"""


def written(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(dedent(text))
    return tmp_path


def said(report: Report) -> list[str]:
    return [str(remark) for remark in report.remarks]


def command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    options = parser.parse_args(["check", *arguments])
    status: int = options.run(options)
    return status


def test_a_good_directory_is_in_order(tmp_path: Path) -> None:
    report = check([written(tmp_path, policy=GOOD, workloads=WORKLOADS)])
    assert (said(report), report.exit_code(), report.exit_code(strict=True)) == ([], 0, 0)
    assert all(verdict.accepted for verdict in report.verdicts.values())


def test_without_workloads_nobody_complains_that_nothing_matches(tmp_path: Path) -> None:
    report = check([written(tmp_path, policy=GOOD)])
    assert (said(report), report.exit_code()) == ([], 0)


def test_an_invalid_field_is_named_with_file_document_line_value_and_fix(tmp_path: Path) -> None:
    bad = GOOD.replace("defaultTier: only", "defaultTire: only")
    report = check([written(tmp_path, policy=bad)])
    (unknown,) = said(report)
    assert f"{tmp_path}/policy.yaml:19 (document 2): error: RoutingPolicy team-a/route: " in unknown
    assert 'unknown field "spec.defaultTire": did you mean defaultTier?' in unknown
    assert report.exit_code() == 1


def test_a_value_is_shown_where_it_stands(tmp_path: Path) -> None:
    text = """\
    apiVersion: spendmesh.io/v1alpha1
    kind: ModelBudget
    metadata: {name: team, namespace: team-a}
    spec:
      limits:
      - name: fine
        currency: USD
        amount: 5
        window: {type: Calendar, period: Month}
      - name: monthly
        currency: USD
        amount: 2500.5
        window: {type: Calendar, period: Month}
    """
    (remark,) = check([written(tmp_path, budget=text)]).remarks
    assert (remark.place.document, remark.place.line) == (1, 12)
    assert "spec.limits[1].amount: 2500.5" in remark.message and "quoted decimal" in remark.message


def test_a_broken_reference_is_an_error_at_its_line(tmp_path: Path) -> None:
    bad = GOOD.replace("ref: {name: openai}", "ref: {name: openia}")
    (remark,) = check([written(tmp_path, policy=bad)]).remarks
    assert (remark.severity, remark.place.document, remark.place.line) == ("error", 2, 15)
    assert "'openia'" in remark.message and "[ResolvedRefs/ProviderNotFound]" in remark.message


def test_prices_and_matching_are_warnings_that_strict_turns_into_errors(tmp_path: Path) -> None:
    files = written(tmp_path, policy=GOOD.replace("gpt-5-mini", "gpt-99"), workloads=WORKLOADS.replace("web}", "wbe}"))
    report = check([files])
    assert {remark.severity for remark in report.remarks} == {"warning"}
    reasons = " ".join(said(report))
    assert "Priced/ModelUnpriced" in reasons and "Effective/NoMatchingWorkload" in reasons
    assert (report.exit_code(), report.exit_code(strict=True)) == (0, 1)


def test_a_remark_on_a_named_item_stands_at_that_item(tmp_path: Path) -> None:
    (remark,) = check([written(tmp_path, policy=GOOD.replace("gpt-5-mini", "gpt-99"))]).remarks
    assert remark.place.line == 18


def test_a_workload_without_a_sidecar_is_told(tmp_path: Path) -> None:
    report = check([written(tmp_path, policy=GOOD, workloads=WORKLOADS.replace("enabled", "disabled"))])
    assert any("Deployment team-a/web: gets no sidecar" in text for text in said(report))


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("StatefulSet", "{template: {metadata: {labels: {app: web}}}}"),
        ("CronJob", "{jobTemplate: {spec: {template: {metadata: {labels: {app: web}}}}}}"),
    ],
)
def test_every_kind_of_workload_has_pods(tmp_path: Path, kind: str, spec: str) -> None:
    workload = f"kind: {kind}\nmetadata: {{name: web, namespace: team-a}}\nspec: {spec}\n"
    report = check([written(tmp_path, policy=GOOD, workload=workload)])
    assert said(report) == []
    assert [len(verdict.effective) for verdict in report.verdicts.values()] == [1, 1]


def test_a_secret_without_the_item_is_an_error_and_no_value_is_ever_shown(tmp_path: Path) -> None:
    report = check([written(tmp_path, policy=GOOD, workloads=WORKLOADS.replace("openai: sk", "opnai: sk"))])
    (remark,) = report.remarks
    assert "SecretKeyNotFound" in remark.message and "it has: opnai" in remark.message
    assert "sk-canary" not in " ".join(said(report))


def test_an_object_that_stands_twice_is_an_error_naming_both_places(tmp_path: Path) -> None:
    report = check([written(tmp_path, a=GOOD, b=GOOD)])
    assert len(report.remarks) == 2
    assert all("stands twice, first at" in text and "a.yaml" in text for text in said(report))


def test_an_unknown_kind_or_version_of_ours_is_an_error_and_kinds_of_others_are_passed_over(tmp_path: Path) -> None:
    kinds = "apiVersion: spendmesh.io/v1alpha1\nkind: ModelBudgte\nmetadata: {name: x}\n---\n"
    kinds += "apiVersion: spendmesh.io/v9\nkind: ModelBudget\nmetadata: {name: y}\n---\n"
    kinds += "apiVersion: v1\nkind: Service\nmetadata: {name: z}\n"
    report = check([written(tmp_path, kinds=kinds)])
    assert len(report.remarks) == 2
    assert "did you mean ModelBudget?" in said(report)[0]
    assert "must be spendmesh.io/v1alpha1" in said(report)[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "no valid YAML"),
        ("kind: Pod\nmetadata: {name: x}\nkind: Pod\n", "key 'kind' stands twice"),
        ("just text\n", "no Kubernetes object"),
        ("kind: ModelBudget\nspec: {}\n", "metadata.name is missing"),
    ],
)
def test_what_is_no_manifest_is_named_and_ends_with_two(tmp_path: Path, text: str, expected: str) -> None:
    report = check([written(tmp_path, broken=text, good=GOOD)])
    assert report.exit_code() == 2
    assert any(expected in line and "broken.yaml:" in line for line in said(report))
    assert len(report.verdicts) == 2, "the readable files are judged all the same"


def test_missing_empty_too_large_and_binary_files_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    large, binary = tmp_path / "large.yaml", tmp_path / "binary.yaml"
    large.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    binary.write_bytes(b"\xff\xfe\x00")
    report = check([tmp_path / "nowhere.yaml", empty, large, binary])
    assert report.exit_code() == 2
    text = "\n".join(said(report))
    assert all(part in text for part in ("No such file", "no manifest directly in it", "split it", "save it as UTF-8"))


def test_a_list_counts_item_by_item_and_comments_between_separators_are_nothing(tmp_path: Path) -> None:
    items = "kind: List\nitems:\n- kind: Pod\n  metadata: {name: a}\n- kind: Pod\n  metadata: {name: b, namespace: c}\n"
    files = load([written(tmp_path, items=items + "---\n# nothing\n---\n")], "here")
    assert files.unreadable == ()
    assert [
        (each.raw["metadata"]["namespace"], each.raw["metadata"]["name"], each.place.line) for each in files.objects
    ] == [
        ("here", "a", 3),
        ("c", "b", 5),
    ]


def test_secrets_are_read_from_both_fields_and_what_is_no_base64_is_refused_without_its_value(tmp_path: Path) -> None:
    secret = "kind: Secret\nmetadata: {name: k, namespace: n}\ndata: {a: c2stMQ==}\nstringData: {b: sk-2}\n"
    assert secret_values(load([written(tmp_path, secret=secret)]).objects) == {("n", "k"): {"a": "sk-1", "b": "sk-2"}}
    files = load([written(tmp_path, secret=secret.replace("c2stMQ==", "sk-plain-1"))])
    with pytest.raises(ValueError, match=r"data\.a is no base64") as caught:
        secret_values(files.objects)
    assert "sk-plain" not in str(caught.value)


def test_the_command_prints_verdicts_and_answers_the_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = str(written(tmp_path, policy=GOOD, workloads=WORKLOADS))
    assert command(good) == 0
    output = capsys.readouterr()
    assert "ok  RoutingPolicy team-a/route: in force on 1 of 1 workloads" in output.out
    assert output.out.endswith("2 objects, 0 errors, 0 warnings\n")
    (tmp_path / "policy.yaml").write_text(GOOD.replace("OpenAI", "Openai"))
    assert command(good) == 1
    output = capsys.readouterr()
    assert "no  ModelProvider team-a/openai" in output.out and "Unsupported value" in output.err


def test_objects_without_a_namespace_get_the_one_that_is_asked_for(tmp_path: Path) -> None:
    files = written(tmp_path, policy=GOOD.replace(", namespace: team-a", ""))
    assert {key.namespace for key in check([files], "team-z").verdicts} == {"team-z"}


@pytest.mark.parametrize(
    "folders", [("support",), ("organisation",), ("users",), ("failures",), ("organisation", "support", "users")]
)
def test_the_examples_are_in_order(folders: tuple[str, ...]) -> None:
    """What a person applies first has no error, alone or together."""
    report = check([examples() / folder for folder in folders])
    assert report.verdicts
    assert report.exit_code() == 0


def test_the_operators_namespace_can_be_named(tmp_path: Path) -> None:
    """Where a release has another one than the documentation's, its budgets reach others all the same."""
    moved = (
        (examples() / "organisation" / "budgets.yaml").read_text(encoding="utf-8").replace("spendmesh-system", "mesh")
    )
    (tmp_path / "moved.yaml").write_text(moved, encoding="utf-8")
    assert check([tmp_path]).exit_code() == 1
    assert check([tmp_path], operator_namespace="mesh").exit_code() == 0
