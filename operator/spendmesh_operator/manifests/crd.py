"""From the pydantic models to `crds/*.yaml`. Refuses what a structural schema cannot say; knows nothing of one kind.

`python -m spendmesh_operator.manifests.crd [--check] crds/` writes the files, or compares them.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from spendmesh_operator.manifests.common import GROUP, VERSION, CrdNames, Manifest
from spendmesh_operator.manifests.parsing import KINDS
from spendmesh_operator.manifests.rules import UNSTORED_MARK

CATEGORY: Final = "spendmesh"
EXACT_MAX: Final = 2**53

_COPIED: Final = frozenset(
    {"type", "description", "default", "enum", "format", "minimum", "maximum", "minLength", "maxLength", "pattern"}
    | {"minItems", "maxItems", "minProperties", "maxProperties", "required"}
)
_DROPPED: Final = frozenset({"title", "$defs"})
_ORDER: Final = (
    *("description", "type", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "format", "enum"),
    *("default", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minLength", "maxLength", "pattern"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "x-kubernetes-list-type"),
    *("x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations", "required", "properties"),
    *("additionalProperties", "items"),
)


class CannotSay(ValueError):
    """A structural schema has no way to say this, or saying it would be unsafe. `path` is where, as in YAML."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path or 'root'}: {reason}")


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema of `model` as apiextensions.k8s.io/v1 wants it. Raises CannotSay."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}), "")


