"""The models alone: what they accept, what they refuse and in which words. The same files go to a server elsewhere."""

import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from kinds_samples import Sample
from spendmesh_operator.manifests import (
    KINDS,
    ManifestError,
    ModelBudget,
    ModelProvider,
    RetryBudget,
    RoutingPolicy,
    nanos,
    parse,
    transition_errors,
)
from spendmesh_operator.manifests.quantities import duration_milliseconds


def manifest(kind: str, spec: Any, **metadata: Any) -> dict[str, Any]:
    """A document of ours."""
    return {
        "apiVersion": "spendmesh.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "x", **metadata},
        "spec": spec,
    }


def budget(**limit: Any) -> dict[str, Any]:
    """A budget of one limit."""
    whole = {"name": "a", "currency": "USD", "amount": 5, "window": {"type": "Calendar", "period": "Day"}, **limit}
    return manifest("ModelBudget", {"limits": [{key: value for key, value in whole.items() if value is not None}]})


def errors_of(document: Any) -> dict[str, str]:
    """Field to message of every error of the document."""
    with pytest.raises(ManifestError) as raised:
        parse(document)
    return {error.field: error.message for error in raised.value.errors}


def test_an_accepted_file_is_a_typed_manifest(accepted: Sample) -> None:
    """Every document of accepted/ parses to the model of its kind."""
    for document in accepted.documents:
        assert type(parse(document)) is KINDS[document["kind"]]


def test_a_rejected_file_names_field_and_fix(rejected: Sample) -> None:
    """Every document of rejected/ is refused for the reason that the file gives."""
    (document,) = rejected.documents
    found = errors_of(document)
    assert rejected.message in found[rejected.field]


def test_an_update_is_judged_by_what_never_changes(updated: Sample) -> None:
    """Every pair of updates/ is refused exactly if the file says so, and for that reason."""
    before, after = (parse(document) for document in updated.documents)
    found = {error.field: error.message for error in transition_errors(before, after)}
    assert bool(found) == updated.refused
    assert not found or updated.message in found[updated.field]


def test_the_smallest_retry_budget_has_the_documented_defaults() -> None:
    """An empty spec means the values that the documentation shows."""
    parsed = parse(manifest("RetryBudget", {}))
    assert isinstance(parsed, RetryBudget)
    spec = parsed.spec
    assert (spec.mode, spec.retry_constraint.budget.percent, spec.retry.attempts) == ("Enforce", 10, 2)
    assert spec.retry.codes == (408, 429, 500, 502, 503, 504, 529)
    assert spec.retry.backoff == timedelta(milliseconds=500)
    assert spec.circuit_breaker.max_ejection_time == timedelta(minutes=5)


def test_amounts_are_exact() -> None:
    """Money is a decimal from the first reading on, and whole nano-units for the books."""
    parsed = parse(budget(amount="999999999.123456789"))
    assert isinstance(parsed, ModelBudget)
    (limit,) = parsed.spec.limits
    assert limit.amount == Decimal("999999999.123456789")
    assert limit.amount_units == 999_999_999_123_456_789


def test_counts_are_counted_as_they_are() -> None:
    """A limit of tokens is not scaled."""
    parsed = parse(budget(unit="TotalTokens", currency=None, amount="1000000"))
    assert isinstance(parsed, ModelBudget)
    assert parsed.spec.limits[0].amount_units == 1_000_000


def test_more_than_nine_decimals_have_no_nanos() -> None:
    """What does not fit is an error, never rounded."""
    assert nanos(Decimal("0.000000001")) == 1
    with pytest.raises(ValueError, match="9 decimals"):
        nanos(Decimal("0.0000000001"))


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("500ms", 500), ("1m30s", 90_000), ("1h", 3_600_000), ("0h0m1s", 1000), ("1m1ms", 60_001)],
)
def test_durations_are_those_of_gateway_api(text: str, milliseconds: int) -> None:
    """GEP-2257: parts add up; `m` is minutes and `ms` milliseconds."""
    assert duration_milliseconds(text) == milliseconds


def test_an_absent_section_differs_from_an_empty_list() -> None:
    """Absent rules are inherited, an empty list inherits none."""
    absent = parse(manifest("RoutingPolicy", {}))
    empty = parse(manifest("RoutingPolicy", {"rules": []}))
    assert isinstance(absent, RoutingPolicy)
    assert isinstance(empty, RoutingPolicy)
    assert (absent.spec.rules, empty.spec.rules) == (None, ())


