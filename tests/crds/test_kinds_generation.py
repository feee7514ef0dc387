"""From the models to crds/: the files are current, everything is described, and what no schema can say is refused."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, Field

from spendmesh_operator.manifests import KINDS, crd
from spendmesh_operator.manifests.rules import SET

CRDS = Path(__file__).parents[2] / "crds"


def described(text: str = "x", **rules: Any) -> Any:
    """A required field with a description."""
    return Field(description=text, **rules)


def properties(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property of a schema with its path, also those inside lists."""
    for name, below in schema.get("properties", {}).items():
        yield f"{path}.{name}", below
        yield from properties(below, f"{path}.{name}")
    if "items" in schema:
        yield from properties(schema["items"], f"{path}[]")


def schemas(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The properties of the root of a CustomResourceDefinition."""
    (version,) = definition["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]
    return found


def test_the_committed_files_are_what_the_models_say() -> None:
    """`make generate` changes nothing."""
    assert crd.stale(CRDS) == []


def test_check_fails_on_a_changed_a_missing_and_a_strange_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check in CI sees every difference and says what to run."""
    assert crd.main([str(tmp_path)]) == 0
    assert crd.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "modelbudgets.yaml").write_text("changed")
    (tmp_path / "retrybudgets.yaml").unlink()
    (tmp_path / "strange.yaml").write_text("strange")
    assert crd.main(["--check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert all(name in said for name in ("modelbudgets.yaml", "retrybudgets.yaml", "strange.yaml", "make generate"))


def test_the_text_is_yaml_that_reads_back_as_the_definition() -> None:
    """Wrapping and quoting lose nothing."""
    for kind in KINDS.values():
        text = crd.rendered()[f"{kind.CRD.plural}.yaml"]
        assert yaml.safe_load(text) == crd.custom_resource_definition(kind)


def test_every_field_says_what_it_means_with_an_example(committed_crds: dict[str, dict[str, Any]]) -> None:
    """`kubectl explain` has a meaning and a worked example for every field of spec and status."""
    silent = [
        kind + path
        for kind, definition in committed_crds.items()
        for root in ("spec", "status")
        for path, schema in properties(schemas(definition).get(root, {}), f".{root}")
        if "Example: " not in schema.get("description", "")
    ]
    assert silent == []


def test_a_field_that_goes_with_another_is_never_written_without_it(committed_crds: dict[str, dict[str, Any]]) -> None:
    """The API server writes defaults into every stored object, where an older operator would not know the field."""
    fields = dict(properties(schemas(committed_crds["ModelBudget"])["spec"]))
    companions = (".limits[].maxValues", ".limits[].survivalPercent", ".limits[].allowCap", ".limits[].per")
    younger = {
        ".inheritance": "Override",
        ".unpricedModels": "Deny",
        ".limits[].onUnverifiable": "Deny",
        ".limits[].reservation": "Strict",
        ".limits[].window.anchorDay": "1",
    }
    assert [name for name in (*companions, *younger) if "default" in fields[name]] == []
    assert all(fields[name]["description"].endswith(f"Default: {value}") for name, value in younger.items())


def test_every_rule_has_a_message(committed_crds: dict[str, dict[str, Any]]) -> None:
    """Nobody is shown an expression instead of a reason."""
    rules = [
        rule
        for definition in committed_crds.values()
        for _, schema in properties(schemas(definition)["spec"])
        for rule in schema.get("x-kubernetes-validations", [])
    ]
    assert len(rules) > 20
    assert all(rule["message"] and "self" not in rule["message"] for rule in rules)


def test_kinds_have_short_names_a_category_and_no_unpublished_field(committed_crds: dict[str, dict[str, Any]]) -> None:
    """What a user types, and nothing in a schema that does not act yet."""
    names = {kind: definition["spec"]["names"] for kind, definition in committed_crds.items()}
    assert {kind: name.get("shortNames") for kind, name in names.items()} == {
        "ModelProvider": ["mprov"],
        "RoutingPolicy": ["rpol"],
        "ModelBudget": ["mbud"],
        "RetryBudget": ["rbud"],
        "BudgetLedger": None,
    }
    assert all(name["categories"] == ["spendmesh"] for name in names.values())
    unpublished = {"inheritance", "namespaceSelector", "namespace", "allowedNamespaces"}
    for kind, definition in committed_crds.items():
        published = {"inheritance", "namespaceSelector"} if kind == "ModelBudget" else set()
        for path, _ in properties(schemas(definition)["spec"]):
            assert path.rpartition(".")[2] not in unpublished - published


class Plain(BaseModel):
    """An object."""

    text: Annotated[str, Field(max_length=3)] = described()


def test_null_const_and_exclusive_bounds_are_said_as_the_server_wants() -> None:
    """Optional fields, single values, exclusive bounds and references become what a structural schema knows."""

    class Said(BaseModel):
        """Object."""

        text: Annotated[str, Field(max_length=3)] | None = Field(default=None, description="x")
        above: Annotated[int, Field(gt=0)] = described()
        one: Literal["A"] = described()
        nested: Plain | None = Field(default=None, description="of the field")

    schema = crd.structural(Said)
    assert schema["required"] == ["above", "one"]
    assert schema["properties"]["text"] == {"description": "x", "type": "string", "maxLength": 3}
    assert schema["properties"]["above"] == {
        "description": "x",
        "type": "integer",
        "minimum": 0,
        "exclusiveMinimum": True,
    }
    assert schema["properties"]["one"] == {"description": "x", "type": "string", "enum": ["A"]}
    assert schema["properties"]["nested"]["description"] == "of the field"
    assert schema["properties"]["nested"]["properties"]["text"]["maxLength"] == 3


class Recursive(BaseModel):
    """A recursive object."""

    below: "Recursive | None" = Field(default=None, description="x")


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (float, "is a float"),
        (str, "text without maxLength"),
        (tuple[int, ...], "a list without maxItems"),
        (Annotated[tuple[int, ...], Field(max_length=2)], "does not say how it is merged"),
        (Annotated[tuple[str, ...], Field(max_length=2), SET], "text without maxLength"),
        (Annotated[list[Any], Field(max_length=2), SET], "has no type"),
        (dict[str, int], "a map without maxProperties"),
        (dict[str, Any], "properties of any name"),
        (int | str, "a union of types"),
        (int | bool | None, "a union of types"),
        (tuple[int, str], "no prefixItems"),
        (set[int], "no uniqueItems"),
        (Any, "has no type"),
        (Annotated[int, Field(le=2**63)], "beyond 2\\^53"),
        (Recursive, "contains itself"),
        (Annotated[int, Field(multiple_of=5)], "no multipleOf"),
    ],
)
def test_what_a_structural_schema_cannot_say_is_refused(annotation: Any, reason: str) -> None:
    """A wrong model fails when the files are generated, not when a user applies them."""
    model = type("Bad", (BaseModel,), {"__annotations__": {"field": annotation}, "field": described()})
    with pytest.raises(crd.CannotSay, match=reason):
        crd.structural(model)


def test_a_field_without_description_is_refused() -> None:
    """`kubectl explain` never shows <no description>."""

    class Silent(BaseModel):
        """An object."""

        field: int

    with pytest.raises(crd.CannotSay, match="no description"):
        crd.structural(Silent)