def custom_resource_definition(kind: type[Manifest]) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind."""
    names = kind.CRD
    schema: dict[str, Any] = {
        "description": " ".join((kind.__doc__ or "").split()),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": f"Group and version of the kind: {GROUP}/{VERSION}.", "type": "string"},
            "kind": {"description": f"Always {kind.__name__}.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(_spec_model(kind)),
        },
    }
    version: dict[str, Any] = {"name": VERSION, "served": True, "storage": True}
    if kind.STATUS is not None:
        schema["properties"]["status"] = structural(kind.STATUS)
        version["subresources"] = {"status": {}}
    version["additionalPrinterColumns"] = _columns(names)
    version["schema"] = {"openAPIV3Schema": schema}
    metadata: dict[str, Any] = {"name": f"{names.plural}.{GROUP}"}
    if names.policy is not None:
        metadata["labels"] = {"gateway.networking.k8s.io/policy": names.policy}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {"group": GROUP, "names": _names(kind), "scope": "Namespaced", "versions": [version]},
    }


def rendered() -> dict[str, str]:
    """File name to YAML text of every kind, always the same for the same models."""
    return {
        f"{kind.CRD.plural}.yaml": "# Generated from the models in spendmesh_operator.manifests: `make generate`.\n"
        + yaml.dump(custom_resource_definition(kind), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)
        for kind in KINDS.values()
    }


def stale(folder: Path) -> list[str]:
    """Names of files in `folder` that are not what the models say: missing, different, or of no kind."""
    wanted = rendered()
    present = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.yaml")}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def _spec_model(kind: type[Manifest]) -> type[BaseModel]:
    spec = kind.model_fields["spec"].annotation
    if not (isinstance(spec, type) and issubclass(spec, BaseModel)):
        raise CannotSay("spec", f"{kind.__name__} has no model as its spec")
    return spec


def _names(kind: type[Manifest]) -> dict[str, Any]:
    names: dict[str, Any] = {
        "kind": kind.__name__,
        "listKind": f"{kind.__name__}List",
        "plural": kind.CRD.plural,
        "singular": kind.__name__.lower(),
        "categories": [CATEGORY],
    }
    return names | {"shortNames": [kind.CRD.short]} if kind.CRD.short else names


def _columns(names: CrdNames) -> list[dict[str, Any]]:
    return [
        {"name": column.name, "type": column.type, "jsonPath": column.path, "description": column.description}
        | ({"priority": 1} if column.wide else {})
        for column in names.columns
    ]


def _convert(node: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> dict[str, Any]:
    source = _without_null(_inlined(node, definitions, path), definitions, path)
    schema: dict[str, Any] = {}
    for key, value in source.items():
        if key in _DROPPED or key == UNSTORED_MARK or (key, value) == ("default", []):
            continue  # an absent list is an empty one: storing it would only be noise in what people wrote
        if key in _COPIED or key.startswith("x-kubernetes-"):
            schema[key] = value
        elif key == "const":
            schema["enum"] = [value]
        elif key in ("exclusiveMinimum", "exclusiveMaximum"):
            schema[key.replace("exclusiveM", "m")] = value  # OpenAPI 3.0 has a bound and a flag
            schema[key] = True
        elif key == "properties":
            schema[key] = {name: _property(below, definitions, f"{path}.{name}") for name, below in value.items()}
        elif key == "items":
            schema[key] = _convert(value, definitions, f"{path}[]")
        elif key == "additionalProperties":
            _convert_additional(schema, source, definitions, path)
        else:
            raise CannotSay(path, f"a structural schema has no {key}")
    schema["description"] = " ".join(schema.get("description", "").split())
    if not schema["description"]:
        del schema["description"]
    _demand_bounds(schema, path)
    return {key: schema[key] for key in sorted(schema, key=_ORDER.index)}


def _inlined(node: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> dict[str, Any]:
    """`node` with its `$ref` replaced by what it refers to; what stands beside the reference wins, rules add up."""
    merged = dict(node)
    while "$ref" in merged:
        name = str(merged.pop("$ref")).removeprefix("#/$defs/")
        if path.count(".") > 32:
            raise CannotSay(path, f"{name} contains itself: a structural schema cannot recurse")
        target = definitions[name]
        rules = [*target.get("x-kubernetes-validations", []), *merged.get("x-kubernetes-validations", [])]
        merged = {**target, **merged} | ({"x-kubernetes-validations": rules} if rules else {})
    return merged


def _without_null(node: dict[str, Any], definitions: Mapping[str, Any], path: str) -> dict[str, Any]:
    """`T | None` means an absent field: the API server drops nulls before it looks."""
    if "anyOf" not in node:
        return node
    alternatives = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
    if len(alternatives) != 1 or len(alternatives) == len(node["anyOf"]):
        raise CannotSay(path, "a union of types: write one object with a type enum, optional fields and rules")
    rest = {key: value for key, value in node.items() if key != "anyOf" and (key, value) != ("default", None)}
    return _inlined({**alternatives[0], **rest}, definitions, path)


def _property(node: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> dict[str, Any]:
    schema = _convert(node, definitions, path)
    if "description" not in schema:
        raise CannotSay(path, "has no description: kubectl explain would show nothing")
    if schema.get("default", {}) != {}:  # kubectl explain does not show defaults
        schema["description"] += (
            f". Default: {yaml.safe_dump(schema['default'], default_flow_style=True).split('...')[0].strip()}"
        )
    if UNSTORED_MARK in node:
        del schema["default"]
    return schema


def _convert_additional(
    schema: dict[str, Any], source: Mapping[str, Any], definitions: Mapping[str, Any], path: str
) -> None:
    additional = source["additionalProperties"]
    if additional is False:
        return  # what is not in properties is pruned or, with strict validation, refused
    if "x-kubernetes-preserve-unknown-fields" in source:
        return
    if additional is True or "properties" in source:
        raise CannotSay(path, "has properties of any name beside known ones")
    schema["additionalProperties"] = _convert(additional, definitions, f"{path}.*")


def _demand_bounds(schema: Mapping[str, Any], path: str) -> None:
    """CEL's cost is estimated from bounds: without them, a rule far above can cost the CRD its acceptance."""
    if "x-kubernetes-int-or-string" in schema:
        return
    match schema.get("type"):
        case None:
            raise CannotSay(path, "has no type")
        case "integer" if any(abs(schema.get(bound, 0)) > EXACT_MAX for bound in ("minimum", "maximum")):
            raise CannotSay(path, "has a bound beyond 2^53: an API server reads bounds as floats")
        case "number":
            raise CannotSay(path, "is a float: write an integer, or a decimal as text")
        case "string" if "enum" not in schema and schema.get("format") != "date-time" and "maxLength" not in schema:
            raise CannotSay(path, "is text without maxLength")
        case "array" if "maxItems" not in schema:
            raise CannotSay(path, "is a list without maxItems")
        case "array" if "x-kubernetes-list-type" not in schema:
            raise CannotSay(path, "is a list that does not say how it is merged: map, set or atomic")
        case "array" if "items" not in schema:
            raise CannotSay(path, "is a list of anything")
        case "object" if "additionalProperties" in schema and "maxProperties" not in schema:
            raise CannotSay(path, "is a map without maxProperties")
        case "object" if not schema.keys() & {
            "properties",
            "additionalProperties",
            "x-kubernetes-preserve-unknown-fields",
        }:
            raise CannotSay(path, "is an object of anything")


class _Plain(yaml.SafeDumper):
    """Block style, lists indented under their key, no anchors: as people write it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def main(arguments: list[str] | None = None) -> int:
    """Writes or compares the files; the exit status is 1 if `--check` finds a difference."""
    parser = argparse.ArgumentParser(description="Writes the CustomResourceDefinitions of our kinds.")
    parser.add_argument("folder", type=Path, help="where the files are")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not what the models say")
    options = parser.parse_args(arguments)
    changed = stale(options.folder)
    if options.check:
        for name in changed:
            sys.stderr.write(f"{options.folder / name} is not what the models say: run `make generate`\n")
        return 1 if changed else 0
    for name, text in rendered().items():
        (options.folder / name).write_text(text, encoding="utf-8")
    for name in set(changed) - rendered().keys():
        sys.stderr.write(f"{options.folder / name} belongs to no kind: remove it\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