def test_absent_prices_are_no_prices() -> None:
    """A provider without prices leaves all of them to the built-in table; an absent price is none, not zero."""
    auth = {"type": "None"}
    base = {"dialect": "OpenAI", "baseURL": "https://x.example/v1", "auth": auth}
    price = {"model": "m", "currency": "USD", "inputPerMillion": 0, "outputPerMillion": "0.40"}
    bare, priced = (parse(manifest("ModelProvider", spec)) for spec in (base, {**base, "prices": [price]}))
    assert isinstance(bare, ModelProvider)
    assert isinstance(priced, ModelProvider)
    assert bare.spec.prices == ()
    assert priced.spec.prices[0].input_per_million == 0
    assert priced.spec.prices[0].cache_read_per_million is None


def test_all_errors_are_reported_at_once() -> None:
    """Nobody has to apply a manifest once for each mistake in it."""
    found = errors_of(manifest("ModelBudget", {"mood": "x", "limits": [{"name": "A", "amount": 0.5}]}))
    assert set(found) == {
        "spec.mood",
        "spec.limits[0].name",
        "spec.limits[0].amount",
        "spec.limits[0].window",
    }


def test_a_misspelt_field_gets_a_suggestion() -> None:
    """The fix is in the message."""
    assert errors_of(manifest("RetryBudget", {"circuitBraker": {}}))["spec.circuitBraker"].endswith(
        "did you mean circuitBreaker?"
    )


def test_a_missing_field_is_explained() -> None:
    """What is missing comes with its meaning and a worked example."""
    assert "Example: {type: Calendar, period: Month" in errors_of(budget(window=None))["spec.limits[0].window"]


def test_an_error_reads_as_a_sentence_with_object_field_value_and_fix() -> None:
    """What `check` prints and what conditions show."""
    with pytest.raises(ManifestError) as raised:
        parse(budget(currency="usd"))
    assert str(raised.value) == (
        "ModelBudget default/x is invalid: spec.limits[0].currency: 'usd': must be an ISO 4217 code such as USD or EUR"
    )


def test_a_key_in_the_wrong_place_is_not_repeated() -> None:
    """A pasted key must not reach a log through the message that refuses it."""
    auth = {"type": "APIKey", "apiKey": "sk-canary", "key": "sk-canary"}
    document = manifest("ModelProvider", {"dialect": "OpenAI", "baseURL": "https://x.example", "auth": auth})
    with pytest.raises(ManifestError) as raised:
        parse(document)
    assert "spec.auth.apiKey" in str(raised.value)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("document", [None, [], "x", {}, {"kind": ["ModelBudget"]}, {"kind": "ModelBudget"}])
def test_what_is_no_manifest_is_refused(document: Any) -> None:
    """Anything that a YAML file can hold gets an error of ours, never another exception."""
    assert errors_of(document)


def test_a_kind_of_nearly_our_name_gets_a_suggestion() -> None:
    """A file with a misspelt kind is not skipped in silence."""
    assert "did you mean ModelBudget?" in errors_of({**budget(), "kind": "ModelBudgets"})["kind"]


def test_another_version_is_refused() -> None:
    """We do not guess what another version means."""
    assert errors_of({**budget(), "apiVersion": "spendmesh.io/v1"}) == {
        "apiVersion": "must be spendmesh.io/v1alpha1: this version of Spendmesh reads no other"
    }


def test_status_is_not_read() -> None:
    """What another version wrote into status cannot make a valid object invalid."""
    assert parse({**budget(), "status": {"conditions": "odd"}})


def test_metadata_gives_identity_and_age() -> None:
    """The index needs namespace, name, uid, generation and age; anything else in metadata is ignored."""
    document = manifest(
        "RetryBudget",
        {},
        namespace="team-a",
        uid="u",
        generation=3,
        creationTimestamp="2026-01-31T09:30:00Z",
        managedFields=[{}],
        labels=None,
    )
    parsed = parse(document)
    assert parsed.key == ("RetryBudget", "team-a", "x")
    assert (parsed.metadata.uid, parsed.metadata.generation) == ("u", 3)
    assert parsed.metadata.creation_timestamp is not None
    assert parsed.metadata.creation_timestamp.isoformat() == "2026-01-31T09:30:00+00:00"


def test_manifests_are_immutable() -> None:
    """Index and compile share them: nobody may change one."""
    parsed = parse(budget())
    assert isinstance(parsed, ModelBudget)
    with pytest.raises(ValueError, match="frozen"):
        parsed.spec.limits[0].name = "other"


def test_the_models_load_without_a_kubernetes_client() -> None:
    """`run`, `demo` and `check` read manifests without any of Kubernetes."""
    script = "import sys, spendmesh_operator.manifests; print({'kopf', 'kubernetes', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
